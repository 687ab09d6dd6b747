"""What counts as a bad image, and with which reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from ingest_parts import noise_patches
from PIL import Image

from sentinode.data.sources.base import BadImage
from sentinode.data.sources.images import decode_image

PATCH = noise_patches(1)[0]
RGB = Image.fromarray(PATCH)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_16_bit_rgb() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(96 * 6) for _ in range(96))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 96, 96, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_16_bit_rgb() -> bytes:
    pixels = bytes(96 * 96 * 6)
    bits_at = 8 + 2 + 9 * 12 + 4
    entries = [
        (256, 4, 1, 96), (257, 4, 1, 96), (258, 3, 3, bits_at), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, bits_at + 6), (277, 3, 1, 3), (278, 4, 1, 96), (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, 9) + table + bytes(4) + struct.pack("<HHH", 16, 16, 16) + pixels


def bomb() -> bytes:
    """A PNG that claims 60000x60000 pixels."""
    data = bytearray(encoded(RGB, "PNG"))
    data[16:24] = struct.pack(">II", 60000, 60000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def one_pixel_transparent() -> Image.Image:
    pixels = np.array(RGB.convert("RGBA"))
    pixels[50, 7, 3] = 254
    return Image.fromarray(pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_give_the_same_pixels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"patch.{kind.lower()}"
    path.write_bytes(encoded(RGB, kind))
    pixels = decode_image(path)
    assert isinstance(pixels, np.ndarray)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, PATCH)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_opaque_alpha_is_left_away(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "patch"
    path.write_bytes(encoded(RGB.convert("RGBA"), kind))
    pixels = decode_image(path)
    assert isinstance(pixels, np.ndarray)
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, PATCH)


@pytest.mark.parametrize("options", [{"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}])
def test_compressed_tiff_gives_the_same_pixels(tmp_path: Path, options: dict[str, str]) -> None:
    path = tmp_path / "patch.tif"
    path.write_bytes(encoded(RGB, "TIFF", **options))
    np.testing.assert_array_equal(decode_image(path), PATCH)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "patch"
    path.write_bytes(encoded(RGB, kind))
    pixels = decode_image(path)
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (96, 96, 3)


BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, not an image at all", "not one of"),
    "95x96": (encoded(RGB.resize((95, 96)), "PNG"), "95x96 pixels, expected 96x96"),
    "grey": (encoded(RGB.convert("L"), "PNG"), "colour mode L"),
    "transparent": (encoded(one_pixel_transparent(), "PNG"), "1 pixels are transparent"),
    "grey with alpha": (encoded(RGB.convert("LA"), "PNG"), "colour mode LA"),
    "transparent tiff": (encoded(one_pixel_transparent(), "TIFF"), "1 pixels are transparent"),
    "palette": (encoded(RGB.convert("P"), "PNG"), "colour mode P"),
    "cmyk": (encoded(RGB.convert("CMYK"), "JPEG"), "colour mode CMYK"),
    "bilevel": (encoded(RGB.convert("1"), "TIFF"), "1 bits"),
    "16-bit grey png": (encoded(Image.fromarray(np.zeros((96, 96), np.uint16)), "PNG"), "16 bits"),
    "16-bit rgb png": (png_16_bit_rgb(), "16 bits"),
    "16-bit rgb tiff": (tiff_16_bit_rgb(), "16 bits"),
    "truncated tiff": (encoded(RGB, "TIFF")[:9000], ""),
    "truncated png": (encoded(RGB, "PNG")[:9000], ""),
    "truncated jpeg": (encoded(RGB, "JPEG")[:2000], ""),
    "truncated webp": (encoded(RGB, "WEBP")[:2000], ""),
    "two pages": (encoded(RGB, "TIFF", save_all=True, append_images=[RGB]), "2 images"),
    "gif": (encoded(RGB.convert("P"), "GIF"), "not one of"),
    "bomb": (bomb(), ""),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_images_have_a_reason_without_machine_paths(tmp_path: Path, what: str) -> None:
    data, reason = BAD[what]
    path = tmp_path / "patch.img"
    path.write_bytes(data)
    found = decode_image(path)
    assert isinstance(found, BadImage)
    assert reason in found.reason
    assert found.reason
    assert str(tmp_path) not in found.reason


def test_missing_file_is_bad(tmp_path: Path) -> None:
    assert decode_image(tmp_path / "none.png") == BadImage("no such file")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "BMP"])
def test_damaged_bytes_never_raise(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(7)
    whole = np.frombuffer(encoded(RGB, kind), np.uint8)
    path = tmp_path / "patch"
    for _ in range(60):
        data = whole.copy()
        places = rng.integers(0, min(len(data), 600), 6)
        data[places] = rng.integers(0, 256, 6)
        path.write_bytes(data.tobytes())
        found = decode_image(path)
        assert isinstance(found, BadImage) or found.shape == (96, 96, 3)
