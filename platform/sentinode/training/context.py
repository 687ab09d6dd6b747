"""What the loop knows of the process it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from sentinode.training.metrics import EpochRecord
from sentinode.training.validation import ValidScores


class EndedEarly(Exception):  # noqa: N818 - no error: the run is to end here
    """Raised by ``report`` to end a run after the epoch that it was told of. Its state is saved, and it can go on."""


@dataclass(frozen=True)
class RankContext:
    """One rank's place in the run. With ``world_size`` above 1 torch's process group is up."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    report: Callable[[EpochRecord], None] | None = None
    """Called on every rank after each epoch. May raise EndedEarly, on every rank alike."""
    must_save: Callable[[], bool] | None = None
    """Whether this process is about to be taken away. Called on all ranks alike, every few seconds."""
    on_best: Callable[[ValidScores], None] | None = None
    """Called on rank 0 with the scores of each epoch that is the best so far."""
    driver: str = ""
    """Who started the ranks, as ``begin_driving`` named it, where they may be started again."""
