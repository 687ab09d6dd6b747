"""Joining clusters that are not there, and scaling that cannot work."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from training_parts import lesson, write_lesson

from sentinode.distributed import cluster
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.inference import predict
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.trainer import check_run, train
from sentinode.errors import ConfigError, ManifestError
from sentinode.experiment import Experiment, begin_run
from sentinode.models.families import SeedCnnConfig, build_model
from sentinode.models.preprocess import Detector, Preprocess, PreprocessConfig
from sentinode.recipes import seed_cnn
from sentinode.schema import Split
from sentinode.storage import open_store
from sentinode.training.config import MixConfig, Recipe, TrainConfig


def test_an_address_that_does_not_answer_is_named_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(ConfigError, match=f"{address}(?s:.)*RAY_AUTH_MODE=token"), ray_session(address):
        pass
    assert time.monotonic() - began < 10


def test_a_local_ray_that_cannot_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    monkeypatch.setenv("RAY_TMPDIR", str(in_the_way))
    with pytest.raises(ConfigError, match="Ray did not start on this machine"), ray_session("local", 1):
        pass


def test_a_batch_that_does_not_split_evenly_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_lesson(str(tmp_path / "data"))
    experiment = Experiment.of(seed_cnn(), str(tmp_path / "data"), str(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"set train\.batch_size to"):
        train(experiment, ScalingSettings(num_workers=7))
    assert not (tmp_path / "run").exists()


def test_a_share_of_a_step_is_not_split_into_more_parts_than_patches() -> None:
    config = TrainConfig(batch_size=8, micro_batches=8)
    ScalingSettings(num_workers=1).check_batch(config)
    with pytest.raises(ConfigError, match="micro_batches is 8, and each of 2 workers has 4 patches"):
        ScalingSettings(num_workers=2).check_batch(config)


def test_partners_in_mixing_are_not_parted(tmp_path: Path) -> None:
    manifest = write_lesson(str(tmp_path / "data"))
    data = str(tmp_path / "data")

    def check(run: str, batch_size: int, workers: int = 2, **more: object) -> None:
        config = TrainConfig(batch_size=batch_size, mix=MixConfig(mixup=1.0))
        recipe = Recipe.model_validate({"train": config, **more})
        check_run(Experiment.of(recipe, data, str(tmp_path / run)), ScalingSettings(num_workers=workers))

    check("even", 8)
    check("alone", 7, workers=1)
    with pytest.raises(
        ConfigError, match=r"6 parts partners of train\.mix.*\n.*a multiple of 4\n.*to 8 or 4"
    ):
        check("odd", 6)
    with pytest.raises(ConfigError, match="a multiple of 8"):
        check("balanced", 12, shuffle={"balanced": True})
    begun = Recipe(train=TrainConfig(batch_size=6, mix=MixConfig(mixup=1.0)))
    begin_run(Experiment.of(begun, data, str(tmp_path / "begun")), manifest)
    check("begun", 6)


def test_scaling_counts_cpus() -> None:
    assert ScalingSettings(num_workers=3, cpus_per_worker=2).num_cpus == 6


def test_predictions_stand_in_manifest_order(tmp_path: Path) -> None:
    manifest = write_lesson(str(tmp_path), valid=75, shard=30)
    store = open_store(str(tmp_path))
    detector = Detector(Preprocess(PreprocessConfig()), build_model(SeedCnnConfig()))
    seen: list[tuple[int, int]] = []
    rows: list[int] = []
    counting = detector.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    found = predict(detector, SeedCnnConfig(), manifest, store, Split.VALID, lambda *at: seen.append(at))
    counting.remove()
    assert rows == [30, 30, 15], "padding is not scored"
    assert seen == [(30, 75), (60, 75), (75, 75)]
    assert len(found) == 75
    assert set(found.slides) == {"s1"}
    assert set(found.centres) == {"2"}
    images, labels = lesson(75, 1)
    assert found.keys.tolist() == [hashlib.sha1(image.tobytes()).hexdigest() for image in images]
    assert found.labels.tolist() == labels.tolist()
    with torch.inference_mode():
        np.testing.assert_allclose(found.logits, detector(torch.from_numpy(images)).numpy(), atol=1e-5)
    with pytest.raises(ManifestError, match="test"):
        predict(detector, SeedCnnConfig(), manifest, store, Split.TEST)


def test_a_joined_cluster_is_told_places_and_never_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    told = cluster._worker_environment(local=False)["env_vars"]
    assert told["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    assert "secret" not in told.values()
    assert cluster._worker_environment(local=True)["env_vars"]["AWS_SECRET_ACCESS_KEY"] == "secret"
