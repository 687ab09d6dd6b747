"""Checks that an ``npy`` shard is the array that the manifest says it is."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from sentinode.data.manifest import ArrayLayout, ShardRecord
from sentinode.errors import IntegrityError, ManifestError
from sentinode.schema import PATCH_BYTES

UNLABELLED = -1
"""The label of a sample that has none."""


def checked_layout(record: ShardRecord) -> ArrayLayout:
    """The record's layout. Raises ManifestError where there is none, or where it does not fit the shard."""
    layout = record.layout
    if layout is None:
        raise ManifestError(
            f"{record.encoding.value} shard {record.name} has no layout", "an npy shard with one"
        )
    pixels, label = layout.pixels_offset_bytes, layout.label_offset_bytes
    in_order = pixels >= 0 and (label is None or pixels + PATCH_BYTES <= label)
    last = pixels + PATCH_BYTES - 1 if label is None else label
    samples_bytes = record.samples * layout.stride_bytes
    if not (in_order and last < layout.stride_bytes and samples_bytes <= record.size_bytes):
        raise ManifestError(
            f"the layout of shard {record.name} does not fit its {record.size_bytes} bytes",
            f"{record.samples} samples, each with pixels, then label, inside its stride",
            "restore the manifest or ingest the data set again",
        )
    return layout


def labels_of(record: ShardRecord, digits: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """int8 [samples]: what the label digits (ASCII) of a shard say. IntegrityError for any but 0 and 1."""
    labels = digits.view(np.int8) - np.int8(ord("0"))
    if not ((labels == 0) | (labels == 1)).all():
        raise IntegrityError(
            f"a label in shard {record.name} is not a digit", "0 or 1", "ingest the set again"
        )
    return labels


def unlabelled(record: ShardRecord) -> npt.NDArray[np.int8]:
    """int8 [samples] of a shard without labels."""
    return np.full(record.samples, UNLABELLED, dtype=np.int8)


def check_head(record: ShardRecord, layout: ArrayLayout, file: BinaryIO) -> None:
    """Raises IntegrityError where the size is wrong, or no tar starts there with a numpy array."""
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(layout.pixels_offset_bytes)
    if size != record.size_bytes or head[257:262] != b"ustar" or head[512:518] != b"\x93NUMPY":
        raise IntegrityError(
            f"shard {record.name} has {size} bytes and starts with {head[512:518]!r}",
            f"{record.size_bytes} bytes of tar, npy first",
            "ingest the data set again",
        )
