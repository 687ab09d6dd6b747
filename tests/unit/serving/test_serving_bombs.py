"""Small files that would keep a decoder busy for seconds: what they hold is counted before a decoder sees them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from serving_parts import encode, random_patches

from sentinode.errors import RequestError
from sentinode.serving.protocol import decode_patch

PATCH = random_patches(1, seed=3)[0]
EXIF = 34665
Entry = tuple[int, int, int, int]
"""A tag, its type, its number of values, and these or their place."""


def tiff(
    extra: Sequence[Entry] = (), after: bytes = b"", *, leads_on: bool = False, order: str = "<"
) -> bytes:
    """A 96x96 TIFF with more tags; with ``leads_on``, what comes ``after`` its pixels is the next image."""
    pixels = PATCH.tobytes()
    bits_at = 8 + 2 + 12 * (9 + len(extra)) + 4
    longs = {256: 96, 257: 96, 259: 1, 262: 2, 273: bits_at + 6, 277: 3, 278: 96, 279: len(pixels)}
    entries = [*((tag, 4, 1, value) for tag, value in longs.items()), (258, 3, 3, bits_at), *extra]
    body = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(f"{order}IH", 8, len(entries))
    body += b"".join(struct.pack(f"{order}HHII", *entry) for entry in sorted(entries))
    body += struct.pack(f"{order}I", bits_at + 6 + len(pixels) if leads_on else 0)
    return body + struct.pack(f"{order}HHH", 8, 8, 8) + pixels + after


def directory(entries: Sequence[Entry], next_at: int = 0) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", next_at)


def chain(frames: int) -> bytes:
    """A valid image, and that many of one pixel after it."""
    first, size = len(tiff()), len(directory([(256, 3, 1, 1), (257, 3, 1, 1), (273, 4, 1, 0)]))
    small = (
        directory([(256, 3, 1, 1), (257, 3, 1, 1), (273, 4, 1, 0)], first + size * number)
        for number in range(1, frames + 1)
    )
    return tiff(after=b"".join(small), leads_on=True)


def png(kind: bytes, contents: Sequence[bytes]) -> bytes:
    """The patch with these chunks behind its header."""
    whole = encode(PATCH, "PNG")
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for data in contents
    )
    return whole[:33] + b"".join(chunks) + whole[33:]


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG of one colour whose first scan comes again and again."""
    whole = encode(np.full_like(PATCH, 128), "JPEG", progressive=True)
    at = whole.index(b"\xff\xda")
    end = whole.index(b"\xff\xc4", at)
    return whole[:at] + whole[at:end] * count + whole[end:]


END = len(tiff([(EXIF, 4, 1, 0)]))
MANY = [(1000 + number, 3, 1, 0) for number in range(120)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (chain(1), "several images"),
        (chain(24_000), "several images"),
        (tiff(MANY), "too many tags"),
        (tiff([(EXIF, 4, 1, END)], directory(MANY)), "too many tags"),
        (tiff([(EXIF, 4, 1, 8)]), "too many tags"),
        (tiff([(1000, 5, 50_000, 8)]), "too many values"),
        (tiff([(1000 + number, 4, 1000, 8) for number in range(3)]), "too many values"),
        (png(b"teXt", [b""] * 80_000), "too many chunks"),
        (jpeg_of_scans(95_000), "scans"),
    ],
)
def test_too_much_in_a_small_file_is_refused_unseen(
    body: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(Image, "open", lambda *args, **_: seen.append(args))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *args, **_: seen.append(args))
    with pytest.raises(RequestError) as caught:
        decode_patch(body)
    assert (caught.value.status, reason in caught.value.found, seen) == (422, True, []), caught.value


def test_a_pointer_that_is_no_offset_is_refused() -> None:
    with pytest.raises(RequestError, match="is no offset"):
        decode_patch(tiff([(EXIF, 5, 1, END)]))


@pytest.mark.parametrize(
    "body",
    [
        tiff(),
        tiff(order=">"),
        tiff([(EXIF, 4, 1, END)], directory([(33434, 5, 1, 8), (37500, 7, 900, 8)])),
        encode(PATCH, "TIFF", tiffinfo={278: 1}, dpi=(300, 300), icc_profile=bytes(100_000)),
        encode(PATCH, "PNG", icc_profile=bytes(100_000), dpi=(300, 300)),
    ],
)
def test_what_scanners_and_editors_write_passes(body: bytes) -> None:
    np.testing.assert_array_equal(decode_patch(body), PATCH)


def test_progressive_scans_of_encoders_pass() -> None:
    np.testing.assert_array_equal(decode_patch(jpeg_of_scans(1)), np.full_like(PATCH, 128))
    assert decode_patch(encode(PATCH, "JPEG", progressive=True)).shape == (96, 96, 3)


def test_texts_and_profiles_of_a_png_are_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would be a megabyte: 250 of them took more than a second."""
    seen: list[bytes] = []
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda file, **kw: seen.append(file.getvalue()) or opened(file, **kw))
    profile = b"name\0\0" + zlib.compress(bytes(1_000_000))
    np.testing.assert_array_equal(decode_patch(png(b"iCCP", [profile] * 250)), PATCH)
    assert {len(body) for body in seen} == {len(encode(PATCH, "PNG"))}
