"""Scoring a split with sealed graphs: what is compared at promotion is what will be served."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.bundle import Bundle
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.data.columns import read_columns
from sentinode.data.loader import PatchLoader
from sentinode.data.manifest import Manifest
from sentinode.evaluation.predictions import Predictions
from sentinode.schema import Split
from sentinode.storage import Store

BATCH = 256

Logits = NDArray[np.float32]


def score_logits(
    models: Sequence[OnnxModel],
    manifest: Manifest,
    store: Store,
    split: Split,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Logits, ...]:
    """Tumour logits float32 [N] of every model on ``split``, in manifest order; patches are read once for all.

    ``progress(done, total)`` counts patches. Raises ManifestError where there is no such split, StoreError or one of
    its kinds where a shard cannot be read.
    """
    logits: list[list[Logits]] = [[] for _ in models]
    done = 0
    with PatchLoader(manifest, store, split, batch_size=BATCH, training=False) as loader:
        for batch in loader.epoch():
            images_BHWC = batch.images_BHWC[batch.mask_B].numpy()
            for mine, model in zip(logits, models, strict=True):
                mine.append(model.logits(images_BHWC))
            done += len(images_BHWC)
            if progress is not None:
                progress(done, loader.samples)
    return tuple(np.concatenate(mine) for mine in logits)


def score_split(
    models: Sequence[tuple[Bundle, OnnxModel]], manifest: Manifest, store: Store, split: Split
) -> tuple[Predictions, ...]:
    """Predictions of every model on ``split``, calibrated as each card says. Raises as ``score_logits``."""
    columns = read_columns(manifest, store, split)
    logits = score_logits([model for _, model in models], manifest, store, split)
    return tuple(
        Predictions.from_logits(
            keys=columns.keys,
            logits=mine,
            labels=columns.labels,
            split=split.value,
            slides=columns.slides,
            centres=columns.centres,
            model_digest=bundle.digest,
            manifest_digest=manifest.digest(),
        ).calibrated(bundle.card.calibration)
        for mine, (bundle, _) in zip(logits, models, strict=True)
    )
