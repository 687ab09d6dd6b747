"""DICOM whole slides lie in several files, one or more for each level: which files belong together, and are all whole.

Only headers are read here, as PS3.5 and PS3.10 lay them out; pixels are OpenSlide's.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from sentinode.errors import SourceError

SUFFIX: Final = ".dcm"
HEADER_BYTES: Final = 64 << 10
"""From the start of a file; the number of its series stands within the first few thousand."""
_FIRST_BYTES: Final = 4 << 10
"""Mostly enough, and a folder may hold thousands of files."""
MARK_BYTES: Final = 132
"""The mark of a DICOM file ends here."""
RENAME: Final = f"call its DICOM files *{SUFFIX}: one without is not looked for"
"""What to do with a slide whose files have other names."""
MOST_LOOKED_AT: Final = 16
"""Files that are opened for that advice."""
_MAGIC: Final = b"DICM"
_SLIDE_CLASS: Final = b"1.2.840.10008.5.1.4.1.1.77.1.6"
"""VL Whole Slide Microscopy Image Storage."""
_CLASS, _SYNTAX, _SERIES = 0x00020002, 0x00020010, 0x0020000E
_ENCAPSULATED: Final = b"1.2.840.10008.1.2.4."
_END_OF_PIXELS: Final = b"\xfe\xff\xdd\xe0\0\0\0\0"
_LONG: Final = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
"""Representations whose length takes four bytes, after two that are empty."""
_UNDEFINED: Final = 0xFFFFFFFF


class Header(NamedTuple):
    """What the start of a DICOM file says."""

    is_slide: bool
    series: str
    """The same for all levels of one slide; empty for other images, which may be laid out otherwise."""
    is_encapsulated: bool
    """Whether the pixels are compressed, and so end with a mark."""


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins with ``start`` is DICOM, whatever its name."""
    return start[MARK_BYTES - 4 : MARK_BYTES] == _MAGIC


def read_header(data: bytes) -> Header | None:
    """Of a file that begins with ``data``; None where that is no DICOM, or ends before the series is named."""
    if not is_dicom(data):
        return None
    found: dict[int, bytes] = {}
    for tag, value in _elements(data):
        found[tag] = value.rstrip(b"\0 ")
        if tag >= _SERIES:
            break
    if found.get(_CLASS, _SLIDE_CLASS) != _SLIDE_CLASS:
        return Header(False, "", False)
    if _CLASS not in found or _SERIES not in found:
        return None
    is_encapsulated = found.get(_SYNTAX, b"").startswith(_ENCAPSULATED)
    return Header(True, found[_SERIES].decode("ascii", "replace"), is_encapsulated)


def first_file(folder: Path) -> Path:
    """A file of the one slide in ``folder``.

    Raises SourceError where there is none or more than one, and where a file is damaged.
    """
    by_series = _slides_in(folder)
    if not by_series:
        raise SourceError(
            f"{folder} is a folder without DICOM slide",
            f"one slide, or files *{SUFFIX} of one",
            RENAME
            if any(map(_is_dicom_file, islice(folder.iterdir(), MOST_LOOKED_AT)))
            else "give the slide",
        )
    if len(by_series) > 1:
        files = ", ".join(sorted(paths[0].name for paths in by_series.values())[:5])
        raise SourceError(
            f"{folder} holds {len(by_series)} DICOM slides", "one slide", f"give a file of one: {files}"
        )
    (paths,) = by_series.values()
    return paths[0]


def check_files(path: Path) -> None:
    """Raises SourceError where the slide of which ``path`` is a file has lost a part of its files.

    OpenSlide passes over files that it cannot read, and a level with them, perhaps the largest one.
    """
    header = _header_of(path)
    if header is None:
        return
    for file in _slides_in(path.parent).get(header.series, ()):
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - HEADER_BYTES))
            end = opened.read()
        if header.is_encapsulated and _END_OF_PIXELS not in end:
            raise SourceError(
                f"{file} ends before its pixels do", "a whole file", "copy the slide again: it is truncated"
            )


def _slides_in(folder: Path) -> dict[str, list[Path]]:
    """Files by series, in the order of their names. Raises SourceError on a damaged file beside a single slide."""
    found: dict[str, list[Path]] = {}
    damaged = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() != SUFFIX or not path.is_file():
            continue
        header = _header_of(path)
        if header is None:
            damaged.append(path)
        elif header.is_slide:
            found.setdefault(header.series, []).append(path)
    # Among several slides nobody knows whose it is.
    if damaged and len(found) < 2:
        raise SourceError(
            f"{damaged[0]} is no DICOM file, or ends within its header",
            "a whole file for each level of the slide",
            "copy the slide again: a level would be missing without it; or take the file away if it is something else",
        )
    return found


def _is_dicom_file(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_dicom(file.read(MARK_BYTES))


def _header_of(path: Path) -> Header | None:
    with path.open("rb") as file:
        start = file.read(_FIRST_BYTES)
        return read_header(start) or read_header(start + file.read(HEADER_BYTES - _FIRST_BYTES))


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and value of the elements that lie in no sequence; explicit representations, little-endian."""
    at, depth = MARK_BYTES, 0
    while at + 12 <= len(data):
        group, element = struct.unpack_from("<HH", data, at)
        is_mark = group == 0xFFFE
        start = at + (12 if not is_mark and data[at + 4 : at + 6] in _LONG else 8)
        if is_mark or start == at + 12:
            (length,) = struct.unpack_from("<I", data, start - 4)
        else:
            (length,) = struct.unpack_from("<H", data, start - 2)
        at = start if length == _UNDEFINED else start + length
        if at > len(data):
            return
        if is_mark and element != 0xE000:
            depth -= 1
        elif length == _UNDEFINED:
            depth += 1
        elif not depth and not is_mark:
            yield group << 16 | element, data[start:at]
