"""Which errors of a rank Ray is told as a result, and which as a failure that ends the others too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sentinode.data.loader import LoaderConfig
from sentinode.distributed import rank
from sentinode.errors import ConfigError, SentinodeError, StoreError, TrainingError


def known_to_all() -> ConfigError:
    error = ConfigError("the weights file lacks")
    error.everywhere = True
    return error


@pytest.mark.parametrize(
    ("error", "ranks", "returned"),
    [
        (known_to_all(), 2, True),
        (TrainingError("the loss is nan"), 2, True),
        (ConfigError("no room on this GPU"), 1, True),
        (ConfigError("no room on this GPU"), 2, False),
        (StoreError("out of reach"), 1, False),
    ],
)
def test_an_error_of_one_rank_alone_is_raised(
    monkeypatch: pytest.MonkeyPatch, error: SentinodeError, ranks: int, returned: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    experiment: Any = None
    place = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: ranks)
    monkeypatch.setattr(rank.ray_train, "get_context", lambda: place)
    monkeypatch.setattr(rank, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(rank, "train_here", fail)
    if returned:
        assert rank.train_rank(experiment, "driver", 1, LoaderConfig(), None) is error
    else:
        with pytest.raises(type(error)):
            rank.train_rank(experiment, "driver", 1, LoaderConfig(), None)
