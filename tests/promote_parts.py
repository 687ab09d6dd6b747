"""Evaluated runs for the tests of promotion, trained in this process within seconds: real weights, real figures."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from datapath_parts import make_manifest
from safetensors.torch import save
from torch import nn

from sentinode.commands.evaluate import EvaluateCommand, evaluate_run
from sentinode.data.manifest import Manifest
from sentinode.data.shards import ShardSample, build_shard
from sentinode.evaluation.records import EvaluationConfig
from sentinode.experiment import Experiment, RunRecord
from sentinode.models.families import SeedCnnConfig, build_model
from sentinode.models.preprocess import Preprocess
from sentinode.schema import Encoding, Split
from sentinode.storage import open_store
from sentinode.training.checkpoint import WEIGHTS_KEY
from sentinode.training.config import Recipe

SLIDES = 8
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def hard_lesson(samples: int, seed: int) -> tuple[Images, Labels]:
    """Patches [samples, 96, 96, 3] whose centre is darker with tumour, often by too little to be sure."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, samples)
    images = rng.integers(120, 256, (samples, 96, 96, 3)).astype(np.float32)
    darker = np.clip(rng.normal(0.08 + 0.10 * labels, 0.05), 0, 0.9)
    images[:, 32:64, 32:64] *= 1 - darker[:, None, None, None]
    return images.round().astype(np.uint8), labels


def write_data(url: str, train: int = 256, valid: int = 240, seed: int = 0) -> Manifest:
    """A data set of hard lessons at ``url``: slides known, two centres, train and valid."""
    store = open_store(url)
    records = []
    for number, (split, samples) in enumerate(((Split.TRAIN, train), (Split.VALID, valid))):
        images, labels = hard_lesson(samples, 10 * seed + number)
        described = [
            ShardSample(
                hashlib.sha1(image.tobytes()).hexdigest(),
                int(label),
                f'{{"slide": "{split.value}-{i % SLIDES}", "centre": "{i % SLIDES % 2}"}}'.encode(),
            )
            for i, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
        name = f"shards/hard-{split.value}-000000.tar"
        buffer, record = build_shard(name, split, Encoding.NPY, described, images)
        store.put(name, buffer.tobytes())
        records.append(record)
    manifest = make_manifest(records, "hard")
    store.put("manifest.json", manifest.to_json())
    return manifest


def write_run(data: str, run: str, manifest: Manifest, noise: float = 0.0, seed: int = 0) -> None:
    """A finished, evaluated run of the seed CNN at ``run``: random filters and a last layer fitted by ridge
    regression, to which ``noise`` is added for a worse detector.
    """
    recipe = Recipe(model=SeedCnnConfig())
    torch.manual_seed(seed)
    net = build_model(recipe.model).eval()
    preprocess = Preprocess(recipe.preprocess)
    images, labels = hard_lesson(manifest.splits[Split.TRAIN].samples, 0)
    *hidden, last = net.get_submodule("classifier").children()
    with torch.inference_mode():
        active = nn.Sequential(preprocess, net.get_submodule("features"), *hidden)(torch.from_numpy(images))
    x = active.double().numpy()
    centred = x - x.mean(axis=0)
    weight = np.linalg.solve(centred.T @ centred + 1e-4 * np.eye(x.shape[1]), centred.T @ (6 * labels - 3.0))
    weight += noise * np.abs(weight).mean() * np.random.default_rng(seed).normal(size=len(weight))
    state = net.state_dict()
    state["classifier.4.weight"] = torch.tensor(
        np.stack([np.zeros_like(weight), weight]), dtype=torch.float32
    )
    state["classifier.4.bias"] = torch.tensor([0.0, 6 * labels.mean() - 3 - x.mean(axis=0) @ weight]).float()
    assert isinstance(last, nn.Linear)
    store = open_store(run)
    store.put(WEIGHTS_KEY, save(state))
    record = RunRecord(
        experiment=Experiment.of(recipe, data, run),
        dataset=manifest.dataset,
        manifest_digest=manifest.digest(),
        code_commit="unknown",
        versions={},
        started_at="2026-01-01T00:00:00+00:00",
    )
    store.put("run.json", record.to_json())
    evaluate_run(EvaluateCommand(run=run, evaluation=EvaluationConfig(resamples=200)), lambda *_: None)
