"""Predictions of a detector on a split: over Ray tasks where a session is up, else in this process.

Either way each sample is scored once, in float32, and the columns stand in manifest order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import ray
import torch
from safetensors.torch import load, save

from sentinode.data.columns import read_columns
from sentinode.data.loader import PatchLoader
from sentinode.data.manifest import Manifest, ShardRecord
from sentinode.errors import SentinodeError
from sentinode.evaluation.predictions import Predictions
from sentinode.models.families import ModelConfig, build_model, model_from_json
from sentinode.models.preprocess import Detector, Preprocess, PreprocessConfig
from sentinode.schema import Split
from sentinode.storage import Store, open_store

BATCH = 512

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Scorer:
    """A detector and the place of the data, as plain values that travel to a task."""

    weights: bytes
    model: str
    preprocess: str
    store_url: str
    split: Split
    tta: bool

    def __call__(self, part: str) -> Logits:
        """Logits of all samples of the split in the partial manifest ``part``, in its order."""
        torch.set_num_threads(1)
        manifest = Manifest.from_json(part.encode(), "the manifest sent to a task")
        net = build_model(model_from_json(self.model), pretrained=False)
        net.load_state_dict(load(self.weights))
        detector = Detector(
            Preprocess(PreprocessConfig.model_validate_json(self.preprocess)), net, tta=self.tta
        )
        store = open_store(self.store_url)
        return score(detector, manifest, store, self.split)


def model_digest(detector: Detector) -> str:
    """SHA-256 of the weights, which names the model in its predictions."""
    return hashlib.sha256(save(detector.net.state_dict())).hexdigest()


def predict(
    detector: Detector,
    model: ModelConfig,
    manifest: Manifest,
    store: Store,
    split: Split,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Score every patch of ``split`` of ``manifest``, whose shards lie in ``store``.


    ``model``: the configuration of ``detector.net``, from which tasks rebuild it. ``progress(done, total)``
    counts patches. Raises ManifestError where there is no such split, StoreError or one of its kinds for
    unreadable shards.
    """
    weights = save(detector.net.state_dict())
    shards = manifest.of_split(split)
    total = sum(record.samples for record in shards)
    if ray.is_initialized():
        preprocess = detector.preprocess.config.model_dump_json()
        scorer = _Scorer(weights, model.model_dump_json(), preprocess, store.url, split, detector.tta)
        scored = _over_tasks(scorer, manifest, shards)
    else:
        scored = (
            (i, score(detector, _only(manifest, record), store, split)) for i, record in enumerate(shards)
        )
    logits_of_shard: dict[int, Logits] = {}
    done = 0
    for shard, logits in scored:
        logits_of_shard[shard] = logits
        done += len(logits)
        if progress is not None:
            progress(done, total)
    logits_N = np.concatenate([logits_of_shard[shard] for shard in range(len(shards))])
    columns = read_columns(manifest, store, split)
    return Predictions.from_logits(
        keys=columns.keys,
        logits=logits_N,
        labels=columns.labels,
        split=split.value,
        slides=columns.slides,
        centres=columns.centres,
        model_digest=model_digest(detector),
        manifest_digest=manifest.digest(),
    )


def score(detector: Detector, manifest: Manifest, store: Store, split: Split) -> Logits:
    """Tumour logits float32 [N] of ``split`` in manifest order, computed in this process."""
    detector = detector.eval()
    logits: list[Logits] = []
    loader = PatchLoader(manifest, store, split, batch_size=BATCH, training=False)
    with loader:
        for batch in loader.epoch():
            with torch.inference_mode():
                # Without its padding, which would be scored like patches.
                logits.append(detector(batch.images_BHWC[batch.mask_B]).numpy())
    return np.concatenate(logits)


def _over_tasks(
    scorer: _Scorer, manifest: Manifest, shards: Sequence[ShardRecord]
) -> Iterator[tuple[int, Logits]]:
    """One task a shard, as many at a time as the cluster has CPUs; a task lost with its node is run again."""
    task = ray.remote(num_cpus=1, max_retries=3, retry_exceptions=False)(_run)
    shared = ray.put(scorer)
    waiting = {
        task.remote(shared, _only(manifest, record).model_dump_json()): shard
        for shard, record in enumerate(shards)
    }
    try:
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
            try:
                logits: Logits = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, SentinodeError) else error from error
            yield waiting.pop(ready), logits
    finally:
        for task_ref in waiting:
            ray.cancel(task_ref)


def _run(scorer: _Scorer, part: str) -> Logits:
    return scorer(part)


def _only(manifest: Manifest, record: ShardRecord) -> Manifest:
    """``manifest`` with one shard: what a task needs to know of it."""
    return manifest.model_copy(update={"shards": (record,)})
