"""Training and prediction over a real two-worker Ray and a real S3 server."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import torch
from training_parts import lesson, write_lesson

from sentinode.data.manifest import load_manifest
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.inference import predict
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.trainer import train
from sentinode.errors import ConfigError, TrainingError
from sentinode.experiment import Experiment, load_detector
from sentinode.recipes import seed_cnn
from sentinode.schema import Split
from sentinode.storage import join_url, open_store
from sentinode.storage.embedded import EmbeddedStore
from sentinode.training.checkpoint import load_history
from sentinode.training.config import TrainConfig
from sentinode.training.metrics import EpochRecord, ProgressRecord


@pytest.fixture(scope="module", autouse=True)
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A local Ray whose workers reach an embedded object store with a data set; the store's URL."""
    with pytest.MonkeyPatch.context() as environment, EmbeddedStore() as store:
        environment.setenv("SENTINODE_CACHE", str(tmp_path_factory.mktemp("cache")))
        environment.setenv("WANDB_MODE", "offline")
        for name, value in store.environment.items():
            environment.setenv(name, value)
        write_lesson(join_url(store.url, "data"))
        with ray_session("local", num_cpus=2):
            yield store.url


class Told:
    """Keeps what it is told of a run; ``act`` may do something at each epoch."""

    def __init__(self, act: Callable[[EpochRecord], None] = lambda record: None) -> None:
        self.epochs: list[EpochRecord] = []
        self.steps: list[ProgressRecord] = []
        self._act = act

    def epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record)
        self._act(record)

    def progress(self, record: ProgressRecord) -> None:
        self.steps.append(record)


def experiment(bucket: str, name: str, **changes: object) -> Experiment:
    recipe = seed_cnn()
    settings = {**recipe.train.model_dump(), "epochs": 4, "batch_size": 16, "lr": 3e-3, **changes}
    recipe = recipe.model_copy(update={"train": TrainConfig.model_validate(settings)})
    return Experiment.of(recipe, join_url(bucket, "data"), join_url(bucket, "runs", name))


def workers() -> list[psutil.Process]:
    """The training processes of this test's own Ray."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_train_then_predict(bucket: str) -> None:
    asked = experiment(bucket, "whole")
    onlooker = Told()
    heard_by = signal.getsignal(signal.SIGINT)
    result = train(asked, ScalingSettings(num_workers=2), onlooker)
    assert signal.getsignal(signal.SIGINT) is heard_by
    told, store = onlooker.epochs, open_store(asked.run)
    assert [record.epoch for record in told] == [1, 2, 3, 4]
    assert told == load_history(store)
    assert result.best == max(told, key=lambda record: record.valid_auroc)
    assert result.best.valid_auroc > 0.8
    keys = {found.key for found in store.list()}
    assert {"run.json", "metrics.jsonl", "weights/best.safetensors"} <= keys
    assert any(key.startswith("wandb/") and key.endswith(".wandb") for key in keys)

    _, detector = load_detector(asked.run)
    manifest, data = load_manifest(asked.data)
    found = predict(detector, asked.model, manifest, data, Split.VALID)
    images, labels = lesson(75, 1)
    assert found.labels.tolist() == labels.tolist()
    with torch.inference_mode():
        np.testing.assert_allclose(found.logits, detector(torch.from_numpy(images)).numpy(), atol=1e-5)

    assert train(asked) == result  # as it is


def test_two_runs_of_one_recipe_give_the_same_weights(bucket: str) -> None:
    files = []
    for name in ("twin-a", "twin-b"):
        asked = experiment(bucket, name, epochs=2)
        train(asked)
        files.append(open_store(asked.run).get("weights/best.safetensors"))
    assert files[0] == files[1]


def test_a_killed_worker_costs_time_only(bucket: str, caplog: pytest.LogCaptureFixture) -> None:
    killed: list[int] = []

    def kill_once(record: EpochRecord) -> None:
        if record.epoch >= 2 and not killed:
            victim = workers()[0]
            killed.append(victim.pid)
            victim.send_signal(signal.SIGKILL)

    files = []
    for name, act in (("killed", kill_once), ("spared", lambda record: None)):
        asked = experiment(bucket, name, epochs=12, save={"every_steps": 3})
        result = train(asked, onlooker=Told(act))
        assert result.epochs == 12
        store = open_store(asked.run)
        assert [record.epoch for record in load_history(store)] == list(range(1, 13))
        files.append(store.get("weights/best.safetensors"))
    assert killed
    assert files[0] == files[1]
    assert [message for message in caplog.messages if message.startswith("lost the worker of rank")]


def test_divergence_ends_with_the_typed_error_at_once(bucket: str) -> None:
    asked = experiment(bucket, "diverged", optimizer="sgd", lr=1e30)
    with pytest.raises(TrainingError, match=r"samples of rank 0: [0-9a-f]{40}, "):
        train(asked)
    kept = [found.key for found in open_store(asked.run).list("failures/")]
    assert kept


def test_what_this_machine_has_not_is_told_at_once(bucket: str) -> None:
    asked = experiment(bucket, "no-gpu")
    with pytest.raises(ConfigError, match=r"asks for 64 CPUs, and this machine's Ray has 2"):
        train(asked, ScalingSettings(num_workers=2, cpus_per_worker=32))
    assert open_store(asked.run).stat("run.json") is None


def test_a_session_within_a_session_uses_the_outer_one(tmp_path: Path) -> None:
    with ray_session("local"):
        assert ray.is_initialized()
    assert ray.is_initialized()
