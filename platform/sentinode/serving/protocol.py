"""The language of the endpoint: a request body to pixels, a score to a reply, an error to JSON."""

from __future__ import annotations

import io
import warnings
from typing import Final, cast

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from sentinode.config import Frozen
from sentinode.errors import RequestError
from sentinode.schema import PATCH_PX, RESEARCH_USE_ONLY
from sentinode.serving import limits
from sentinode.serving.limits import ImageFormat
from sentinode.serving.quality import Flag

_TIFF_COMPRESSIONS: Final = frozenset({"raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"})
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH, _TIFF_BITS, _TIFF_PHOTOMETRIC = 322, 323, 258, 262
_TIFF_RGB: Final = 2
_TIFF_LARGEST_TILE_PX: Final = 512


class Timing(Frozen):
    """Where the time of one request went, in milliseconds."""

    wait: float
    """Until its batch was formed and a thread was free."""
    decode: float
    """Decoding this image."""
    inference: float
    """Scoring the whole batch that it was part of."""


class Prediction(Frozen):
    """The reply to ``POST /v1/predict``."""

    probability: float | None
    """Of tumour in the central 32x32 pixels, calibrated as the card says; None where the patch was not judged."""
    verdict: str
    """``tumour`` or ``negative``: probability at or above the threshold, or below it; ``abstained``."""
    flags: tuple[Flag, ...] = ()
    """Why the patch was not judged; empty where it was."""
    operating_point: str
    threshold: float
    bundle: str
    """Digest of the bundle that answered."""
    timing_ms: Timing
    notice: str = RESEARCH_USE_ONLY


class Refusal(Frozen):
    """The reply to any request that is not answered."""

    status: int
    """The HTTP status, again."""
    reason: str
    """What was found, in words."""
    expected: str = ""
    remedy: str = ""


def decode_patch(body: bytes) -> NDArray[np.uint8]:
    """Decode one JPEG, PNG or TIFF to uint8 [96, 96, 3], RGB; format and size are checked before decoding.

    Raises RequestError: 400 empty or corrupt, 415 unsupported format or codec, 422 wrong size or colours.
    """
    kind = limits.sniff(body)
    try:
        match kind:
            case ImageFormat.JPEG:
                limits.check_jpeg_header(body)
                pixels = simplejpeg.decode_jpeg(body, colorspace="RGB")
            case ImageFormat.PNG:
                limits.check_png_header(body)
                pixels = _decode_png(body)
            case ImageFormat.TIFF:
                pixels = _decode_tiff(body)
    except RequestError:
        raise
    except Exception as error:
        # On hostile bytes decoders raise anything (struct.error, KeyError, MemoryError, ...): all of it is a
        # bad image.
        raise limits.corrupt(kind, error) from error
    if pixels.shape != (PATCH_PX, PATCH_PX, 3):
        raise limits.wrong_colours(f"{kind} pixels of shape {list(pixels.shape)}")
    return cast("NDArray[np.uint8]", pixels)


def _decode_png(body: bytes) -> NDArray[np.uint8]:
    # Pillow skips the checksums of pixel data when it decodes; verify() compares them, but spends the file
    # object.
    with Image.open(io.BytesIO(body), formats=("PNG",)) as image:
        image.verify()
    with Image.open(io.BytesIO(body), formats=("PNG",)) as image:
        _check_single(image)
        return np.asarray(image)


def _decode_tiff(body: bytes) -> NDArray[np.uint8]:
    # Pillow warns about odd tags with their text in the message: at a client's will, in the server's log.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(body), formats=("TIFF",)) as image:
            limits.check_size(*image.size)
            _check_tiff(image)
            return np.asarray(image)


def _check_tiff(image: Image.Image) -> None:
    compression = image.info.get("compression", "unknown")
    if compression not in _TIFF_COMPRESSIONS:
        raise RequestError(
            f"the TIFF is compressed by {compression}",
            "no compression, LZW, Deflate or PackBits",
            "save it as PNG or as uncompressed TIFF",
            status=415,
        )
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tags.get(_TIFF_BITS) != (8, 8, 8) or tags.get(_TIFF_PHOTOMETRIC) != _TIFF_RGB or image.mode != "RGB":
        raise limits.wrong_colours(f"a TIFF in {image.mode} with {tags.get(_TIFF_BITS)} bits")
    tile_px = max(tags.get(_TIFF_TILE_WIDTH, 0), tags.get(_TIFF_TILE_LENGTH, 0))
    if tile_px > _TIFF_LARGEST_TILE_PX:
        raise RequestError(f"the TIFF has tiles of {tile_px} pixels", "strips, or small tiles", status=415)
    _check_single(image)


def _check_single(image: Image.Image) -> None:
    if getattr(image, "n_frames", 1) != 1:
        raise RequestError("the file holds several images", "one image a request", status=422)
