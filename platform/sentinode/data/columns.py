"""What is known of each sample besides its pixels, for a whole split in manifest order."""

from __future__ import annotations

import json
import mmap
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from sentinode.data.cache import ShardCache
from sentinode.data.decode import label_of
from sentinode.data.layout import labels_of, unlabelled
from sentinode.data.manifest import ArrayLayout, Manifest, ShardRecord
from sentinode.data.tar_index import scan_tar
from sentinode.errors import IntegrityError
from sentinode.schema import Split
from sentinode.storage import Store

_NAME_BYTES = 100


@dataclass(frozen=True)
class SplitColumns:
    """One entry a sample, in manifest order: the sample id is the index."""

    keys: list[str]
    """SHA-1 of the pixels (shards of others: the member name up to its first dot)."""
    labels: npt.NDArray[np.int8]
    """0, 1, or -1 where unlabelled."""
    slides: list[str | None]
    centres: list[str | None]
    patients: list[str | None]


def read_columns(
    manifest: Manifest, store: Store, split: Split, cache: ShardCache | None = None
) -> SplitColumns:
    """Read keys, labels, slides, centres and patients of every sample of ``split``.

    Raises ManifestError where there is no such split, StoreError or one of its kinds where a shard cannot
    be read.
    """
    parts = list(columns_of_shards(manifest.of_split(split), cache or ShardCache(store)))
    return SplitColumns(
        list(chain.from_iterable(part.keys for part in parts)),
        np.concatenate([part.labels for part in parts]),
        list(chain.from_iterable(part.slides for part in parts)),
        list(chain.from_iterable(part.centres for part in parts)),
        list(chain.from_iterable(part.patients for part in parts)),
    )


def columns_of_shards(records: Sequence[ShardRecord], cache: ShardCache) -> Iterator[SplitColumns]:
    """The columns of each shard by itself, so that no more than one is in memory. Raises as
    ``read_columns``.
    """
    for record in records:
        part = _read_shard(record, cache)
        described = [_described(text, record) for text in part.texts]
        names = ([d.get(name) for d in described] for name in ("slide", "centre", "patient"))
        yield SplitColumns(part.keys, part.labels, *names)


def read_descriptions(
    record: ShardRecord, cache: ShardCache
) -> tuple[npt.NDArray[np.int8], list[dict[str, str | None]]]:
    """Labels (int8 [samples], -1 unlabelled) of one shard, and what its JSON members tell: slide, source, and so on.
    Raises as ``read_columns``.
    """
    part = _read_shard(record, cache)
    return part.labels, [_described(text, record) for text in part.texts]


def read_labels(record: ShardRecord, cache: ShardCache) -> npt.NDArray[np.int8]:
    """int8 [samples] (-1 unlabelled) of one shard. Raises as ``read_columns``."""
    return _read_shard(record, cache, texts=False).labels


def read_keys(records: Sequence[ShardRecord], cache: ShardCache, ids: Sequence[int]) -> list[str]:
    """The keys of the samples ``ids`` (counted through ``records``). Raises as ``read_columns``."""
    ends = np.cumsum([record.samples for record in records])
    shards = np.searchsorted(ends, ids, side="right").tolist()
    keys = {shard: _read_shard(records[shard], cache).keys for shard in set(shards)}
    return [
        keys[shard][i - int(ends[shard]) + records[shard].samples]
        for shard, i in zip(shards, ids, strict=True)
    ]


@dataclass(frozen=True)
class _ShardColumns:
    keys: list[str]
    labels: npt.NDArray[np.int8]
    texts: list[bytes]
    """The JSON members; empty where a sample has none."""


def _read_shard(record: ShardRecord, cache: ShardCache, *, texts: bool = True) -> _ShardColumns:
    with (
        cache.lease(record) as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        memoryview(mapped) as tar,
    ):
        if record.layout is not None:
            return _read_array(tar, record, record.layout, texts=texts)
        entries = scan_tar(tar, f"shard {record.name}")
        if len(entries) != record.samples:
            raise IntegrityError(f"shard {record.name} holds {len(entries)} samples", f"{record.samples}")
        labels = [label_of(tar, entry, f"shard {record.name}") for entry in entries]
        members = [entry.members.get("json") for entry in entries]
        json_texts = [b"" if m is None else bytes(tar[m.start : m.start + m.size]) for m in members]
        return _ShardColumns([e.key for e in entries], np.array(labels, dtype=np.int8), json_texts)


def _read_array(tar: memoryview, record: ShardRecord, layout: ArrayLayout, *, texts: bool) -> _ShardColumns:
    stride, count = layout.stride_bytes, record.samples
    if len(tar) < stride * count:
        raise IntegrityError(f"shard {record.name} has {len(tar)} bytes", f"{record.size_bytes}")
    # Rows are read one by one: only the pages that hold them are touched.
    starts = range(0, stride * count, stride)
    if layout.label_offset_bytes is None:
        labels = unlabelled(record)
    else:
        digits = bytes(tar[start + layout.label_offset_bytes] for start in starts)
        labels = labels_of(record, np.frombuffer(digits, np.uint8))
    if not texts:
        return _ShardColumns([], labels, [])
    names = (bytes(tar[start : start + _NAME_BYTES]) for start in starts)
    keys = [name.partition(b".")[0].decode(errors="replace") for name in names]
    first, size = layout.json_offset_bytes, layout.json_size_bytes
    return _ShardColumns(keys, labels, [bytes(tar[s + first : s + first + size]) for s in starts])


def _described(text: bytes, record: ShardRecord) -> dict[str, str | None]:
    """What a sample's JSON member tells; values that are not text (a centre's number) become text, equal ones
    one text.
    """
    if not text:
        return {}
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise IntegrityError(
            f"a JSON member of shard {record.name} cannot be read: {error}", "an object"
        ) from error
    if not isinstance(raw, dict):
        raise IntegrityError(f"a JSON member of shard {record.name} is {raw!r}", "an object")
    return {name: None if value is None else sys.intern(str(value)) for name, value in raw.items()}
