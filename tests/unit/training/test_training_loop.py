"""The loop on in-memory batches: learning, determinism, resume, checkpoints."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training_parts import MemoryData, plan, weights

from sentinode.errors import RunTakenOverError, TrainingError
from sentinode.models.families import SeedCnnConfig, TimmConfig, ValidCnnConfig, build_model
from sentinode.models.preprocess import PreprocessConfig
from sentinode.models.timm_backbone import TimmDetector
from sentinode.storage import Store, open_store
from sentinode.training import checkpoint
from sentinode.training.checkpoint import (
    WEIGHTS_KEY,
    Snapshot,
    load_checkpoint,
    load_history,
    load_weights,
    save_checkpoint,
)
from sentinode.training.loop import RankContext, run_training
from sentinode.training.metrics import EpochRecord, best_epoch
from sentinode.training.pointer import POINTER_KEY, CheckpointPointer, Custody, begin_driving

ONE = RankContext()


class StopRun(Exception):  # noqa: N818
    """Stands for a kill."""


def stop_after(epoch: int) -> RankContext:
    def report(record: EpochRecord) -> None:
        if record.epoch == epoch:
            raise StopRun

    return RankContext(report=report)


def test_it_learns_and_writes_what_a_run_holds(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    state = run_training(plan(epochs=8), MemoryData().feeds(), store, ONE)
    assert state.best is not None
    assert state.best.valid_auroc > 0.95
    assert state.history[-1].train_loss < state.history[0].train_loss
    assert load_history(store) == state.history
    assert [json.loads(line)["epoch"] for line in store.get("metrics.jsonl").splitlines()] == list(
        range(1, 9)
    )
    assert [re.sub("-[0-9a-f]{12}", "", found.key) for found in store.list("checkpoints/")] == [
        f"checkpoints/best-{state.best.epoch:04d}.safetensors",
        "checkpoints/epoch-0008.safetensors",
        POINTER_KEY,
    ]
    net = build_model(SeedCnnConfig())
    load_weights(store, net)
    assert all(torch.equal(value, state.best_weights[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_same_recipe_gives_same_weights(tmp_path: Path, precision: str) -> None:
    runs = [
        run_training(
            plan(precision=precision, seed=seed), MemoryData().feeds(), open_store(str(tmp_path / name)), ONE
        )
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam", "schedule": "plateau", "plateau_patience": 0},
        {"optimizer": "adamw", "schedule": "cosine"},
        {"optimizer": "sgd", "schedule": "constant"},
        {"averaging": {"kind": "ema", "ema_decay": 0.9}, "mix": {"mixup": 0.4, "cutmix": 1.0}},
        {"averaging": {"kind": "swa", "swa_from": 0.5}, "micro_batches": 2, "warmup_epochs": 1.5},
    ],
)
def test_resumed_equals_uninterrupted(tmp_path: Path, changes: dict[str, object]) -> None:
    recipe = plan(**changes)
    whole = run_training(recipe, MemoryData().feeds(), open_store(str(tmp_path / "whole")), ONE)
    store = open_store(str(tmp_path / "cut"))
    for epoch in (1, 3):
        with pytest.raises(StopRun):
            run_training(recipe, MemoryData().feeds(), store, stop_after(epoch))
    resumed = run_training(recipe, MemoryData().feeds(), store, ONE)
    assert torch.equal(weights(whole), weights(resumed))
    timeless = {"train_s", "valid_s", "patches_per_s", "wait_fraction", "slowest_ratio"}
    assert [r.model_dump(exclude=timeless) for r in resumed.history] == [
        r.model_dump(exclude=timeless) for r in whole.history
    ]


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(StopRun):
        run_training(plan(), MemoryData().feeds(), store, stop_after(2))
    (path,) = (tmp_path / "checkpoints").glob("epoch-0002-*.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrainingError, match=r"damaged: .*epoch-0002"):
        run_training(plan(), MemoryData().feeds(), store, ONE)


def test_a_checkpoint_of_another_network_is_told_in_a_line(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(StopRun):
        run_training(plan(), MemoryData().feeds(), store, stop_after(1))
    other = plan().model_copy(update={"model": ValidCnnConfig()})
    with pytest.raises(TrainingError, match=r"epoch-0001.* does not fit the network: size mismatch") as told:
        run_training(other, MemoryData().feeds(), store, ONE)
    assert "\n" not in told.value.found


def test_kill_before_the_pointer_leaves_the_former_checkpoint_in_force(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(StopRun):
        run_training(plan(), MemoryData().feeds(), store, stop_after(2))
    (tmp_path / "checkpoints" / "epoch-0003.safetensors").write_bytes(b"half a file")
    state = run_training(plan(), MemoryData().feeds(), store, ONE)
    assert len(state.history) == 4
    assert store.stat(WEIGHTS_KEY) is not None


@pytest.mark.parametrize("epochs", [1, 3])
def test_kill_between_the_last_checkpoint_and_its_history_loses_no_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int
) -> None:
    store, save = open_store(str(tmp_path)), checkpoint.save_history

    def killed(store: Store, history: tuple[EpochRecord, ...]) -> None:
        if len(history) == epochs:
            raise StopRun
        save(store, history)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_history", killed)
        with pytest.raises(StopRun):
            run_training(plan(epochs=epochs), MemoryData().feeds(), store, ONE)
    assert len(load_history(store)) == epochs - 1
    state = run_training(plan(epochs=epochs), MemoryData().feeds(), store, ONE)
    assert load_history(store) == state.history
    assert len(state.history) == epochs


def test_a_process_that_was_left_behind_changes_nothing(tmp_path: Path) -> None:
    store, behind = open_store(str(tmp_path / "run")), Custody(open_store(str(tmp_path / "run")))
    behind.take()
    state = run_training(plan(epochs=1), MemoryData().feeds(), open_store(str(tmp_path / "other")), ONE)
    snapshot = Snapshot.of(state)
    save_checkpoint(store, snapshot, behind)
    with pytest.raises(StopRun):
        run_training(plan(), MemoryData().feeds(), store, stop_after(2))
    in_force = store.get(POINTER_KEY)
    for late in (snapshot, replace(snapshot, step=3)):
        with pytest.raises(RunTakenOverError, match="another process goes on"):
            save_checkpoint(store, late, behind)
    assert store.get(POINTER_KEY) == in_force
    assert len(load_history(store)) == 2
    assert load_checkpoint(store, state)
    assert len(state.history) == 2


def test_what_an_earlier_command_starts_again_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first = begin_driving(store)
    with pytest.raises(StopRun):
        run_training(plan(), MemoryData().feeds(), store, replace(stop_after(1), driver=first))
    still_there = Custody(store, first)
    still_there.take()
    second = begin_driving(store)
    with pytest.raises(StopRun):
        run_training(plan(), MemoryData().feeds(), store, replace(stop_after(2), driver=second))
    in_force = store.get(POINTER_KEY)
    with pytest.raises(RunTakenOverError):
        still_there.move(CheckpointPointer.from_json(in_force, "here"))
    for _ in range(2):  # as Ray starts its processes
        with pytest.raises(TrainingError, match="begun once more after this one"):
            run_training(plan(), MemoryData().feeds(), store, RankContext(driver=first))
    assert store.get(POINTER_KEY) == in_force
    state = run_training(plan(), MemoryData().feeds(), store, RankContext(driver=second))
    assert [record.epoch for record in state.history] == [1, 2, 3, 4]


def test_an_earlier_command_is_refused_before_there_is_a_checkpoint(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    first, second = begin_driving(store), begin_driving(store)
    with pytest.raises(TrainingError, match="begun once more after this one"):
        Custody(store, first).take()
    Custody(store, second).take()


def test_divergence_is_a_typed_error(tmp_path: Path) -> None:
    recipe = plan(optimizer="sgd", lr=1e30)
    with pytest.raises(TrainingError, match=r"lower train\.lr"):
        run_training(recipe, MemoryData().feeds(), open_store(str(tmp_path)), ONE)


def test_what_the_best_epoch_is_chosen_by(tmp_path: Path) -> None:
    figures = {
        "valid_auroc": (0.9, 0.8, 0.7),
        "valid_specificity": (0.1, 0.3, 0.2),
        "valid_loss": (0.5, 0.6, 0.4),
    }
    fields = dict.fromkeys(EpochRecord.model_fields, 0)
    history = [
        EpochRecord.model_validate(
            fields | {"epoch": n + 1} | {name: values[n] for name, values in figures.items()}
        )
        for n in range(3)
    ]
    best = [best_epoch(history, by) for by in ("auroc", "specificity", "loss")]
    assert [record and record.epoch for record in best] == [1, 2, 3]

    store = open_store(str(tmp_path))
    state = run_training(plan(epochs=6, lr=0.05, best_by="loss"), MemoryData().feeds(), store, ONE)
    assert state.best == min(state.history, key=lambda record: record.valid_loss)
    assert any(found.key.startswith(f"checkpoints/best-{state.best.epoch:04d}-") for found in store.list())


def test_early_stop(tmp_path: Path) -> None:
    recipe = plan(epochs=50, lr=1e-12, early_stop_patience=2)
    state = run_training(recipe, MemoryData().feeds(), open_store(str(tmp_path)), ONE)
    assert state.best is not None
    assert len(state.history) == state.best.epoch + 2 < 50


def test_plateau_lowers_the_rate(tmp_path: Path) -> None:
    recipe = plan(epochs=6, lr=1e-7, plateau_patience=0, plateau_factor=0.5)
    state = run_training(recipe, MemoryData().feeds(), open_store(str(tmp_path)), ONE)
    assert state.history[-1].lr < 1e-7


def test_a_resumed_run_does_without_the_weights_it_began_with(tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    model = TimmConfig(name="resnet10t", input_px=32, pretrained="file", weights_file=file)
    net = build_model(model, pretrained=False)
    assert isinstance(net, TimmDetector)
    save_file(net.backbone.state_dict(), file)
    recipe = plan(epochs=2).model_copy(
        update={"model": model, "preprocess": PreprocessConfig(input_px=32, fit="crop")}
    )
    feeds, store = MemoryData(samples=16).feeds(), open_store(str(tmp_path / "cut"))
    whole = run_training(recipe, feeds, open_store(str(tmp_path / "whole")), ONE)
    with pytest.raises(StopRun):
        run_training(recipe, feeds, store, stop_after(1))
    file.unlink()
    assert torch.equal(weights(run_training(recipe, feeds, store, ONE)), weights(whole))
