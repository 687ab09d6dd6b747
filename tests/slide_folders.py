"""Small slides of several files, from their published descriptions: DICOM and MIRAX, with the levels that tests choose.

DICOM: PS3.3 A.32.8, PS3.5 and PS3.10. MIRAX: openslide.org/formats/mirax. They hold what readers need, and no more.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from slide_files import Rgb

Mpp = tuple[float, float] | None
_TILE = 64
_WSI = b"1.2.840.10008.5.1.4.1.1.77.1.6"
_RAW, _JPEG_BASELINE = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.4.50"


def encoded(rgb: Rgb, format_: str, **options: object) -> bytes:
    """An image file; JPEGs of quality 95."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(
        buffer, format_, **({"quality": 95} | options if format_ == "JPEG" else options)
    )
    return buffer.getvalue()


def _tiles(rgb: Rgb, side: int = _TILE) -> Iterator[tuple[int, int, Rgb]]:
    """Column, row and pixels of each tile; white beyond the border."""
    height, width = rgb.shape[:2]
    padded = np.pad(rgb, ((0, -height % side), (0, -width % side), (0, 0)), constant_values=255)
    for row in range(padded.shape[0] // side):
        for column in range(padded.shape[1] // side):
            tile = padded[row * side : (row + 1) * side, column * side : (column + 1) * side]
            yield column, row, np.ascontiguousarray(tile)


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    if vr in (b"OB", b"OW", b"SQ"):
        return head + struct.pack("<HI", 0, len(value)) + value
    value += (b"\0" if vr in (b"UI", b"OB") else b" ") * (len(value) % 2)
    return head + struct.pack("<H", len(value)) + value


def _item(value: bytes, tag: int = 0xE000) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0xFFFE, tag, len(value)) + value


def write_dicom(
    folder: Path, rgb: Rgb, mpp: Mpp = (0.5, 0.5), levels: int = 3, jpeg: bool = False, series: int = 1
) -> Path:
    """A folder of one DICOM file for each level (``<series>-<level>.dcm``), tiles of 64 x 64 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    for level in range(levels):
        data = _dicom(np.ascontiguousarray(rgb[:: 1 << level, :: 1 << level]), mpp, level, jpeg, series)
        (folder / f"{series}-{level}.dcm").write_bytes(data)
    return folder


def _dicom(rgb: Rgb, mpp: Mpp, level: int, jpeg: bool, series: int) -> bytes:
    def number(tag: int, value: int) -> bytes:
        return _element(tag, b"US", struct.pack("<H", value))

    instance = b"1.2.3.%d.%d" % (series, level + 1)
    syntax = _JPEG_BASELINE if jpeg else _RAW
    meta = b"".join(
        [
            _element(0x00020001, b"OB", b"\0\1"),
            _element(0x00020002, b"UI", _WSI),
            _element(0x00020003, b"UI", instance),
            _element(0x00020010, b"UI", syntax),
            _element(0x00020012, b"UI", b"1.2.3"),
        ]
    )
    frames = [tile for *_, tile in _tiles(rgb)]
    kind = b"DERIVED\\PRIMARY\\VOLUME\\RESAMPLED" if level else b"ORIGINAL\\PRIMARY\\VOLUME\\NONE"
    height, width = rgb.shape[:2]
    elements = [
        _element(0x00080008, b"CS", kind),
        _element(0x00080016, b"UI", _WSI),
        _element(0x00080018, b"UI", instance),
        _element(0x00080060, b"CS", b"SM"),
        _element(0x0020000D, b"UI", b"1.2.3"),
        _element(0x0020000E, b"UI", b"1.2.3.%d" % series),
        _element(0x00209311, b"CS", b"TILED_FULL"),
        number(0x00280002, 3),
        _element(0x00280004, b"CS", b"YBR_FULL_422" if jpeg else b"RGB"),
        number(0x00280006, 0),
        _element(0x00280008, b"IS", b"%d" % len(frames)),
        number(0x00280010, _TILE),
        number(0x00280011, _TILE),
        number(0x00280100, 8),
        number(0x00280101, 8),
        number(0x00280102, 7),
        number(0x00280103, 0),
        _element(0x00480006, b"UL", struct.pack("<I", width)),
        _element(0x00480007, b"UL", struct.pack("<I", height)),
    ]
    if mpp is not None:
        spacing = "\\".join(f"{side * (1 << level) / 1000:.8f}" for side in reversed(mpp)).encode()
        measures = _element(0x00289110, b"SQ", _item(_element(0x00280030, b"DS", spacing)))
        elements.append(_element(0x52009229, b"SQ", _item(measures)))
    if jpeg:
        items = [_item(encoded(frame, "JPEG", subsampling="4:2:2")) for frame in frames]
        offsets = np.cumsum([0, *map(len, items[:-1])], dtype="<u4").tobytes()
        pixels = _item(offsets) + b"".join(items) + _item(b"", 0xE0DD)
        elements.append(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + pixels)
    else:
        elements.append(_element(0x7FE00010, b"OB", b"".join(frame.tobytes() for frame in frames)))
    head = _element(0x00020000, b"UL", struct.pack("<I", len(meta)))
    return bytes(128) + b"DICM" + head + meta + b"".join(elements)


def write_mirax(path: Path, rgb: Rgb, mpp: Mpp = (0.5, 0.5), levels: int = 3) -> Path:
    """``<path>`` and its folder: one camera image for each tile of 64 x 64 pixels, PNG, all white ones left out."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    path.write_bytes(encoded(np.zeros((8, 8, 3), np.uint8), "JPEG"))
    rows, columns = (math.ceil(side / _TILE) for side in rgb.shape[:2])
    slide_id = "0" * 32
    pages: list[list[tuple[int, int, int, int]]] = []
    with (folder / "Data0000.dat").open("wb") as base, (folder / "Data0001.dat").open("wb") as smaller:
        for level in range(levels):
            file, step = (smaller, 1 << level) if level else (base, 1)
            pages.append([])
            for column, row, tile in _tiles(rgb[::step, ::step]):
                if tile.min() < 255:
                    data = encoded(tile, "PNG")
                    pages[-1].append(
                        ((row * columns + column) * step, file.tell(), len(data), int(level > 0))
                    )
                    file.write(data)
    start = 5 + len(slide_id)
    at = start + 8 + 4 * levels
    tables, bodies = b"", b""
    for page in pages:
        tables += struct.pack("<i", at + len(bodies))
        bodies += struct.pack("<4i", 0, at + len(bodies) + 8, len(page), 0)
        bodies += b"".join(struct.pack("<4i", *entry) for entry in page)
    (folder / "Index.dat").write_bytes(
        f"01.02{slide_id}".encode() + struct.pack("<ii", start + 8, 0) + tables + bodies
    )
    sections = {
        "GENERAL": {"SLIDE_ID": slide_id, "IMAGENUMBER_X": columns, "IMAGENUMBER_Y": rows},
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 0,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": levels,
            **{f"HIER_0_VAL_{level}_SECTION": f"LEVEL_{level}" for level in range(levels)},
        },
        "DATAFILE": {"FILE_COUNT": 2, "FILE_0": "Data0000.dat", "FILE_1": "Data0001.dat"},
    }
    for level in range(levels):
        size = [side * (1 << level) for side in mpp or (0.0, 0.0)]
        sections[f"LEVEL_{level}"] = {
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": size[0],
            "MICROMETER_PER_PIXEL_Y": size[1],
            "IMAGE_FORMAT": "PNG",
            "IMAGE_FILL_COLOR_BGR": 0xFFFFFF,
            "DIGITIZER_WIDTH": _TILE,
            "DIGITIZER_HEIGHT": _TILE,
            "IMAGE_CONCAT_FACTOR": int(level > 0),
        }
    lines = [
        line
        for name, keys in sections.items()
        for line in (f"[{name}]", *(f"{k}={v}" for k, v in keys.items()))
    ]
    (folder / "Slidedat.ini").write_text("\r\n".join(lines) + "\r\n", "utf-8-sig", newline="")
    return path
