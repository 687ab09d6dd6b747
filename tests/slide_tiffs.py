"""Small slides of scanners that write TIFF: NDPI, SCN, Philips, BIF, from their descriptions (openslide.org/formats).

They hold what readers need, and no label or macro image but where the format cannot be without.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile
from slide_files import Rgb
from slide_folders import Mpp, encoded

_TILE = 64


def write_ndpi(path: Path, rgb: Rgb, mpp: Mpp = (0.5, 0.5), levels: int = 3, start: int = 12) -> Path:
    """One JPEG for each level, with a restart marker every 64 pixels and a table of where they stand.

    A classic TIFF whose directories end with the upper halves of their offsets; all but its header lies from ``start``
    on, perhaps beyond 4 GiB. Widths are multiples of 64 x 2^level.
    """
    body = bytearray()
    links = []
    for level in range(levels):
        pixels = np.ascontiguousarray(rgb[:: 1 << level, :: 1 << level])
        jpeg = encoded(pixels, "JPEG", subsampling="4:4:4", restart_marker_blocks=_TILE // 8)
        strip = start + len(body)
        body += jpeg + bytes(len(jpeg) % 2)
        scan = jpeg.index(b"\xff\xda")
        first = scan + 2 + struct.unpack(">H", jpeg[scan + 2 : scan + 4])[0]
        marks = [
            i + 2 for i in range(first, len(jpeg) - 1) if jpeg[i] == 0xFF and 0xD0 <= jpeg[i + 1] <= 0xD7
        ]
        starts = np.array([first, *marks], "<u4").tobytes()
        tags: list[tuple[int, int, int, bytes]] = [
            (256, 4, 1, struct.pack("<I", pixels.shape[1])),
            (257, 4, 1, struct.pack("<I", pixels.shape[0])),
            (258, 3, 3, struct.pack("<3H", 8, 8, 8)),
            (259, 3, 1, struct.pack("<H", 7)),
            (262, 3, 1, struct.pack("<H", 6)),
            (271, 2, 10, b"Hamamatsu\0"),
            (273, 4, 1, struct.pack("<Q", strip)),
            (277, 3, 1, struct.pack("<H", 3)),
            (278, 4, 1, struct.pack("<I", pixels.shape[0])),
            (279, 4, 1, struct.pack("<I", len(jpeg))),
            *(
                (tag, 5, 1, struct.pack("<II", round(1e6 / side / (1 << level)), 100))
                for tag, side in zip((282, 283), mpp or (), strict=False)
            ),
            (296, 3, 1, struct.pack("<H", 3)),
            (65420, 4, 1, struct.pack("<I", 1)),
            (65421, 11, 1, struct.pack("<f", 20 / (1 << level))),
            (65424, 9, 1, struct.pack("<i", 0)),
            (65426, 4, len(starts) // 4, starts),
        ]
        entries, upper = b"", b""
        for tag, kind, count, value in tags:
            is_inline = tag == 273 or (len(value) <= 4 and kind != 2)
            slot = value.ljust(8, b"\0") if is_inline else struct.pack("<Q", start + len(body))
            entries += struct.pack("<HHI", tag, kind, count) + slot[:4]
            upper += slot[4:]
            body += b"" if is_inline else value + bytes(len(value) % 2)
        links.append((len(body), len(body) + 2 + len(entries)))
        body += struct.pack("<H", len(tags)) + entries + bytes(8) + upper
    for (_, link), (directory, _) in pairwise(links):
        struct.pack_into("<Q", body, link, start + directory)
    with path.open("wb") as file:
        file.write(b"II*\0" + struct.pack("<Q", start + links[0][0]))
        file.seek(start)
        file.write(body)
    return path


def write_scn(path: Path, rgb: Rgb, mpp: Mpp = (0.5, 0.5), levels: int = 3) -> Path:
    """Leica: a macro image, and one scanned area in the middle of a slide of four times its size."""
    assert mpp is not None
    nm = round(mpp[0] * 1000)
    height, width = rgb.shape[0] * nm, rgb.shape[1] * nm

    def image(view: str, dimensions: list[tuple[int, Rgb]]) -> str:
        listed = "".join(
            f'<dimension sizeX="{d.shape[1]}" sizeY="{d.shape[0]}" r="{r}" ifd="{ifd}"/>'
            for r, (ifd, d) in enumerate(dimensions)
        )
        return (
            f"<image><creationDate>2020</creationDate><device model='a' version='1'/><pixels>{listed}</pixels>"
            f"<view {view}/><scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>"
            "<illuminationSettings><numericalAperture>0.4</numericalAperture><illuminationSource>brightfield"
            "</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    pages = [np.full((256, 256, 3), 255, np.uint8)]
    pages += [np.ascontiguousarray(rgb[:: 1 << level, :: 1 << level]) for level in range(levels)]
    size = f'sizeX="{2 * width}" sizeY="{2 * height}"'
    macro = image(f'{size} offsetX="0" offsetY="0"', [(0, pages[0])])
    area = f'sizeX="{width}" sizeY="{height}" offsetX="{width // 2}" offsetY="{height // 2}"'
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f"<collection {size}>{macro}{image(area, list(enumerate(pages))[1:])}</collection></scn>"
    )
    _write_pages(path, pages, [xml], bigtiff=True, um_px=mpp[0])
    return path


def write_philips(path: Path, rgb: Rgb, mpp: Mpp = (0.5, 0.5), levels: int = 3) -> Path:
    """Philips TIFF: the sides of levels are padded to whole tiles."""
    pages = []
    for level in range(levels):
        small = rgb[:: 1 << level, :: 1 << level]
        pad = [(0, -side % _TILE) for side in small.shape[:2]]
        pages.append(np.pad(small, (*pad, (0, 0)), constant_values=255))
    x, y = mpp or (0.0, 0.0)
    spacings = [f'"{y * (1 << i) / 1000:.8f}" "{x * (1 << i) / 1000:.8f}"' for i in range(levels)]
    listed = "".join(
        '<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING">'
        f"{spacing}</Attribute></DataObject>"
        for spacing in spacings
    )
    xml = (
        '<?xml version="1.0"?><DataObject ObjectType="DPUfsImport"><Attribute Name="DICOM_MANUFACTURER">PHILIPS'
        '</Attribute><Attribute Name="PIM_DP_SCANNED_IMAGES"><Array><DataObject ObjectType="DPScannedImage">'
        '<Attribute Name="PIM_DP_IMAGE_TYPE">WSI</Attribute>'
        f'<Attribute Name="DICOM_PIXEL_SPACING">{spacings[0]}</Attribute>'
        f'<Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE"><Array>{listed}</Array></Attribute>'
        "</DataObject></Array></Attribute></DataObject>"
    )
    _write_pages(path, pages, [xml], software="Philips DP v1.0")
    return path


def write_bif(path: Path, rgb: Rgb, mpp: Mpp = (0.5, 0.5), overlap: int = 8) -> Path:
    """Ventana: one level, whose tiles of 64 pixels overlap to the right, so that they want to be stitched."""
    step = _TILE - overlap
    columns, rows = (rgb.shape[1] - overlap) // step, rgb.shape[0] // _TILE
    stored = np.hstack([rgb[: rows * _TILE, c * step : c * step + _TILE] for c in range(columns)])
    # Rows are numbered from below, every other one from right to left.
    number = {
        (c, r): (rows - 1 - r) * columns + (columns - c if (rows - 1 - r) % 2 else c + 1)
        for c in range(columns)
        for r in range(rows)
    }
    joints = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="{direction}" Tile1="{number[at]}" '
        f'Tile2="{number[to]}" OverlapX="{overlap if direction == "RIGHT" else 0}" OverlapY="0"/>'
        for at in number
        for direction, to in (("RIGHT", (at[0] + 1, at[1])), ("UP", (at[0], at[1] - 1)))
        if to in number
    )
    info = (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" Width="{_TILE}" Height="{_TILE}" '
        f'NumRows="{rows}" NumCols="{columns}" Pos-X="0" Pos-Y="0">{joints}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    scan = f'<iScan Magnification="20" ScanRes="{mpp[0] if mpp else ""}"/>'
    xmp = [(700, 1, len(text), text.encode(), True) for text in (scan, info)]
    label = np.full((_TILE, _TILE, 3), 255, np.uint8)
    texts = ["Label Image", "level=0 mag=20 quality=95"]
    _write_pages(path, [label, stored], texts, "ScanOutputManager 1.1", [[tag] for tag in xmp])
    return path


def _write_pages(
    path: Path,
    pages: list[Rgb],
    descriptions: list[str],
    software: str = "",
    extra: list[list[tuple[int, int, int, bytes, bool]]] | None = None,
    bigtiff: bool = False,
    um_px: float | None = None,
) -> None:
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tiff:
        for i, page in enumerate(pages):
            tiff.write(
                page,
                tile=(_TILE, _TILE),
                photometric="rgb",
                compression="deflate",
                metadata=None,
                subfiletype=int(i > 0),
                resolution=(1e4 / um_px, 1e4 / um_px) if um_px else None,
                resolutionunit="CENTIMETER" if um_px else None,
                software=software or None,
                description=descriptions[i] if i < len(descriptions) else None,
                extratags=extra[i] if extra else (),
            )
