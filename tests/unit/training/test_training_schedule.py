"""The learning rate as a function of the position, held against torch's own schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from sentinode.training.config import TrainConfig
from sentinode.training.schedule import learning_rate


def optimizer(lr: float) -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)


@pytest.mark.parametrize("patience", [0, 2])
def test_plateau_is_that_of_torch(patience: int) -> None:
    losses = [1.0, 0.9, 0.95, 0.91, 0.92, 0.90001, 0.5, 0.5, 0.5, 0.5, 0.6, 0.4]
    config = TrainConfig(lr=0.1, schedule="plateau", plateau_patience=patience, plateau_factor=0.3)
    reference = optimizer(0.1)
    scheduler = ReduceLROnPlateau(reference, factor=0.3, patience=patience)
    for done, loss in enumerate(losses):
        assert learning_rate(config, done * 7, 7, losses[:done]) == pytest.approx(
            reference.param_groups[0]["lr"]
        )
        scheduler.step(loss)


def test_cosine_is_that_of_torch() -> None:
    config = TrainConfig(epochs=3, lr=0.2, schedule="cosine")
    reference = optimizer(0.2)
    scheduler = CosineAnnealingLR(reference, T_max=15)
    for step in range(15):
        assert learning_rate(config, step, 5, []) == pytest.approx(reference.param_groups[0]["lr"], abs=1e-9)
        reference.step()
        scheduler.step()


def test_warm_up_rises_to_the_full_rate_and_the_cosine_begins_there() -> None:
    config = TrainConfig(epochs=4, lr=1.0, schedule="cosine", warmup_epochs=0.5)
    rates = [learning_rate(config, step, 8, []) for step in range(32)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[18] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    assert rates == rates[:4] + sorted(rates[4:], reverse=True)


def test_constant() -> None:
    assert {learning_rate(TrainConfig(schedule="constant", lr=0.5), s, 10, [3.0]) for s in range(50)} == {0.5}
