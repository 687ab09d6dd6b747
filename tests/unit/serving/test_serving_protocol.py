"""Bodies: three formats come through to the pixel, everything else is refused with a status and a reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from serving_parts import encode, random_patches

from sentinode.errors import RequestError
from sentinode.serving import limits
from sentinode.serving.protocol import decode_patch

PATCH = random_patches(1, seed=3)[0]


def png_promising(width_px: int, height_px: int, bits: int = 8, colour_type: int = 2) -> bytes:
    """A PNG header with right checksums and next to no data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width_px, height_px, bits, colour_type, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def refusal(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode_patch(body)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("PNG", {"optimize": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", {"compression": "packbits"}),
    ],
)
def test_lossless_formats_keep_every_pixel(kind: str, options: dict[str, object]) -> None:
    pixels = decode_patch(encode(PATCH, kind, **options))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, PATCH)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
def test_jpeg_decodes_as_libjpeg_does(options: dict[str, object]) -> None:
    body = encode(PATCH, "JPEG", **options)
    np.testing.assert_array_equal(decode_patch(body), simplejpeg.decode_jpeg(body))


def test_real_kaggle_tiffs_decode(real_data: Path) -> None:
    paths = sorted((real_data / "kaggle" / "train").glob("*.tif"))[:50]
    assert len(paths) == 50
    for path in paths:
        np.testing.assert_array_equal(decode_patch(path.read_bytes()), np.asarray(Image.open(path)))


def test_real_pcam_jpegs_decode(real_data: Path) -> None:
    paths = sorted((real_data / "pcam_jpeg" / "valid").rglob("*.jpg"))[:50]
    assert len(paths) == 50
    for path in paths:
        assert decode_patch(path.read_bytes()).shape == (96, 96, 3)


GREY = PATCH[:, :, 0]
RGBA = np.dstack([PATCH, GREY])


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "empty"),
        (b"hello", 415, "no supported format"),
        (b"{}", 415, "no supported format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no supported format"),
        (encode(PATCH, "GIF"), 415, "no supported format: it begins with b'GIF8"),
        (encode(PATCH, "BMP"), 415, "no supported format"),
        (encode(PATCH, "WEBP"), 415, "no supported format"),
        (encode(PATCH, "TIFF", big_tiff=True), 415, "no supported format"),
        (encode(PATCH, "TIFF", compression="zstd"), 415, "zstd"),
        (encode(PATCH, "TIFF", compression="jpeg"), 415, "jpeg"),
        (encode(PATCH, "TIFF", compression="lzma"), 415, "lzma"),
        (encode(PATCH[:, :95], "PNG"), 422, "95x96"),
        (encode(PATCH[:95], "JPEG"), 422, "96x95"),
        (encode(PATCH[:95], "TIFF"), 422, "96x95"),
        (png_promising(50_000, 50_000), 422, "50000x50000"),
        (png_promising(2**31 - 1, 2**31 - 1), 422, "2147483647"),
        (png_promising(96, 96, bits=16), 422, "16 bits"),
        (encode(GREY, "PNG"), 422, "colour type 0"),
        (encode(RGBA, "PNG"), 422, "colour type 6"),
        (encode(GREY, "JPEG"), 422, "Gray"),
        (encode(RGBA, "TIFF"), 422, "RGBA"),
        (encode(GREY, "TIFF"), 422, "TIFF in L"),
        (encode(PATCH, "JPEG")[:-40], 400, "JPEG cannot be decoded"),
        (encode(PATCH, "JPEG")[:20], 400, "JPEG cannot be decoded"),
        (encode(PATCH, "PNG")[:-60], 400, "PNG cannot be decoded"),
        (encode(PATCH, "PNG")[:20], 400, "PNG cannot be decoded"),
        (encode(PATCH, "TIFF")[:-1000], 400, "TIFF cannot be decoded"),
        (encode(PATCH, "TIFF", save_all=True, append_images=[Image.fromarray(PATCH)]), 422, "several"),
        (encode(PATCH, "PNG", save_all=True, append_images=[Image.fromarray(GREY)]), 422, "several"),
    ],
)
def test_bad_body_is_refused(body: bytes, status: int, reason: str) -> None:
    error = refusal(body)
    assert (error.status, reason in error.found) == (status, True), error
    assert error.expected


def test_changed_pixel_data_of_a_png_is_noticed() -> None:
    body = bytearray(encode(PATCH, "PNG"))
    body[len(body) // 2] ^= 0x10
    assert refusal(bytes(body)).status == 400


def test_cmyk_jpeg_is_refused(tmp_path: Path) -> None:
    Image.fromarray(PATCH).convert("CMYK").save(tmp_path / "a.jpg")
    assert refusal((tmp_path / "a.jpg").read_bytes()).status == 422


def tiff_of_one_tile(tile_px: int) -> bytes:
    """A 96x96 RGB TIFF whose single Deflate tile claims to be ``tile_px`` pixels wide and long."""
    data = zlib.compress(bytes(tile_px * tile_px * 3 if tile_px < 1000 else 100_000))
    entries = [(256, 96), (257, 96), (258, 0), (259, 8), (262, 2), (277, 3), (322, tile_px), (323, tile_px)]
    entries += [(324, 0), (325, len(data))]
    bits_at = 8 + 2 + 12 * len(entries) + 4
    values = {258: bits_at, 324: bits_at + 6}
    directory = b"".join(
        struct.pack("<HHII", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, values.get(tag, value))
        for tag, value in entries
    )
    head = b"II*\x00" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4)
    return head + struct.pack("<HHH", 8, 8, 8) + data


def test_huge_tile_of_a_small_tiff_is_refused_before_decoding() -> None:
    assert decode_patch(tiff_of_one_tile(96)).max() == 0
    error = refusal(tiff_of_one_tile(26_000))
    assert (error.status, "tiles of 26000 pixels" in error.found) == (415, True), error


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_mutated_bodies_are_decoded_or_refused(kind: str) -> None:
    """Nothing but a patch or a RequestError of a 4xx status comes out, whatever goes in."""
    rng = np.random.default_rng(11)
    whole = encode(PATCH, kind)
    statuses = []
    for _ in range(1500):
        body = bytearray(whole)
        for _ in range(rng.integers(1, 8)):
            # Headers are where decoders go astray: half of the changes go into the first or last 300 bytes.
            span = len(body) if rng.random() < 0.5 else 300
            at = int(rng.integers(0, span))
            body[at if rng.random() < 0.7 else len(body) - 1 - at] = int(rng.integers(0, 256))
        if rng.random() < 0.2:
            del body[int(rng.integers(8, len(body))) :]
        try:
            pixels = decode_patch(bytes(body))
        except RequestError as error:
            statuses.append(error.status)
        else:
            assert pixels.shape == (96, 96, 3)
            assert pixels.dtype == np.uint8
    assert len(statuses) > 100
    assert set(statuses) <= {400, 415, 422}


def test_only_a_small_jpeg_of_one_scan_is_bounded() -> None:
    patch = random_patches(1)[0]
    plain = encode(patch, "JPEG", quality=90)
    start = plain.index(b"\xff\xda")
    assert limits.is_bounded_jpeg(plain)
    assert not limits.is_bounded_jpeg(encode(patch, "JPEG", progressive=True))
    assert not limits.is_bounded_jpeg(plain[:-2] + plain[start:])
    assert not limits.is_bounded_jpeg(plain + bytes(1 << 16))
    assert not limits.is_bounded_jpeg(encode(patch, "PNG"))
    assert not limits.is_bounded_jpeg(b"")
