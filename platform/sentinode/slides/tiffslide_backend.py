"""Slides by tiffslide: TIFF-based ones, from any file that can be sought, thus from an object store."""

from __future__ import annotations

import math
import os
import struct
import threading
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from sentinode.errors import MissingDependencyError, SentinodeError, SourceError
from sentinode.slides.ranged_file import Blocks
from sentinode.slides.slide import CONVERSION, level_pixel

if TYPE_CHECKING:
    from tifffile import TiffPage
    from tiffslide import TiffSlide

_NDPI_TAG: Final = 65420
MAX_TILE_PX: Final = 64 << 20
"""Largest piece that is decoded at once: a slide kept in one piece would be decoded whole for each region."""


class TiffSlidePixels:
    """The pixels of one slide in an open file. Thread-safe: bytes come in parallel, decoding is one at a time."""

    name = "tiffslide"

    def __init__(self, file: BinaryIO, where: str, blocks: Blocks | None = None) -> None:
        """``blocks`` are those beneath ``file`` where it lies in a store.

        Raises SourceError where tiffslide cannot open it, its pixels are not 8-bit RGB or grey, or it ends early.
        """
        self._where = where
        self._file = file
        self._blocks = blocks
        self._lock = threading.Lock()
        try:
            self._slide = _open(file)
            if self._slide.ts_tifffile.is_bif:
                raise SourceError(
                    f"{where} is a Ventana BIF, whose tiles overlap: tiffslide does not stitch them",
                    "SVS, NDPI, SCN or pyramidal TIFF",
                    f"copy it to a local disk, where OpenSlide reads it, or convert it: {CONVERSION}",
                )
            properties = self._slide.properties
            self._series = self._slide.ts_tifffile.series[properties["tiffslide.series-index"]]
            self.level_dimensions: tuple[tuple[int, int], ...] = self._slide.level_dimensions
            self.downsamples: tuple[float, ...] = self._slide.level_downsamples
            self._composed = "tiffslide.series-composition" in properties
            self._check(str(properties["tiffslide.series-axes"]))
        except SentinodeError:
            raise
        except Exception as error:
            # A damaged header makes the parser raise nearly anything.
            raise SourceError(
                f"{where} cannot be opened by tiffslide ({type(error).__name__}: {error})",
                "a whole pyramidal TIFF, SVS, NDPI, SCN or Philips TIFF",
                f"copy the slide again, or convert it: {CONVERSION}",
            ) from error
        self.properties: Mapping[str, str] = {k: str(v) for k, v in properties.items() if v is not None}

    @property
    def mpp_um_px(self) -> tuple[str | None, str | None]:
        """As the slide's metadata have it, x and y."""
        found = (self._slide.properties["tiffslide.mpp-x"], self._slide.properties["tiffslide.mpp-y"])
        return cast(
            "tuple[str | None, str | None]", tuple(None if v is None else str(float(v)) for v in found)
        )

    def read(self, x0: int, y0: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]; x0 and y0 at level 0; white where there is nothing."""
        whole = np.full((height, width, 3), 255, np.uint8)
        left, top = (level_pixel(v, self.downsamples[level]) for v in (x0, y0))
        level_width, level_height = self.level_dimensions[level]
        x1, y1 = max(left, 0), max(top, 0)
        x2, y2 = min(left + width, level_width), min(top + height, level_height)
        if x2 <= x1 or y2 <= y1:
            return whole
        try:
            if self._blocks is not None and not self._composed:
                self._blocks.prefetch(self._spans(level, x1, y1, x2, y2))
            with self._lock:
                found = self._slide.read_region((x1, y1), level, (x2 - x1, y2 - y1), as_array=True)
        except SentinodeError:
            raise
        except Exception as error:
            # A damaged tile makes decoders raise nearly anything.
            raise SourceError(
                f"{self._where} cannot be read at ({x0}, {y0}), level {level} ({type(error).__name__}: {error})",
                "a whole slide",
                "copy the slide again: it may be truncated or damaged",
            ) from error
        whole[y1 - top : y2 - top, x1 - left : x2 - left] = found[:, :, :3]
        return whole

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._slide.close()
            self._file.close()

    def _pages(self) -> list[TiffPage]:
        return [cast("TiffPage", level[0]) for level in self._series.levels]

    def _check(self, axes: str) -> None:
        size_bytes = self._slide.ts_tifffile.filehandle.size
        for page in self._pages():
            keyframe = page.keyframe
            if (
                keyframe.dtype != np.uint8
                or axes not in ("YX", "YXS", "CYX")
                or keyframe.samplesperpixel not in (1, 3, 4)
            ):
                raise SourceError(
                    f"{self._where} has {keyframe.samplesperpixel} channels of {keyframe.dtype}",
                    "a bright-field slide: RGB of 8 bits",
                    "convert it to RGB",
                )
            check_tiles(keyframe, self._where)
            check_whole(page, size_bytes, self._where)
            # Tiles left out by the scanner hold background.
            keyframe.nodata = 255

    def _spans(self, level: int, x1: int, y1: int, x2: int, y2: int) -> Iterable[tuple[int, int]]:
        """Offset and length of the tiles (or strips) beneath a region in pixels of ``level``."""
        page = self._pages()[level]
        keyframe = page.keyframe
        wide, high = keyframe.tilewidth or keyframe.imagewidth, keyframe.tilelength or keyframe.rowsperstrip
        across = -(-keyframe.imagewidth // wide)
        for row in range(y1 // high, (y2 - 1) // high + 1):
            for column in range(x1 // wide, (x2 - 1) // wide + 1):
                index = row * across + column
                yield page.dataoffsets[index], page.databytecounts[index]


def check_start(start: bytes, size_bytes: int, where: str) -> None:
    """Raises SourceError where a TIFF that begins with ``start`` ends before its list of images, as one cut in copying
    does: many writers put the list last."""
    order: Literal["little", "big"] = "little" if start.startswith(b"II") else "big"
    at = int.from_bytes(start[8:16] if start[2:4] in (b"+\0", b"\0+") else start[4:8], order)
    if at >= size_bytes:
        raise SourceError(
            f"{where} has {size_bytes:,} bytes, and its list of images begins at {at:,}",
            "a whole slide",
            "copy the slide again: it is truncated",
        )


def check_tiles(page: Any, where: str) -> None:
    """Raises SourceError where ``page`` (of tifffile) has tiles that are too large to be decoded."""
    if math.prod(page.chunks) > MAX_TILE_PX:
        raise SourceError(
            f"{where} keeps {page.imagewidth} x {page.imagelength} pixels in pieces of {page.chunks} (height, width)",
            f"tiles of at most {MAX_TILE_PX:,} pixels",
            f"convert it: {CONVERSION}; or copy it again, if its header is damaged",
        )


def check_whole(page: Any, size_bytes: int, where: str) -> None:
    """Raises SourceError where a tile of ``page`` (of tifffile) lies beyond the end of the file."""
    offsets = np.asarray(page.dataoffsets, np.uint64).astype(np.float64)
    lengths = np.asarray(page.databytecounts, np.uint64).astype(np.float64)
    end = int((offsets + lengths)[lengths > 0].max(initial=0))
    if end > size_bytes:
        raise SourceError(
            f"{where} has {size_bytes:,} bytes, and a tile that ends at {end:,}",
            "a whole slide",
            "copy the slide again: it is truncated",
        )


def is_ndpi(file: BinaryIO) -> bool:
    """Whether ``file`` is a Hamamatsu NDPI: a TIFF of 32 bits whose offsets have 64. ``file`` is left at its start."""
    file.seek(0)
    magic, at = struct.unpack("<4sQ", file.read(12).ljust(12, b"\0"))
    tags: list[int] = []
    if magic == b"II*\0" and at < file.seek(0, os.SEEK_END):
        file.seek(at)
        count = int.from_bytes(file.read(2), "little")
        entries = file.read(12 * count)
        tags = [int.from_bytes(entries[i : i + 2], "little") for i in range(0, len(entries), 12)]
    file.seek(0)
    return _NDPI_TAG in tags


def _open(file: BinaryIO) -> TiffSlide:
    try:
        import tiffslide
    except ImportError as error:
        raise MissingDependencyError(
            f"tiffslide cannot be loaded ({error})",
            "the package tiffslide",
            "pip install 'sentinode[slides]'",
        ) from error

    # It tells users that its work on some formats is not done; what is needed here is tested.
    warnings.filterwarnings("ignore", category=UserWarning, module="tiffslide")

    class LevelPixels(tiffslide.TiffSlide):  # type: ignore[misc]
        """Takes locations in pixels of the level: tiffslide's own way rounds those of level 0 towards zero."""

        def _read_region_loc_transform(self, location: tuple[int, int], level: int) -> tuple[int, int]:
            return location

    # tifffile goes by the name, which a store's object has not, and then takes offsets beyond 4 GiB for small ones.
    return LevelPixels(file, tifffile_options={"is_ndpi": is_ndpi(file)})
