"""The same weights whatever happens on the way: interruption within an epoch, micro-batches, saves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from training_parts import MemoryData, plan, weights

from sentinode.data.loader import Batch
from sentinode.errors import TrainingError
from sentinode.storage import open_store
from sentinode.training.feeds import Feeds
from sentinode.training.loop import RankContext, run_training
from sentinode.training.pointer import POINTER_KEY, CheckpointPointer

ONE = RankContext()


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


def killed_before(epoch: int, step: int) -> Feeds:
    """Feeds that break off before a step."""
    feeds = MemoryData().feeds()

    def train(asked: int, start_step: int) -> Iterator[Batch]:
        for number, batch in enumerate(feeds.train(asked, start_step), start_step):
            if (asked, number) == (epoch, step):
                raise Killed
            yield batch

    return replace(feeds, train=train)


@pytest.mark.parametrize(
    "changes",
    [
        {"save": {"every_steps": 1}},
        {
            "save": {"every_steps": 2},
            "averaging": {"kind": "ema"},
            "schedule": "cosine",
            "warmup_epochs": 0.5,
        },
        {"save": {"every_minutes": 1e-9}, "optimizer": "sgd", "mix": {"mixup": 1.0}},
    ],
)
def test_resumed_within_an_epoch_equals_uninterrupted(tmp_path: Path, changes: dict[str, object]) -> None:
    recipe = plan(**changes)
    whole = run_training(recipe, MemoryData().feeds(), open_store(str(tmp_path / "whole")), ONE)
    store = open_store(str(tmp_path / "cut"))
    for epoch, step in ((0, 3), (1, 1), (1, 2), (2, 3)):
        with pytest.raises(Killed):
            run_training(recipe, killed_before(epoch, step), store, ONE)
        pointer = CheckpointPointer.from_json(store.get(POINTER_KEY), "pointer")
        assert (pointer.epoch, pointer.step) >= (epoch, step - 1)
    resumed = run_training(recipe, MemoryData().feeds(), store, ONE)
    assert torch.equal(weights(whole), weights(resumed))
    assert [r.train_loss for r in resumed.history] == [r.train_loss for r in whole.history]
    assert all(
        torch.equal(whole.best_weights[name], resumed.best_weights[name]) for name in whole.best_weights
    )


def test_a_notice_saves_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentinode.training.learner.ATTENTION_EVERY_S", 0.0)
    store = open_store(str(tmp_path))
    context = RankContext(must_save=lambda: True)
    with pytest.raises(Killed):
        run_training(plan(), killed_before(1, 2), store, context)
    pointer = CheckpointPointer.from_json(store.get(POINTER_KEY), "pointer")
    assert (pointer.epoch, pointer.step) == (1, 2)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_give_the_gradient_of_the_whole_batch(tmp_path: Path, parts: int) -> None:
    found = [
        weights(
            run_training(plan(micro_batches=n), MemoryData().feeds(), open_store(str(tmp_path / str(n))), ONE)
        )
        for n in (1, parts)
    ]
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)


def with_bad_images(feeds: Feeds, spoil: Callable[[Batch], Batch]) -> Feeds:
    def train(epoch: int, start_step: int) -> Iterator[Batch]:
        for number, batch in enumerate(feeds.train(epoch, start_step), start_step):
            yield spoil(batch) if (epoch, number) == (1, 2) else batch

    return replace(feeds, train=train)


def test_a_loss_that_is_not_finite_names_step_and_samples_and_keeps_the_batch(tmp_path: Path) -> None:
    def spoil(batch: Batch) -> Batch:
        return replace(batch, images_BHWC=torch.full(batch.images_BHWC.shape, torch.nan))

    store = open_store(str(tmp_path))
    feeds = with_bad_images(MemoryData().feeds(), spoil)
    with pytest.raises(TrainingError) as caught:
        run_training(plan(label_smoothing=0.1, lr=1e-3), feeds, store, ONE)
    text = str(caught.value)
    assert "epoch 2, step 3" in text
    assert "with weights of up to 0." in text
    kept = tmp_path / "failures" / "epoch-0002-step-000003-rank-0.safetensors"
    with safe_open(kept, framework="pt") as file:
        assert file.get_tensor("images_BHWC").shape == (16, 96, 96, 3)
        keys = file.metadata()["keys"].split(",")
        assert keys == [f"key-{i}" for i in file.get_tensor("sample_ids_B").tolist()]
    assert keys[0] in text
    pointer = CheckpointPointer.from_json(store.get(POINTER_KEY), "pointer")
    assert pointer.epoch == 1, "what was learnt before is kept"


def test_weights_that_overflow_are_told_from_bad_samples(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"with weights of up to \d\.\d+e\+\d\d"):
        run_training(plan(optimizer="sgd", lr=1e30), MemoryData().feeds(), open_store(str(tmp_path)), ONE)
