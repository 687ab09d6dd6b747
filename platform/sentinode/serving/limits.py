"""What a request body must be before any decoder sees it: format by content, then size from the header.

Decoders are the largest attack surface of an image endpoint. So only three formats pass, and nothing is
decoded whose header promises other than 96x96 RGB pixels of 8 bits: a decompression bomb ends here. What the header
does not bound is counted: scans, chunks, frames and tags of a small file can keep a decoder busy for seconds.
"""

from __future__ import annotations

import struct
from enum import StrEnum
from typing import Final

import simplejpeg

from sentinode.errors import RequestError
from sentinode.schema import PATCH_PX

_FORMATS: Final = "one JPEG, PNG or TIFF image as the request body"
_RGB: Final = f"{PATCH_PX}x{PATCH_PX} RGB pixels of 8 bits"

_JPEG_MAGIC: Final = b"\xff\xd8\xff"
_START_OF_SCAN: Final = b"\xff\xda"
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
_FRAME: Final = struct.Struct(">BHHB")
_PATCH_FRAME: Final = (8, PATCH_PX, PATCH_PX, 3)
_SMALL_JPEG_BYTES: Final = 1 << 16
_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PNG_RGB: Final = 2
_CHUNK: Final = struct.Struct(">I4s")
_ANCILLARY: Final = 0x20
"""The bit of a chunk's name that says: pixels can be read without it."""
_TIFF_BYTES: Final = frozenset({1, 2, 7})
"""Types of TIFF tags that need not be unpacked: BYTE, ASCII, UNDEFINED."""
_TIFF_OFFSETS: Final = frozenset({4, 13})
_TIFF_DIRECTORIES: Final = frozenset({34665, 34853, 40965})
"""Tags that lead to a directory of their own, which Pillow reads: Exif, GPS, interoperability."""
_MOST_SCANS: Final = 64
"""Encoders write up to ten or so; each costs a decoder over ten microseconds, and a megabyte holds 95,000."""
_MOST_CHUNKS: Final = 256
_MOST_TAGS: Final = 128
_MOST_VALUES: Final = 2048
"""Of all tags together: strips of a row for each colour are 288, and their lengths are as many."""


class ImageFormat(StrEnum):
    """The formats that the endpoint reads."""

    JPEG = "JPEG"
    PNG = "PNG"
    TIFF = "TIFF"


def sniff(body: bytes) -> ImageFormat:
    """The format of ``body`` by its first bytes; what the client calls it does not count.

    Raises RequestError 400 for an empty body and 415 for anything but JPEG, PNG and (classic) TIFF.
    """
    if not body:
        raise RequestError("the request body is empty", _FORMATS, status=400)
    if body.startswith(_JPEG_MAGIC):
        return ImageFormat.JPEG
    if body.startswith(_PNG_MAGIC):
        return ImageFormat.PNG
    if body.startswith((b"II*\x00", b"MM\x00*")):
        return ImageFormat.TIFF
    raise RequestError(
        f"the request body is in no supported format: it begins with {body[:8]!a}",
        _FORMATS,
        "send the file as it is, e.g. curl --data-binary @patch.png",
        status=415,
    )


def check_jpeg_header(body: bytes) -> None:
    """Refuse a JPEG that is not 96x96 in colour (422) or has no readable header (400)."""
    if _frame_of(body) == _PATCH_FRAME:
        return
    try:
        height_px, width_px, colours, _ = simplejpeg.decode_jpeg_header(body)
    except ValueError as error:
        raise corrupt(ImageFormat.JPEG, error) from error
    check_size(width_px, height_px)
    if colours not in ("YCbCr", "RGB"):
        raise wrong_colours(f"a JPEG in {colours}")


def _frame_of(body: bytes) -> tuple[int, int, int, int] | None:
    """Bits, height, width and number of colours that a JPEG's frame header states; None where it is not found at once.

    The decoder's own look at the header gives up the interpreter lock, for which the event loop then waits.
    """
    at = 2
    while at + 10 <= len(body) and body[at] == 0xFF:
        if body[at + 1] in _FRAMES:
            return _FRAME.unpack_from(body, at + 4)
        at += 2 + int.from_bytes(body[at + 2 : at + 4])
    return None


def is_bounded_jpeg(body: bytes) -> bool:
    """Whether decoding takes a time that the number of pixels bounds: a JPEG of one scan, and not a large one.

    A hostile file repeats the scans of a progressive or sequential image thousands of times; 96x96 pixels with one
    scan, as encoders write them unless told otherwise, take a twentieth of a millisecond.
    """
    if len(body) > _SMALL_JPEG_BYTES or not body.startswith(_JPEG_MAGIC):
        return False
    # The first stands near the start, and the search from the end is quick: half the time of counting.
    first = body.find(_START_OF_SCAN)
    return first >= 0 and first == body.rfind(_START_OF_SCAN)


def check_scans(body: bytes) -> None:
    """Refuse a JPEG of more scans than any encoder writes (422)."""
    if (scans := body.count(_START_OF_SCAN)) > _MOST_SCANS:
        raise _too_many(f"the JPEG has {scans} scans", _MOST_SCANS)


def check_png_header(body: bytes) -> None:
    """Refuse a PNG that is not 96x96, RGB, 8 bits (422) or has no readable header (400)."""
    if len(body) < 29 or body[8:16] != b"\x00\x00\x00\x0dIHDR":
        raise corrupt(ImageFormat.PNG, ValueError("no IHDR"))
    width_px, height_px, bits, colour_type = struct.unpack(">IIBB", body[16:26])
    check_size(width_px, height_px)
    if (bits, colour_type) != (8, _PNG_RGB):
        raise wrong_colours(f"a PNG of colour type {colour_type} with {bits} bits")


def essential_png(body: bytes) -> bytes:
    """The PNG without the chunks that say nothing of its pixels: texts and profiles unpack to megabytes each.

    Raises RequestError 422 where there are several images, or hundreds of chunks.
    """
    kept, at = [_PNG_MAGIC], len(_PNG_MAGIC)
    for _ in range(_MOST_CHUNKS):
        if at + _CHUNK.size > len(body):
            break
        size, kind = _CHUNK.unpack_from(body, at)
        begin, at = at, at + size + 12
        if kind == b"acTL" and body[begin + 8 : begin + 12] != b"\x00\x00\x00\x01":
            raise several_images()
        if not kind[0] & _ANCILLARY:
            kept.append(body[begin:at])
        if kind == b"IEND":
            break
    else:
        raise _too_many("the PNG has too many chunks", _MOST_CHUNKS)
    return b"".join(kept)


def check_tiff_header(body: bytes) -> None:
    """Refuse a TIFF of several images, of too many tags or of too many values (422).

    Raises struct.error where a directory lies beyond the end.
    """
    order = "<" if body.startswith(b"II") else ">"
    (first,) = struct.unpack_from(f"{order}I", body, 4)
    waiting, tags, values = [first], 0, 0
    while waiting:
        at = waiting.pop()
        (count,) = struct.unpack_from(f"{order}H", body, at)
        # Directories that lead to each other end here as well.
        tags += count
        if tags > _MOST_TAGS:
            raise _too_many("the TIFF has too many tags", _MOST_TAGS)
        for number in range(count):
            tag, kind, size, place = struct.unpack_from(f"{order}HHII", body, at + 2 + 12 * number)
            values += 0 if kind in _TIFF_BYTES else size
            if tag in _TIFF_DIRECTORIES:
                if kind not in _TIFF_OFFSETS or size != 1:
                    raise corrupt(ImageFormat.TIFF, ValueError(f"tag {tag} is no offset"))
                waiting.append(place)
        if values > _MOST_VALUES:
            raise _too_many("the TIFF has too many values in its tags", _MOST_VALUES)
        if at == first and struct.unpack_from(f"{order}I", body, at + 2 + 12 * count) != (0,):
            raise several_images()


def check_size(width_px: int, height_px: int) -> None:
    """Raise RequestError 422 where the image is not 96x96."""
    if (width_px, height_px) != (PATCH_PX, PATCH_PX):
        raise RequestError(
            f"the image is {width_px}x{height_px} pixels",
            _RGB,
            "cut patches at the card's microns per pixel; the endpoint does not resize",
            status=422,
        )


def several_images() -> RequestError:
    """The error for a file of more than one image."""
    return RequestError("the file holds several images", "one image a request", status=422)


def _too_many(found: str, most: int) -> RequestError:
    return RequestError(found, f"at most {most}", "save the patch anew, as a plain PNG", status=422)


def wrong_colours(found: str) -> RequestError:
    """The error for an image of another colour model or depth."""
    return RequestError(f"the image is {found}", _RGB, "convert it to 8-bit RGB without alpha", status=422)


def corrupt(kind: ImageFormat, error: Exception) -> RequestError:
    """The error for a body that starts like ``kind`` and cannot be read."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
    return RequestError(f"the {kind} cannot be decoded ({reason})", "an intact image", status=400)
