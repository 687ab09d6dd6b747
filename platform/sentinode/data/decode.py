"""Batches decoded from shards of encoded images (``webp``, ``jpeg``, and shards that others wrote).

Each batch is split over threads; the decoders work outside the interpreter lock. JPEG goes through
simplejpeg straight into the batch, the rest through Pillow.
"""

from __future__ import annotations

import io
import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch
from PIL import Image

from sentinode.data.layout import UNLABELLED
from sentinode.data.manifest import ShardRecord
from sentinode.data.rows import open_files_capacity
from sentinode.data.tar_index import IMAGE_SUFFIXES, Member, SampleEntry, scan_tar
from sentinode.errors import IntegrityError
from sentinode.schema import PATCH_PX

Ids = npt.NDArray[np.int64]
Patch = npt.NDArray[np.uint8]

_FORMATS: Final = ("WEBP", "PNG", "TIFF", "JPEG", "BMP")
"""What Pillow may take a member for, whatever its suffix says: it has others, such as EPS, which starts Ghostscript."""


@dataclass(frozen=True)
class OpenTar:
    """An open shard and, as plain arrays, where its images lie: a set of many shards has many samples.

    The file is read by offset rather than mapped, so that its pages do not count as memory of this process.
    """

    name: str
    file: BinaryIO
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int32]
    suffixes: npt.NDArray[np.int8]
    """[samples] Index into IMAGE_SUFFIXES."""

    @classmethod
    def open(cls, record: ShardRecord, file: BinaryIO) -> tuple[OpenTar, npt.NDArray[np.int8]]:
        """Scan a shard and keep its own open copy of ``file``, and with it the lease. Also returns its labels.

        Raises IntegrityError for a damaged tar, a sample without an image, a wrong label, and a number of
        samples that differs from the manifest's.
        """
        where = f"shard {record.name}"
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as tar:
            entries = scan_tar(tar, where)
            if len(entries) != record.samples:
                raise IntegrityError(
                    f"{where} holds {len(entries)} samples", f"{record.samples}", "ingest the data set again"
                )
            images = [image_of(entry, where) for entry in entries]
            labels = np.array([label_of(tar, entry, where) for entry in entries], dtype=np.int8)
        opened = cls(
            record.name,
            os.fdopen(os.dup(file.fileno()), "rb"),
            np.array([member.start for _, member in images], dtype=np.int64),
            np.array([member.size for _, member in images], dtype=np.int32),
            np.array([IMAGE_SUFFIXES.index(suffix) for suffix, _ in images], dtype=np.int8),
        )
        return opened, labels

    def read(self, row: int, out: Patch) -> None:
        """Decode sample ``row`` into ``out``, uint8 [96, 96, 3]; IntegrityError where it is no such image."""
        data = os.pread(self.file.fileno(), int(self.sizes[row]), int(self.starts[row]))
        suffix = IMAGE_SUFFIXES[self.suffixes[row]]
        try:
            decode_patch(data, suffix, out)
        except Exception as error:  # a damaged image makes decoders raise nearly anything
            raise IntegrityError(
                f"sample {row} (.{suffix}) of shard {self.name} cannot be decoded: {error}",
                f"an RGB image of {PATCH_PX}x{PATCH_PX} pixels",
                "ingest the data set again",
            ) from error


class TarReader:
    """Encoded shards of a split, each opened and scanned when it is needed."""

    def __init__(self, records: Sequence[ShardRecord], threads: int) -> None:
        self._records = records
        self._tars: dict[int, OpenTar] = {}
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.ready = np.zeros(len(records), dtype=bool)
        """[shards] True where a shard can be read."""
        self.capacity = open_files_capacity(len(records))
        """Shards that can be open at a time."""

    def open(self, shard: int, file: BinaryIO) -> npt.NDArray[np.int8]:
        """Make a shard readable; ``file`` may be closed afterwards. Returns its labels, int8 [samples] (-1
        unlabelled). Raises IntegrityError.
        """
        self._tars[shard], labels = OpenTar.open(self._records[shard], file)
        self.ready[shard] = True
        return labels

    def release(self, shard: int) -> None:
        """End the use of a shard, and its lease."""
        self._tars.pop(shard).file.close()
        self.ready[shard] = False

    def gather(self, shards_B: Ids, rows_B: Ids, images_BHWC: torch.Tensor) -> None:
        """Decode the named rows into ``images_BHWC`` (uint8), in order.

        Every shard must be ready. Raises IntegrityError for an image that cannot be decoded.
        """
        images = images_BHWC.numpy()
        tars, rows = [self._tars[shard] for shard in shards_B.tolist()], rows_B.tolist()

        def decode(part: range) -> None:
            for i in part:
                tars[i].read(rows[i], images[i])

        if self._threads == 1:  # handing a batch to a thread costs 3 us a patch on one core
            decode(range(len(rows)))
            return
        list(self._pool.map(decode, (range(t, len(rows), self._threads) for t in range(self._threads))))

    def close(self) -> None:
        """Close all shards and end the threads."""
        self._pool.shutdown(wait=True)
        for shard in list(self._tars):
            self.release(shard)


def decode_patch(data: bytes, suffix: str, out: Patch) -> None:
    """Decode an image file into ``out``, uint8 [96, 96, 3]. Raises nearly anything where it is no such one."""
    if suffix in ("jpg", "jpeg"):
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out)
        if pixels.shape != out.shape:
            raise ValueError(f"{pixels.shape[1]}x{pixels.shape[0]} pixels")
        return
    if suffix == "npy":
        pixels = np.load(io.BytesIO(data), allow_pickle=False)
    else:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            # Before any pixel is decoded: kilobytes may hold gigapixels.
            if image.size != (PATCH_PX, PATCH_PX):
                raise ValueError(f"{image.size[0]}x{image.size[1]} pixels")
            pixels = np.asarray(image.convert("RGB"))
    if pixels.shape != out.shape or pixels.dtype != np.uint8:
        raise ValueError(f"{pixels.dtype} {list(pixels.shape)}")
    out[:] = pixels


def image_of(entry: SampleEntry, where: str) -> tuple[str, Member]:
    """Suffix and member of a sample's image. Raises IntegrityError where it has none."""
    found = entry.image
    if found is None:
        raise IntegrityError(f"sample {entry.key} of {where} has no image", "a member such as .jpg or .npy")
    return found


def label_of(tar: memoryview, entry: SampleEntry, where: str) -> int:
    """0, 1, or -1 where the sample has no ``cls`` member. Raises IntegrityError for any other label."""
    member = entry.members.get("cls")
    if member is None:
        return UNLABELLED
    text = bytes(tar[member.start : member.start + member.size]).strip()
    if text not in (b"0", b"1"):
        raise IntegrityError(
            f"sample {entry.key} of {where} has the label {text[:20]!r}", "0 or 1", "remake it"
        )
    return int(text)
