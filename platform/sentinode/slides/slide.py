"""A slide that is open: its levels, the size of its pixels, and regions of it as arrays."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sentinode.config import canonical_json
from sentinode.errors import ConfigError, SourceError

CONVERSION: Final = "vips tiffsave in.x out.tif --tile --pyramid --compression jpeg"
"""A command that makes a pyramidal TIFF of a slide, for people whose format is refused."""

_LOG = logging.getLogger(__name__)

MPP_UM_PX: Final = (0.05, 10.0)
"""Credible sizes of a pixel at level 0. Scanners have 0.1 to 2; a TIFF without any says 72 dots per inch: 353."""
MAX_ANISOTROPY: Final = 0.02
"""Relative difference of the two sides of a pixel; scanners stay below 0.005. Lengths are taken alike in x and y."""
MAX_EXTENT_MM: Final = 260.0
"""Longer than the largest glass for whole-mount slides (203 mm)."""
MAX_REGION_PX: Final = 64 << 20
"""Pixels of one read: 192 MiB."""
MAX_OVERVIEW_PX: Final = 128 << 20
_STEP_PX: Final = 2048
"""Side of the squares in which a level is read to be made smaller."""


def level_pixel(at_px: float, downsample: float) -> int:
    """Of a level, the pixel in which ``at_px`` of level 0 lies."""
    return math.floor(at_px / downsample + 1e-6)


class Pixels(Protocol):
    """What a library that reads slides must do."""

    @property
    def name(self) -> str: ...
    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def downsamples(self) -> tuple[float, ...]: ...
    @property
    def properties(self) -> Mapping[str, str]: ...
    @property
    def mpp_um_px(self) -> tuple[str | None, str | None]: ...
    def read(self, x0: int, y0: int, level: int, width: int, height: int) -> NDArray[np.uint8]: ...
    def close(self) -> None: ...


class Slide:
    """A whole slide. Safe to share between threads; holds an open file, so it is not sent between processes.

    Memory is bounded: some 64 MiB of blocks or decoded tiles for each slide, and what a read returns.
    """

    def __init__(self, url: str, pixels: Pixels, mpp_um_px: float | None = None) -> None:
        """Raises SourceError on a pixel size that is missing, not credible or not square, and on a slide larger
        than any glass; ConfigError where ``mpp_um_px`` is not credible."""
        self.url = url
        self.backend = pixels.name
        self.level_dimensions = pixels.level_dimensions
        """Width and height in pixels, largest first."""
        self.downsamples = pixels.downsamples
        """How many pixels of level 0 one pixel of each level is wide."""
        self.properties = pixels.properties
        """Metadata as the library gives them; may name the patient."""
        self._pixels = pixels
        self.mpp_um_px = _mpp(url, pixels, mpp_um_px)
        """Micrometres per pixel at level 0, x and y."""
        extent = max(n * mpp for n, mpp in zip(self.level_dimensions[0], self.mpp_um_px, strict=True)) / 1000
        if min(min(pair) for pair in self.level_dimensions) < 1 or extent > MAX_EXTENT_MM:
            raise SourceError(
                f"{url} has {self.level_dimensions[0]} pixels of {self.um_px:.4g} um: {extent:.1f} mm",
                f"a slide of at most {MAX_EXTENT_MM:.0f} mm",
                "give the true micrometres per pixel, or copy the slide again: its header may be damaged",
            )

    @property
    def um_px(self) -> float:
        """Micrometres per pixel at level 0, the mean of x and y."""
        return sum(self.mpp_um_px) / 2

    @property
    def scanned_from_px(self) -> tuple[int, int]:
        """Where the scanned part begins (x, y) at level 0, of MRXS, SCN and BIF often far from the corner.

        Places are counted from the corner here and in ASAP, from the scanned part in QuPath, unless that opens the
        slide with ``--no-crop``.
        """
        x, y = (self.properties.get(f"openslide.bounds-{axis}", "") for axis in "xy")
        return (int(x), int(y)) if x.isdecimal() and y.isdecimal() else (0, 0)

    @property
    def digest(self) -> str:
        """SHA-256 of backend, levels, pixel size and properties: another slide or reader gives another one."""
        value = [self.backend, self.level_dimensions, self.mpp_um_px, dict(self.properties)]
        return hashlib.sha256(canonical_json(value)).hexdigest()

    def level_for(self, downsample: float) -> int:
        """The smallest level that is no coarser than ``downsample``."""
        return max(i for i, d in enumerate(self.downsamples) if i == 0 or d <= downsample * 1.01)

    def read_region(self, x0: int, y0: int, level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] RGB; ``x0`` and ``y0`` at level 0, ``size`` = (W, H) in pixels of ``level``.

        The region begins with the pixel of the level in which that place lies, so that no pixel is made of several.
        White beyond the border and where nothing was scanned. Raises ConfigError on a level that is not there and
        on an empty or too large size, SourceError where the slide is damaged, StoreError.
        """
        width, height = size
        if not 0 <= level < len(self.downsamples):
            raise ConfigError(f"level {level} of {self.url}", f"0 to {len(self.downsamples) - 1}")
        if min(size) < 1 or width * height > MAX_REGION_PX:
            raise ConfigError(
                f"a region of {width} x {height} pixels", f"1 to {MAX_REGION_PX:,} pixels", "read it in parts"
            )
        return self._pixels.read(int(x0), int(y0), level, width, height)

    def thumbnail(self, max_side_px: int = 1024) -> NDArray[np.uint8]:
        """The whole slide, uint8 [H, W, 3], its longer side ``max_side_px`` or the slide's own."""
        return self._shrunk(max(1.0, max(self.level_dimensions[0]) / max_side_px))

    def overview(self, um_px: float) -> NDArray[np.uint8]:
        """The whole slide at about ``um_px`` micrometres per pixel, uint8 [H, W, 3]; never enlarged.

        The sides are rounded: the exact scale is the width at level 0 by that of the overview.
        """
        return self._shrunk(max(1.0, um_px / self.um_px))

    def close(self) -> None:
        """Give the file back."""
        self._pixels.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _shrunk(self, downsample: float) -> NDArray[np.uint8]:
        """By averaging over the area of each pixel, square by square."""
        width, height = (max(1, round(n / downsample)) for n in self.level_dimensions[0])
        if width * height > MAX_OVERVIEW_PX:
            raise ConfigError(
                f"an overview of {width} x {height} pixels of {self.url}",
                f"at most {MAX_OVERVIEW_PX:,} pixels",
                "ask for a smaller one",
            )
        level = self.level_for(downsample)
        level_width, level_height = self.level_dimensions[level]
        if level_width * level_height > MAX_OVERVIEW_PX:
            _LOG.warning("%s has no small level: an overview reads all of it", self.url)
        scale_x, scale_y = level_width / width, level_height / height
        step = max(1, int(_STEP_PX / max(scale_x, scale_y)))
        small = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, step):
            for left in range(0, width, step):
                bottom, right = min(top + step, height), min(left + step, width)
                x1, y1 = int(left * scale_x), int(top * scale_y)
                x2, y2 = math.ceil(right * scale_x), math.ceil(bottom * scale_y)
                d = self.downsamples[level]
                part = self.read_region(math.ceil(x1 * d), math.ceil(y1 * d), level, (x2 - x1, y2 - y1))
                box = (left * scale_x - x1, top * scale_y - y1, right * scale_x - x1, bottom * scale_y - y1)
                shrunk = Image.fromarray(part).resize(
                    (right - left, bottom - top), Image.Resampling.BOX, box=box
                )
                small[top:bottom, left:right] = np.asarray(shrunk)
        return small


def _mpp(url: str, pixels: Pixels, given: float | None) -> tuple[float, float]:
    low, high = MPP_UM_PX
    raw = pixels.mpp_um_px
    if given is not None:
        if not low <= given <= high:
            raise ConfigError(f"{given} um/px given for {url}", f"{low} to {high} at level 0, such as 0.243")
        if None not in raw and str(given) not in raw:
            _LOG.warning("%s: %s um/px, as given, in place of %s x %s in its metadata", url, given, *raw)
        return given, given
    remedy = (
        "give the micrometres per pixel at level 0 by hand (score: --mpp-um-px, with --include for this slide alone; "
        "ingest: --slides.um-px; 40x: about 0.25, 20x: about 0.5), never by guess"
    )
    if None in raw:
        raise SourceError(f"{url} does not say how large its pixels are", "micrometres per pixel", remedy)
    try:
        x, y = (float(str(value).replace(",", ".")) for value in raw)
    except ValueError:
        x = y = math.nan
    if not (low <= x <= high and low <= y <= high):
        raise SourceError(f"{url} says {raw[0]} x {raw[1]} um/px", f"{low} to {high} at level 0", remedy)
    if abs(x - y) > MAX_ANISOTROPY * max(x, y):
        raise SourceError(
            f"{url} has pixels of {x:.4g} x {y:.4g} um",
            f"square pixels, to {MAX_ANISOTROPY:.0%}",
            "resample the slide, or give the micrometres per pixel by hand if its metadata are wrong",
        )
    return x, y
