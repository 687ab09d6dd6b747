"""Patches with a lesson to learn: tumour patches have a dark centre."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from datapath_parts import make_manifest
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from sentinode.data.loader import Batch
from sentinode.data.manifest import Manifest, ShardRecord
from sentinode.data.shards import ShardSample, build_shard
from sentinode.schema import Encoding, Split
from sentinode.storage import open_store
from sentinode.training.config import Recipe, TrainConfig
from sentinode.training.feeds import Feeds
from sentinode.training.state import TrainingState


def plan(**changes: object) -> Recipe:
    """A short training of the seed CNN, in float32."""
    settings = {"epochs": 4, "batch_size": 16, "lr": 3e-3, "precision": "fp32", **changes}
    return Recipe(train=TrainConfig.model_validate(settings))


def weights(state: TrainingState) -> torch.Tensor:
    """All numbers of the network in one row."""
    return torch.cat([value.flatten() for value in state.net.state_dict().values()])


@cache
def lesson(samples: int, seed: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Patches [samples, 96, 96, 3] and their labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(120, 256, (samples, 96, 96, 3), dtype=np.uint8)
    labels = rng.integers(0, 2, samples)
    images[labels == 1, 32:64, 32:64] //= 3
    return images, labels


def write_lesson(url: str, train: int = 192, valid: int = 75, shard: int = 50) -> Manifest:
    """A data set of lessons at ``url``, in shards of ``shard`` patches."""
    store = open_store(url)
    records: list[ShardRecord] = []
    for seed, (split, samples) in enumerate(((Split.TRAIN, train), (Split.VALID, valid))):
        images, labels = lesson(samples, seed)
        for start in range(0, samples, shard):
            part = slice(start, start + shard)
            described = [
                ShardSample(
                    hashlib.sha1(image.tobytes()).hexdigest(),
                    int(label),
                    f'{{"slide": "s{seed}", "centre": "2"}}'.encode(),
                )
                for image, label in zip(images[part], labels[part], strict=True)
            ]
            name = f"shards/lesson-{split.value}-{start:06d}.tar"
            buffer, record = build_shard(name, split, Encoding.NPY, described, images[part])
            store.put(name, buffer.tobytes())
            records.append(record)
    manifest = make_manifest(records, "lesson")
    store.put("manifest.json", manifest.to_json())
    return manifest


@dataclass
class MemoryData:
    """``samples`` patches for training and as many for validation."""

    samples: int = 64
    batch_size: int = 16
    rank: int = 0
    world_size: int = 1

    def split(self, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = lesson(self.samples, seed)
        return torch.from_numpy(images), torch.from_numpy(labels)

    def batches(self, seed: int, order: np.ndarray, pad: bool) -> Iterator[Batch]:
        images, labels = self.split(seed)
        share = self.batch_size // self.world_size
        for start in range(0, len(order), self.batch_size):
            ids = order[start : start + self.batch_size]
            if not pad and len(ids) < self.batch_size:
                return
            mine = ids[self.rank * share : (self.rank + 1) * share]
            real = torch.arange(share) < len(mine)
            mine = torch.from_numpy(np.concatenate([mine, np.zeros(share - len(mine), mine.dtype)]))
            yield Batch(
                images_BHWC=images[mine],
                labels_B=torch.where(real, labels[mine], -1),
                sample_ids_B=torch.where(real, mine, -1),
                mask_B=real,
            )

    def feeds(self) -> Feeds:
        def train(epoch: int, start_step: int) -> Iterator[Batch]:
            order = np.random.default_rng(epoch).permutation(self.samples)
            return self.batches(1, order[start_step * self.batch_size :], pad=False)

        labels = lesson(self.samples, 1)[1]
        return Feeds(
            train,
            lambda: self.batches(2, np.arange(self.samples), pad=True),
            self.samples // self.batch_size,
            (int((labels == 0).sum()), int((labels == 1).sum())),
            lambda ids: [f"key-{i}" for i in ids],
        )


def scored_sample(count: int = 37) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [count, 2] and labels [count] of a model that is better than guessing."""
    rng = np.random.default_rng(5)
    labels = torch.from_numpy(rng.integers(0, 2, count))
    logits = torch.from_numpy(rng.normal(size=(count, 2)).astype(np.float32))
    logits[:, 1] += labels
    return logits, labels


def sample_measures() -> tuple[float, float, float]:
    """(loss, AUROC, accuracy) of ``scored_sample()`` by scikit-learn."""
    logits, labels = scored_sample()
    probability = (logits[:, 1] - logits[:, 0]).double().sigmoid().numpy()
    return (
        log_loss(labels, probability),
        roc_auc_score(labels, probability),
        accuracy_score(labels, probability > 0.5),
    )
