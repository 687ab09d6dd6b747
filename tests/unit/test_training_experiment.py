"""Experiments, run records and who may resume what."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from training_parts import MemoryData, write_lesson

from sentinode.commands.submit import job_environment
from sentinode.data.manifest import Manifest
from sentinode.errors import ConfigError
from sentinode.experiment import Experiment, RunRecord, begin_run, find_run, load_detector, read_run
from sentinode.provenance import code_commit
from sentinode.recipes import seed_cnn
from sentinode.schema import Split
from sentinode.storage import open_store
from sentinode.training.config import MixConfig, SaveConfig
from sentinode.training.loop import RankContext, run_training


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return write_lesson(str(tmp_path / "data"))


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    recipe = seed_cnn()
    short = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"epochs": 2, "batch_size": 16})}
    )
    return Experiment.of(short, str(tmp_path / "data"), str(tmp_path / "runs" / "first"))


def changed(experiment: Experiment, **train: object) -> Experiment:
    return experiment.model_copy(update={"train": experiment.train.model_copy(update=train)})


def finish(experiment: Experiment) -> None:
    run_training(experiment, MemoryData().feeds(), open_store(experiment.run), RankContext())


def test_experiment_survives_its_json_and_needs_no_data(experiment: Experiment) -> None:
    assert Experiment.from_json(experiment.to_json(), "here") == experiment
    assert experiment.name == "first"
    assert (
        experiment.recipe.digest() == Experiment.of(experiment.recipe, "s3://other/data", "x").recipe.digest()
    )
    nowhere = Experiment.of(seed_cnn(), "s3://no-such-bucket/data", "s3://no-such-bucket/run")
    assert json.loads(nowhere.to_json())["train"]["lr"] == 3e-4


def test_run_record_is_written_first(experiment: Experiment, manifest: Manifest) -> None:
    record = begin_run(experiment, manifest)
    kept = RunRecord.from_json(Path(experiment.run, "run.json").read_bytes(), "run.json")
    assert kept == record
    assert kept.manifest_digest == manifest.digest()
    assert kept.experiment == experiment
    assert {"python", "torch", "ray", "sentinode"} <= kept.versions.keys()
    assert kept.code_commit


def test_unfinished_run_is_resumed_with_its_first_record(experiment: Experiment, manifest: Manifest) -> None:
    first = begin_run(experiment, manifest)
    assert begin_run(experiment, manifest) == first


def test_another_configuration_is_refused_and_the_difference_named(
    experiment: Experiment, manifest: Manifest
) -> None:
    begin_run(experiment, manifest)
    with pytest.raises(ConfigError, match=r"another configuration: train\.lr 0\.0003 there, 0\.1 here"):
        begin_run(changed(experiment, lr=0.1), manifest)
    with pytest.raises(ConfigError, match=r"configuration: train\.mix\.cutmix 0\.0 there, 1\.0 here\n"):
        begin_run(changed(experiment, mix=MixConfig(cutmix=1.0)), manifest)


def test_when_to_save_and_the_memory_of_a_step_may_change(experiment: Experiment, manifest: Manifest) -> None:
    begin_run(experiment, manifest)
    asked = changed(experiment, save=SaveConfig(every_steps=3), micro_batches=2)
    assert find_run(asked, manifest) is not None


def test_what_was_changed_stands_in_the_record(experiment: Experiment, manifest: Manifest) -> None:
    first = begin_run(experiment, manifest)
    asked = changed(experiment, micro_batches=2)
    record = begin_run(asked, manifest)
    assert [(c.setting, c.value, c.epoch, c.step) for c in record.changes] == [
        ("train.micro_batches", 2, 0, 0)
    ]
    assert record.experiment == first.experiment
    assert read_run(open_store(experiment.run)) == record
    assert begin_run(asked, manifest) == record
    finish(changed(experiment, epochs=1))
    back = begin_run(experiment, manifest).changes
    assert [(c.value, c.epoch) for c in back] == [(2, 0), (1, 1)]


def test_a_run_is_not_put_among_the_shards(experiment: Experiment, manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="holds a data set"):
        find_run(experiment.model_copy(update={"run": experiment.data}), manifest)


def test_other_data_are_refused(experiment: Experiment, manifest: Manifest, tmp_path: Path) -> None:
    begin_run(experiment, manifest)
    other = write_lesson(str(tmp_path / "other"), train=100)
    with pytest.raises(ConfigError, match="data lesson"):
        begin_run(experiment, other)


@pytest.mark.parametrize("split", [Split.TRAIN, Split.VALID])
def test_a_split_of_one_class_is_refused(experiment: Experiment, manifest: Manifest, split: Split) -> None:
    summary = manifest.splits[split]
    summary = summary.model_copy(update={"class_counts": (summary.samples, 0)})
    one_class = manifest.model_copy(update={"splits": manifest.splits | {split: summary}})
    with pytest.raises(ConfigError, match=f"the {split} split of lesson has [0-9]+ negative and 0 tumour"):
        begin_run(experiment, one_class)
    assert not Path(experiment.run).exists()


def test_detector_of_a_finished_run(experiment: Experiment, manifest: Manifest) -> None:
    with pytest.raises(ConfigError, match="no finished run"):
        load_detector(experiment.run)
    begin_run(experiment, manifest)
    with pytest.raises(ConfigError, match="train it to its end first"):
        load_detector(experiment.run)
    finish(experiment)
    record, detector = load_detector(experiment.run)
    assert record.experiment == experiment
    images = torch.zeros(2, 96, 96, 3, dtype=torch.uint8)
    assert torch.equal(detector(images), detector(images))


def test_commit_comes_from_the_environment_where_git_does_not_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SENTINODE_COMMIT", "abc123")
    assert code_commit() == "abc123"
    monkeypatch.delenv("SENTINODE_COMMIT")
    assert code_commit() == "unknown"


def test_a_job_is_told_the_commit_of_the_checkout_that_it_runs(tmp_path: Path) -> None:
    package = tmp_path / "platform" / "sentinode"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert job_environment(tmp_path)["SENTINODE_COMMIT"] == head
    (package / "__init__.py").write_text("changed = True")
    assert job_environment(tmp_path)["SENTINODE_COMMIT"] == f"{head}-dirty"
