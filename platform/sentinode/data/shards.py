"""A shard is a tar that is also an array.

A sample is ``<key>.npy`` (uint8 [96, 96, 3]), ``<key>.cls`` (an ASCII digit, absent in unlabelled shards) and
``<key>.json``. Every header is plain ustar with time, user and group zero, and every sample has the same
size, so the same samples give the same bytes, stock ``tarfile`` and ``webdataset`` read the shard, and a
memory map of it is a strided array. With the encodings ``webp`` (lossless) and ``jpeg`` (quality 95, no
chroma subsampling) the first member is ``<key>.webp`` or ``<key>.jpeg`` and samples vary in size.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from sentinode.data.manifest import ArrayLayout, ShardRecord
from sentinode.schema import PATCH_BYTES, PATCH_PX, Encoding, Split

BLOCK: Final = tarfile.BLOCKSIZE
NPY_HEADER_BYTES: Final = 128
JPEG_QUALITY: Final = 95

_KEY_HEX = 40
_CHECKSUM = slice(148, 154)
_CHECKSUM_DIGITS = 6

Buffer = npt.NDArray[np.uint8]
"""The bytes of a shard, uint8 [size_bytes]."""


@dataclass(frozen=True, slots=True)
class ShardSample:
    """All of a sample but its pixels. ``key`` is 40 hex digits, ``text`` the JSON member."""

    key: str
    label: int | None
    text: bytes


def build_shard(
    name: str,
    split: Split,
    encoding: Encoding,
    samples: Sequence[ShardSample],
    pixels_NHWC: npt.NDArray[np.uint8],
) -> tuple[Buffer, ShardRecord]:
    """The bytes of a shard and its record. ``pixels_NHWC`` is uint8 [samples, 96, 96, 3] in the samples'
    order.

    Either all samples have labels, or none has (split unlabelled).
    """
    layout: ArrayLayout | None = None
    if encoding is Encoding.NPY:
        buffer, layout = _array_tar(samples, pixels_NHWC)
    else:
        buffer = _member_tar(samples, pixels_NHWC, encoding)
    labels = [s.label for s in samples]
    record = ShardRecord(
        name=name,
        split=split,
        samples=len(samples),
        size_bytes=buffer.size,
        sha256=hashlib.sha256(buffer.data).hexdigest(),
        encoding=encoding,
        layout=layout,
        class_counts=(labels.count(0), labels.count(1)),
    )
    return buffer, record


def npy_header() -> bytes:
    """The 128-byte header (format 1.0) of a C-ordered uint8 array [96, 96, 3]."""
    out = io.BytesIO()
    shape = (PATCH_PX, PATCH_PX, 3)
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return out.getvalue()


def _array_tar(
    samples: Sequence[ShardSample], pixels_NHWC: npt.NDArray[np.uint8]
) -> tuple[Buffer, ArrayLayout]:
    """Fill a zeroed array [samples, stride] column by column: the members' headers and contents."""
    n = len(samples)
    labelled = samples[0].label is not None
    json_size = _padded(max(len(s.text) for s in samples))
    parts = [
        ("npy", NPY_HEADER_BYTES + PATCH_BYTES),
        *([("cls", 1)] if labelled else []),
        ("json", json_size),
    ]
    stride = sum(BLOCK + _padded(size) for _, size in parts)
    buffer = np.zeros(archive_size(n * stride), np.uint8)
    rows = buffer[: n * stride].reshape(n, stride)
    keys = np.frombuffer("".join(s.key for s in samples).encode(), np.uint8).reshape(n, _KEY_HEX)
    starts: dict[str, int] = {}
    at = 0
    for suffix, size in parts:
        _put_headers(rows[:, at : at + BLOCK], keys, suffix, size)
        starts[suffix] = at + BLOCK
        at += BLOCK + _padded(size)

    first = starts["npy"] + NPY_HEADER_BYTES
    rows[:, starts["npy"] : first] = np.frombuffer(npy_header(), np.uint8)
    rows[:, first : first + PATCH_BYTES] = pixels_NHWC.reshape(n, PATCH_BYTES)
    if labelled:
        rows[:, starts["cls"]] = np.array([s.label for s in samples], np.uint8) + ord("0")
    texts = b"".join(s.text.ljust(json_size) for s in samples)
    rows[:, starts["json"] : starts["json"] + json_size] = np.frombuffer(texts, np.uint8).reshape(
        n, json_size
    )
    return buffer, ArrayLayout(
        stride_bytes=stride,
        pixels_offset_bytes=first,
        label_offset_bytes=starts.get("cls"),
        json_offset_bytes=starts["json"],
        json_size_bytes=json_size,
    )


def _put_headers(blocks: npt.NDArray[np.uint8], keys: npt.NDArray[np.uint8], suffix: str, size: int) -> None:
    """Write ustar headers [n, 512]: one header for all, then each name, then each checksum."""
    blocks[:] = np.frombuffer(ustar_header("0" * _KEY_HEX + f".{suffix}", size), np.uint8)
    blocks[:, :_KEY_HEX] = keys
    blocks[:, 148:156] = ord(" ")  # the checksum counts its own field as spaces
    sums = blocks.sum(axis=1, dtype=np.int64)
    shifts = 3 * np.arange(_CHECKSUM_DIGITS - 1, -1, -1)
    blocks[:, _CHECKSUM] = ((sums[:, None] >> shifts) & 7) + ord("0")
    blocks[:, 154] = 0


def ustar_header(name: str, size_bytes: int) -> bytes:
    """The 512-byte header of a plain file: mode 0644, time, user and group zero."""
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.USTAR_FORMAT)


def pack_member(name: str, data: bytes) -> bytes:
    """A file of a tar: its header, and what it holds up to a whole block."""
    return ustar_header(name, len(data)) + data.ljust(_padded(len(data)), b"\0")


def _member_tar(
    samples: Sequence[ShardSample], pixels_NHWC: npt.NDArray[np.uint8], encoding: Encoding
) -> Buffer:
    out = bytearray()
    for sample, pixels in zip(samples, pixels_NHWC, strict=True):
        label = [] if sample.label is None else [("cls", str(sample.label).encode())]
        for suffix, data in [(encoding.value, _encode(pixels, encoding)), *label, ("json", sample.text)]:
            out += pack_member(f"{sample.key}.{suffix}", data)
    return np.frombuffer(out.ljust(archive_size(len(out)), b"\0"), np.uint8)


def _encode(pixels: npt.NDArray[np.uint8], encoding: Encoding) -> bytes:
    options: dict[str, Any] = {
        Encoding.WEBP: {"lossless": True, "exact": True, "method": 4, "quality": 75},
        # Huffman tables of its own make a patch 13 % smaller and faster to decode, of the same pixels.
        Encoding.JPEG: {"quality": JPEG_QUALITY, "subsampling": 0, "optimize": True},
    }[encoding]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format=encoding.value, **options)
    return out.getvalue()


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK) * BLOCK


def archive_size(content_bytes: int) -> int:
    """Content, two zero blocks, filled up to whole tar records."""
    return -(-(content_bytes + 2 * BLOCK) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
