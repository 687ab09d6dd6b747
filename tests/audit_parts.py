"""Small data sets with what the audit looks for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from datapath_parts import make_manifest

from sentinode.data.shards import ShardSample, build_shard
from sentinode.schema import Encoding, Split

SAMPLE = tuple[np.ndarray, int | None, str | None, str | None]
"""Pixels, label, slide, patient."""


def texture(seed: int) -> np.ndarray:
    """uint8 [96, 96, 3] with structure at all scales."""
    rng = np.random.default_rng(seed)
    image = np.zeros((96, 96, 3))
    for size in (3, 6, 12, 24, 48):
        cells = rng.random((size, size, 1))
        image += cells.repeat(96 // size, axis=0).repeat(96 // size, axis=1)
    return (image * 51).clip(0, 255).astype(np.uint8)


def write(folder: Path, dataset: str, splits: dict[Split, list[SAMPLE]]) -> str:
    records = []
    for split, samples in splits.items():
        parts = [
            ShardSample(
                hashlib.sha1(pixels.tobytes()).hexdigest(),
                label,
                json.dumps({"slide": slide, "patient": patient}).encode(),
            )
            for pixels, label, slide, patient in samples
        ]
        name = f"shards/{dataset}-{split.value}-000000.tar"
        buffer, record = build_shard(name, split, Encoding.NPY, parts, np.stack([s[0] for s in samples]))
        (folder / dataset / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / dataset / name).write_bytes(buffer.tobytes())
        records.append(record)
    (folder / dataset / "manifest.json").write_bytes(make_manifest(records, dataset).to_json())
    return str(folder / dataset)


def plain(
    seeds: range, label: int | None = 0, slide: str | None = None, patient: str | None = None
) -> list[SAMPLE]:
    return [(texture(seed), label, slide, patient) for seed in seeds]
