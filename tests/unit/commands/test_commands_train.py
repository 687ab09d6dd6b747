"""Training as a command: leaks are refused before anything is started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_parts import MemoryData, write_lesson

from sentinode import cli
from sentinode.commands.train import TrainingTold
from sentinode.data.manifest import MANIFEST_NAME, Manifest, load_manifest
from sentinode.experiment import Experiment, begin_run
from sentinode.logs import configure_logging
from sentinode.recipes import seed_cnn
from sentinode.schema import Split
from sentinode.storage import open_store
from sentinode.training.loop import RankContext, run_training
from sentinode.training.metrics import EpochRecord, ProgressRecord
from sentinode.training.pointer import CheckpointPointer, Custody, StoredTensors


def leaking(url: str) -> None:
    """A data set whose validation shards are training shards under another name."""
    manifest = write_lesson(url)
    store = open_store(url)
    train = next(shard for shard in manifest.shards if shard.split is Split.TRAIN)
    copy = train.model_copy(update={"split": Split.VALID, "name": "shards/copy-valid-000000.tar"})
    store.put(copy.name, store.get(train.name))
    kept = tuple(shard for shard in manifest.shards if shard.split is Split.TRAIN)
    values = manifest.model_dump() | {"shards": [s.model_dump() for s in (*kept, copy)]}
    store.put(MANIFEST_NAME, Manifest.model_validate(values).to_json())


def test_an_exact_leak_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaking(str(tmp_path / "data"))
    code = cli.run_step("train", ["--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")])
    shown = capsys.readouterr().err
    assert code == 1
    assert "exact duplicate" in shown
    assert not (tmp_path / "run").exists()


def test_the_audit_names_the_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaking(str(tmp_path / "data"))
    report = tmp_path / "new" / "audit.json"
    assert cli.run_step("audit", [str(tmp_path / "data"), "--json-file", str(report)]) == 1
    assert "LEAK" in capsys.readouterr().err
    assert b'"exact duplicate"' in report.read_bytes()
    assert list(report.parent.iterdir()) == [report]


def test_the_audit_tells_first_that_its_report_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "audit.json"):
        assert cli.run_step("audit", [str(tmp_path / "no-data"), "--json-file", str(place)]) == 1
        shown = capsys.readouterr().err
        assert str(place) in shown
        assert "no-data" not in shown


def test_a_clean_data_set_passes_the_audit(tmp_path: Path) -> None:
    write_lesson(str(tmp_path / "data"))
    assert cli.run_step("audit", [str(tmp_path / "data"), "--no-near-duplicates"]) == 0


def test_progress_counts_epochs_and_their_parts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SENTINODE_LOG", "plain")
    configure_logging()
    told: list[tuple[float, int, str]] = []
    onlooker = TrainingTold(4, lambda step, done, total, note="": told.append((done, total, note)))
    values = {"epoch": 2, "valid_auroc": 0.75, "patches_per_s": 900.0, "wait_fraction": 0.03, "world_size": 2}
    onlooker.progress(
        ProgressRecord.model_validate(values | {"step": 9, "steps": 18, "epochs": 4, "loss": 0.5})
    )
    fields = dict.fromkeys(EpochRecord.model_fields, 0) | {"train_s": 30, "valid_s": 10}
    onlooker.epoch(EpochRecord.model_validate(fields | values | {"slowest_rank": 1, "slowest_ratio": 1.5}))
    onlooker.progress(
        ProgressRecord.model_validate(
            values | {"epoch": 4, "step": 18, "steps": 18, "epochs": 4, "loss": 0.5}
        )
    )
    # Validation takes its time, and the last of it is no finished run.
    assert [(done, total) for done, total, _ in told] == [(0, 4), (1.45, 4), (2, 4), (3.75, 4)]
    assert "validating after step 18 of 18" in told[3][2]
    for figure in ("step 9 of 18", "loss 0.500", "AUROC 0.750", "900 patches/s", "waiting 3 %", "2 workers"):
        assert figure in told[1][2]
    figures, slow = capsys.readouterr().err.splitlines()
    assert "epoch 2 of 4" in figures
    assert "rank 1 falls behind" in slow


def test_a_finished_run_is_told_again_without_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lesson(str(tmp_path / "data"))
    monkeypatch.setenv("SENTINODE_LOG", "plain")
    recipe = seed_cnn()
    config = recipe.train.model_copy(update={"epochs": 3, "early_stop_patience": 1, "lr": 1e-9})
    asked = Experiment.of(
        recipe.model_copy(update={"train": config}), str(tmp_path / "data"), str(tmp_path / "run")
    )
    begin_run(asked, load_manifest(asked.data)[0])
    store = open_store(asked.run)
    done = len(run_training(asked, MemoryData().feeds(), store, RankContext()).history)
    assert done < 3
    arguments = ["--data", asked.data, "--run", asked.run, "--train.epochs", "3", "--train.lr", "1e-9"]
    # No cluster answers there, and none is asked.
    arguments += ["--train.early-stop-patience", "1", "--ray-address", "127.0.0.1:9"]
    assert cli.run_step("train", arguments) == 0
    shown = capsys.readouterr().err
    for said in (
        "has finished before",
        f"best of {done} epochs",
        "ended early",
        f"sentinode evaluate --run {asked.run}",
    ):
        assert said in shown


def test_a_wrong_value_is_told_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_step("train", ["--data", "d", "--run", "r", "--train.batch-size", "0"]) == 2
    assert "--train.batch-size is 0\n  expected: greater than or equal to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["--train.batch-size", "4096"], "do not fill one global batch of 4096"),
        (["--shuffle.balanced", "--train.batch-size", "4096"], "do not fill one global batch of 4096"),
        (["--shuffle.kind", "block", "--shuffle.lanes", "3"], "a batch size that is a multiple of 3"),
    ],
)
def test_a_batch_that_does_not_fit_the_data_is_told_before_ray_is_asked(
    settings: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lesson(str(tmp_path / "data"))
    arguments = [
        "--data",
        str(tmp_path / "data"),
        "--run",
        str(tmp_path / "run"),
        "--ray-address",
        "127.0.0.1:9",
    ]
    assert cli.run_step("train", arguments + settings) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_told_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lesson(str(tmp_path / "data"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("sentinode.commands.train.ray_session", lambda *_: pytest.fail("Ray is started"))
    arguments = ["--recipe", "resnet18", "--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")]
    arguments += ["--model.pretrained", "file", "--model.weights-file", str(tmp_path / "none.safetensors")]
    assert cli.run_step("train", arguments) == 2
    assert "none.safetensors cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    # A run that has a checkpoint does without.
    state = StoredTensors(key="checkpoints/state.safetensors", sha256="0" * 64)
    Custody(open_store(str(tmp_path / "run"))).move(
        CheckpointPointer(state=state, best=None, epoch=1, step=0)
    )
    with pytest.raises(pytest.fail.Exception, match="Ray is started"):
        cli.run_step("train", arguments)


@pytest.mark.parametrize("recipe", ["valid-cnn-small", "p4m-densenet"])
def test_the_recipe_decides_the_flags_of_the_network(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--recipe", recipe, "--data", "d", "--run", "r", "--model.dropout", "0.2", "--dry-run"]
    assert cli.run_step("train", arguments) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"]["family"] == recipe.removesuffix("-small")
    assert shown["model"]["dropout"] == 0.2
