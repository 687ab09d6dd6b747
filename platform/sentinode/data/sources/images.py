"""Decode one image file to a patch, or say why it is none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, TiffImageFile

from sentinode.data.sources.base import BadImage, Pixels
from sentinode.schema import PATCH_PX

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"})
_FORMATS: Final = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")


def decode_image(path: Path) -> Pixels | BadImage:
    """Pixels of an 8-bit RGB image of 96x96; everything else is a BadImage with the reason.

    Size, mode and depth are checked from the header, before any pixel is decoded, so that a decompression
    bomb costs nothing. Grey, palette, transparent and 16-bit images are refused: turning them into RGB would be
    a guess. An alpha channel that is opaque everywhere (as WILDS has) tells nothing and is left away.
    """
    try:
        if path.stat().st_size == 0:
            return BadImage("the file is empty")
        with Image.open(path, formats=_FORMATS) as image:
            fault = _header_fault(image)
            return BadImage(fault) if fault else _opaque(np.array(image))
    except FileNotFoundError:
        return BadImage("no such file")
    except Exception as error:  # noqa: BLE001 - a damaged file makes decoders raise nearly anything; all of it is listed
        return BadImage(_reason(error))


def _header_fault(image: Image.Image) -> str | None:
    if image.size != (PATCH_PX, PATCH_PX):
        return f"{image.size[0]}x{image.size[1]} pixels, expected {PATCH_PX}x{PATCH_PX}"
    if _bits(image) != 8:
        return f"{_bits(image)} bits a channel, expected 8"
    if image.mode not in ("RGB", "RGBA"):
        return f"colour mode {image.mode}, expected RGB"
    frames = getattr(image, "n_frames", 1)
    return f"{frames} images in one file, expected 1" if frames != 1 else None


def _opaque(pixels: Pixels) -> Pixels | BadImage:
    """uint8 RGB [96, 96, 3] of RGB or RGBA [96, 96, 3 or 4]."""
    transparent = int((pixels[..., 3:] != 255).sum())
    if transparent:
        return BadImage(f"{transparent} pixels are transparent, expected RGB or an opaque alpha channel")
    return np.ascontiguousarray(pixels[..., :3])


def _bits(image: Image.Image) -> int:
    """Bits of a channel as stored: Pillow reads 16-bit RGB files as if they were 8-bit."""
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(BITSPERSAMPLE, (1,))))
    arguments = str(image.tile[0].args) if isinstance(image, ImageFile) and image.tile else ""
    return 16 if ";16" in arguments or image.mode.startswith("I") else 8


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not one of {', '.join(_FORMATS)}"
    # Pillow's texts name the machine's path; a reason must not.
    text = str(error).split("'")[0].strip(" :") or "cannot be decoded"
    return f"{type(error).__name__}: {text}"
