"""Where the members of a tar's samples lie, found by one scan of its headers.

Reads what this project, ``webdataset.ShardWriter`` and GNU tar write: ustar, pax and GNU long names;
members of a sample in any order, next to each other or not. A tar that ends before its end-of-archive mark
is an error, also where it was cut between two members, which stock readers take for the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sentinode.errors import IntegrityError

BLOCK = 512
IMAGE_SUFFIXES = ("npy", "jpg", "jpeg", "webp", "png", "tif", "tiff", "bmp")

_CHECKSUM = slice(148, 156)
_BLANK_CHECKSUM = sum(b" " * 8)
_DIGITS = 20
"""Of the length of a pax record, more than any has."""


@dataclass(frozen=True)
class Member:
    """One file inside the tar: its bytes are ``tar[start : start + size]``."""

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class SampleEntry:
    """A sample's members by suffix, e.g. ``jpg`` and ``cls``. The key is their name up to its first dot."""

    key: str
    members: Mapping[str, Member]

    @property
    def image(self) -> tuple[str, Member] | None:
        """Suffix and member of the image, None where the sample has none."""
        for suffix in IMAGE_SUFFIXES:
            if suffix in self.members:
                return suffix, self.members[suffix]
        return None


def scan_tar(tar: memoryview, where: str) -> list[SampleEntry]:
    """The samples of a tar in the order of their first members.

    Raises IntegrityError, naming ``where``, for a truncated or damaged tar and for a member that comes twice.
    """
    samples: dict[str, dict[str, Member]] = {}
    for member in _members(tar, where):
        folder, slash, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")
        parts = samples.setdefault(f"{folder}{slash}{stem}", {})
        if suffix.lower() in parts:
            raise IntegrityError(
                f"{where} holds {member.name} twice", "each member once", "write the shard anew"
            )
        parts[suffix.lower()] = member
    return [SampleEntry(key, parts) for key, parts in samples.items()]


def _members(tar: memoryview, where: str) -> Iterator[Member]:
    at = 0
    long_name: str | None = None
    while True:
        header = bytes(tar[at : at + BLOCK])
        if len(header) < BLOCK:
            raise _cut(where, at)
        if not any(header):
            if len(tar) < at + 2 * BLOCK or any(tar[at + BLOCK : at + 2 * BLOCK]):
                raise _cut(where, at)
            return
        size = _size(header, where, at)
        start, kind = at + BLOCK, header[156:157]
        if start + size > len(tar):
            raise _cut(where, at)
        if kind == b"x":
            long_name = _pax_path(bytes(tar[start : start + size]), where, at) or long_name
        elif kind == b"L":
            long_name = bytes(tar[start : start + size]).rstrip(b"\0").decode(errors="replace")
        elif kind in (b"0", b"\0"):
            yield Member(long_name or _name(header), start, size)
            long_name = None
        else:
            long_name = None  # folders, links and global headers hold no sample
        at = start + -(-size // BLOCK) * BLOCK


def _size(header: bytes, where: str, at: int) -> int:
    """The member's size, after a check of the header's own checksum."""
    try:
        stated = int(header[_CHECKSUM].strip(b" \0") or b"0", 8)
        size = int(header[124:136].strip(b" \0") or b"0", 8)
    except ValueError:
        stated, size = -1, 0
    if size < 0 or stated != sum(header) - sum(header[_CHECKSUM]) + _BLANK_CHECKSUM:
        raise _no_header(where, at)
    return size


def _name(header: bytes) -> str:
    name, prefix = (
        part.split(b"\0", 1)[0].decode(errors="replace") for part in (header[:100], header[345:500])
    )
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _pax_path(records: bytes, where: str, at: int) -> str | None:
    """The ``path`` of a pax extended header: records ``<length> <key>=<value>\\n``."""
    start = 0
    while start < len(records):
        length, space, _ = records[start : start + _DIGITS].partition(b" ")
        end = start + int(length) if space and length.isdigit() else 0
        # A record that does not even hold its own length would never come to an end.
        if not start + len(length) < end <= len(records):
            raise _no_header(where, at)
        key, _, value = records[start + len(length) + 1 : end - 1].partition(b"=")
        if key == b"path":
            return value.decode(errors="replace")
        start = end
    return None


def _no_header(where: str, at: int) -> IntegrityError:
    return IntegrityError(
        f"{where} has no tar header at byte {at}", "a tar of samples", "restore or remake the shard"
    )


def _cut(where: str, at: int) -> IntegrityError:
    return IntegrityError(
        f"{where} ends at byte {at} without the mark of a tar's end",
        "a whole tar, closed by two zero blocks",
        "the file is cut off: restore it or write it anew",
    )
