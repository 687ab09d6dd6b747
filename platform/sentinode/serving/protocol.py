"""The language of the endpoint: a request body to pixels, a score to a reply, an error to JSON."""

from __future__ import annotations

import io
import warnings
from typing import Final

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

ABSTAINED: Final = "abstained"
"""The verdict on a patch that was not judged."""

_TIFF_COMPRESSIONS: Final = frozenset({"raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"})
_TIFF_TILE_WIDTH, _TIFF_TILE_LENGTH, _TIFF_BITS, _TIFF_PHOTOMETRIC = 322, 323, 258, 262
_TIFF_RGB: Final = 2
_TIFF_LARGEST_TILE_PX: Final = 512


class Timing(Frozen):
    """Where the time of one request went, in milliseconds."""

    wait: float
    """Until its batch was formed and a thread was free."""
    decode: float
    """Decoding this request's images."""
    gate: float
    """Looking for patches that must not be judged, in the whole batch that it was part of."""
    inference: float
    """Scoring that batch."""


class PatchPrediction(Frozen):
    """What is said of one patch."""

    probability: float | None
    """Of tumour in the central 32x32 pixels, calibrated as the card says: what the threshold is compared with. None
    where the patch was not judged, as the two that follow.
    """
    raw_probability: float | None
    """Before calibration."""
    prevalence_adjusted_probability: float | None
    """At the prevalence that the endpoint was told; None where it was told none."""
    verdict: str
    """``tumour`` or ``negative``: probability at or above the threshold, or below it; ``abstained``."""
    abstained: bool
    flags: tuple[Flag, ...] = ()
    """Why the patch was not judged; empty where it was."""


class Answered(Frozen):
    """Who answered, and how."""

    model: str
    """The name under which it was asked."""
    bundle: str
    """Digest of the bundle that answered."""
    operating_point: str
    threshold: float
    timing_ms: Timing
    notice: str = RESEARCH_USE_ONLY


class Prediction(PatchPrediction, Answered):
    """The reply to ``POST /v1/predict`` with one image."""


class Predictions(Answered):
    """The reply to ``POST /v1/predict`` with several images, or a batch of pixels."""

    predictions: tuple[PatchPrediction, ...]
    """In the order of the images."""


class Refusal(Frozen):
    """The reply to any request that is not answered."""

    status: int
    """The HTTP status, again."""
    reason: str
    """What was found, in words."""
    expected: str = ""
    remedy: str = ""


def decode_patch(body: bytes) -> NDArray[np.uint8]:
    """Decode one JPEG, PNG or TIFF to uint8 [96, 96, 3], RGB. Raises RequestError as ``decode_into``."""
    pixels_HWC = np.empty((PATCH_PX, PATCH_PX, 3), np.uint8)
    decode_into(body, pixels_HWC)
    return pixels_HWC


def decode_into(body: bytes, out_HWC: NDArray[np.uint8]) -> None:
    """Decode one JPEG, PNG or TIFF into uint8 [96, 96, 3], RGB; format and size are checked before decoding.

    Raises RequestError: 400 empty or corrupt, 415 unsupported format or codec, 422 wrong size or colours.
    """
    kind = limits.sniff(body)
    if kind is ImageFormat.JPEG:
        limits.check_scans(body)
        decode_jpeg_into(body, out_HWC)
        return
    try:
        pixels = _decode_png(body) if kind is ImageFormat.PNG else _decode_tiff(body)
    except RequestError:
        raise
    except Exception as error:
        # On hostile bytes decoders raise anything (struct.error, KeyError, MemoryError, ...): all of it is a
        # bad image.
        raise limits.corrupt(kind, error) from error
    if pixels.shape != (PATCH_PX, PATCH_PX, 3):
        raise limits.wrong_colours(f"{kind} pixels of shape {list(pixels.shape)}")
    out_HWC[:] = pixels


def decode_jpeg_into(body: bytes, out_HWC: NDArray[np.uint8]) -> None:
    """As ``decode_into``, of a JPEG whose scans somebody has counted: the time that it takes is theirs."""
    try:
        limits.check_jpeg_header(body)
        pixels = simplejpeg.decode_jpeg(body, colorspace="RGB", buffer=out_HWC)
        limits.check_size(pixels.shape[1], pixels.shape[0])
    except RequestError:
        raise
    except Exception as error:
        raise limits.corrupt(ImageFormat.JPEG, error) from error


def _decode_png(body: bytes) -> NDArray[np.uint8]:
    limits.check_png_header(body)
    essential = limits.essential_png(body)
    # Pillow skips the checksums of pixel data when it decodes; verify() compares them, but spends the file
    # object.
    with Image.open(io.BytesIO(essential), formats=("PNG",)) as image:
        image.verify()
    with Image.open(io.BytesIO(essential), formats=("PNG",)) as image:
        return np.asarray(image)


def _decode_tiff(body: bytes) -> NDArray[np.uint8]:
    limits.check_tiff_header(body)
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
