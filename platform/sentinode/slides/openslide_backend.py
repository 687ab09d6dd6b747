"""Slides by OpenSlide (libopenslide, LGPL-2.1, linked dynamically): local files of every scanner it knows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sentinode.errors import MissingDependencyError, SentinodeError, SourceError
from sentinode.slides import mirax_files
from sentinode.slides.slide import CONVERSION, level_pixel
from sentinode.storage.files import typed_os_errors

_LOG = logging.getLogger(__name__)

CACHE_BYTES: Final = 64 << 20
"""Decoded tiles that OpenSlide keeps for each slide."""

_REMEDY: Final = f"copy the slide again, or convert it: {CONVERSION}"


class OpenSlidePixels:
    """The pixels of one local slide. Thread-safe, as OpenSlide is."""

    name = "openslide"

    def __init__(self, path: Path) -> None:
        """Raises SourceError where OpenSlide cannot open ``path``."""
        openslide = _library()
        try:
            self._slide = openslide.OpenSlide(str(path))
            self._slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
            self.level_dimensions: tuple[tuple[int, int], ...] = self._slide.level_dimensions
            self.downsamples: tuple[float, ...] = self._slide.level_downsamples
            self.properties: Mapping[str, str] = dict(self._slide.properties)
        except openslide.OpenSlideError as error:
            raise SourceError(
                f"{path} cannot be opened by OpenSlide ({error})", "a whole slide", _REMEDY
            ) from error
        self._error = openslide.OpenSlideError
        self._path = path
        try:
            with typed_os_errors(str(path)):
                mirax_files.check_files(path, self.properties)
        except SentinodeError:
            self.close()
            raise
        if self.properties.get("dicom.ImageType[3]") == "RESAMPLED":
            _LOG.warning("%s: the largest level there is was made of a larger one, which is missing", path)

    @property
    def mpp_um_px(self) -> tuple[str | None, str | None]:
        """As the slide's metadata have it, x and y."""
        return self.properties.get("openslide.mpp-x"), self.properties.get("openslide.mpp-y")

    def read(self, x0: int, y0: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]; x0 and y0 at level 0; white where nothing was scanned.

        Between two pixels of a level OpenSlide interpolates: what it gives is blurred by up to half a pixel, and tissue
        seems out of focus. So whole pixels are asked for, which it finds as far as its downsample is a whole number.
        """
        downsample = self.downsamples[level]
        left, top = (level_pixel(at, downsample) for at in (x0, y0))
        # Of places before the corner it also takes the next pixel.
        x1, y1 = max(left, 0), max(top, 0)
        wide, high = left + width - x1, top + height - y1
        if wide <= 0 or high <= 0:
            return np.full((height, width, 3), 255, np.uint8)
        found = self._read((round(x1 * downsample), round(y1 * downsample)), level, (wide, high))
        if found.shape[:2] == (height, width):
            return found
        return np.pad(found, [(height - high, 0), (width - wide, 0), (0, 0)], constant_values=255)

    def _read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        try:
            image = self._slide.read_region(corner, level, size)
        except self._error as error:
            raise SourceError(
                f"{self._path} cannot be read at {corner}, level {level} ({error})",
                "a whole slide",
                "copy the slide again: it may be truncated or damaged",
            ) from error
        if image.getextrema()[3] != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.ascontiguousarray(np.asarray(image)[:, :, :3])

    def close(self) -> None:
        """Give the file back."""
        self._slide.close()


def knows(path: Path) -> bool:
    """Whether OpenSlide is installed and recognises the format of ``path``."""
    try:
        return _library().OpenSlide.detect_format(str(path)) is not None
    except MissingDependencyError:
        return False


def _library() -> Any:
    try:
        import openslide
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"OpenSlide cannot be loaded ({error})",
            "openslide-python with openslide-bin",
            "pip install 'sentinode[slides]', or read the slide by tiffslide",
        ) from error
    return openslide
