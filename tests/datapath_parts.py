"""Small data sets with known pixels, for tests of the data path."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sentinode.data.manifest import MANIFEST_NAME, Dropped, Manifest, ShardRecord, SplitSummary
from sentinode.data.shards import ShardSample, build_shard
from sentinode.schema import Encoding, Split
from sentinode.storage import Progress, Store, open_store


@dataclass(frozen=True)
class KnownSet:
    """A manifest with its store, and what its samples should be, by sample id."""

    manifest: Manifest
    store: Store
    pixels_NHWC: npt.NDArray[np.uint8]
    labels_N: npt.NDArray[np.int64]
    keys: list[str]
    slides: list[str]


def make_set(
    folder: Path,
    shard_samples: tuple[int, ...] = (40, 40, 17),
    *,
    encoding: Encoding = Encoding.NPY,
    split: Split = Split.TRAIN,
    seed: int = 0,
    dataset: str = "known",
    long_json: tuple[int, ...] = (),
) -> KnownSet:
    """Write a data set of random patches; shards in ``long_json`` have a larger stride."""
    rng = np.random.default_rng(seed)
    total = sum(shard_samples)
    pixels = rng.integers(0, 256, (total, 96, 96, 3), dtype=np.uint8)
    pixels[:, :, :, :] //= 2 + rng.integers(0, 6, (total, 1, 1, 3), dtype=np.uint8)
    labels = np.arange(total) % 2 if split is not Split.UNLABELLED else np.full(total, -1)
    keys = [hashlib.sha1(p.tobytes()).hexdigest() for p in pixels]
    slides = [f"slide-{i % 5}" for i in range(total)]
    records: list[ShardRecord] = []
    start = 0
    for number, count in enumerate(shard_samples):
        samples = []
        for i in range(start, start + count):
            text = {"slide": slides[i], "centre": i % 3, "patient": None, "source": f"{i}.tif"}
            if number in long_json:
                text["note"] = "x" * 700
            label = None if split is Split.UNLABELLED else int(labels[i])
            samples.append(ShardSample(keys[i], label, json.dumps(text).encode()))
        name = f"shards/{dataset}-{split.value}-{number:06d}.tar"
        buffer, record = build_shard(name, split, encoding, samples, pixels[start : start + count])
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.tobytes())
        records.append(record)
        start += count
    manifest = make_manifest(records, dataset)
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    return KnownSet(manifest, open_store(str(folder)), pixels, labels, keys, slides)


def make_manifest(records: list[ShardRecord], dataset: str = "known") -> Manifest:
    """The manifest of these shards."""
    splits: dict[Split, SplitSummary] = {}
    for split in {r.split for r in records}:
        mine = [r for r in records if r.split is split]
        counts = (sum(r.class_counts[0] for r in mine), sum(r.class_counts[1] for r in mine))
        samples = sum(r.samples for r in mine)
        splits[split] = SplitSummary(samples=samples, class_counts=counts, slides=5, origin="source")
    return Manifest(
        dataset=dataset,
        source="synthetic",
        slides_known=True,
        split_seed=0,
        splits=splits,
        dropped=Dropped(),
        shards=tuple(records),
    )


@dataclass
class RemoteFolder:
    """A local folder that calls itself remote, so that shards are copied from it; counts downloads."""

    folder: Store
    downloads: list[str] = field(default_factory=list)
    gate: threading.Barrier | None = None
    url: str = "far://bucket/set"

    def locate(self, key: str) -> str:
        return f"{self.url}/{key}"

    def download(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        size_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.downloads.append(key)
        if self.gate is not None:
            self.gate.wait(timeout=20)
        self.folder.download(key, path, sha256=sha256, size_bytes=size_bytes, progress=progress)
