"""A training loop on one process, or on several joined by gloo as the ranks of one DDP run."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed


@dataclass(frozen=True)
class Layout:
    """How a loop is spread over processes."""

    ranks: int
    threads: int
    """Computing threads of each rank."""


@dataclass(frozen=True)
class Place:
    """One rank of a layout."""

    rank: int
    layout: Layout


Loop = Callable[[Place], Iterator[int]]
"""Trains for ever on one rank; yields how many patches all ranks together have just trained on. Picklable."""


def on_ranks(loop: Loop, layout: Layout) -> Iterator[int]:
    """Run ``loop`` on each rank of ``layout``; this process is rank 0, the others end with its group."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        context = multiprocessing.get_context("spawn")
        for rank in range(1, layout.ranks):
            context.Process(target=_follow, args=(loop, Place(rank, layout), meeting)).start()
        yield from _joined(loop, Place(0, layout), meeting)


def _follow(loop: Loop, place: Place, meeting: Path) -> None:
    for _ in _joined(loop, place, meeting):
        pass


def _joined(loop: Loop, place: Place, meeting: Path) -> Iterator[int]:
    torch.set_num_threads(place.layout.threads)
    if place.layout.ranks > 1:
        distributed.init_process_group(
            "gloo", init_method=meeting.as_uri(), rank=place.rank, world_size=place.layout.ranks
        )
    yield from loop(place)
