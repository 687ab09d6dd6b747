"""A shard less some of its samples; what is left stays the same byte for byte."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Collection

import numpy as np

from sentinode.data.cache import ShardCache
from sentinode.data.columns import read_labels
from sentinode.data.manifest import ShardRecord
from sentinode.data.shards import archive_size, pack_member
from sentinode.data.tar_index import scan_tar


def trim_shard(record: ShardRecord, cache: ShardCache, rows: Collection[int]) -> tuple[bytes, ShardRecord]:
    """The shard without ``rows``, of which there are fewer than samples. Raises StoreError."""
    kept = np.setdiff1d(np.arange(record.samples), list(rows))
    labels = read_labels(record, cache)[kept]
    with (
        cache.lease(record) as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        memoryview(mapped) as tar,
    ):
        content = _content(tar, record, kept.tolist())
    whole = content.ljust(archive_size(len(content)), b"\0")
    return whole, record.model_copy(
        update={
            "samples": len(kept),
            "size_bytes": len(whole),
            "sha256": hashlib.sha256(whole).hexdigest(),
            "class_counts": (int((labels == 0).sum()), int((labels == 1).sum())),
        }
    )


def _content(tar: memoryview, record: ShardRecord, kept: list[int]) -> bytes:
    if record.layout is not None:
        stride = record.layout.stride_bytes
        return b"".join(tar[row * stride : (row + 1) * stride] for row in kept)
    entries = scan_tar(tar, f"shard {record.name}")
    return b"".join(
        pack_member(member.name, bytes(tar[member.start : member.start + member.size]))
        for row in kept
        for member in entries[row].members.values()
    )
