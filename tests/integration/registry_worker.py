"""What each process of the registry's contest does; started by test_registry_promoters."""

from __future__ import annotations

import os
from collections.abc import Mapping
from threading import Barrier

from sentinode.bundle.registry import Why, look, move_alias
from sentinode.errors import SentinodeError
from sentinode.storage import open_store

_barrier: Barrier | None = None


def take_barrier(barrier: Barrier) -> None:
    """Keep the barrier that all promoters share."""
    global _barrier
    _barrier = barrier


def contend(environment: Mapping[str, str], url: str, digests: list[str], who: int) -> list[str]:
    """Look at ``production`` with all others, then move it to ``digests[who]``, for some rounds; each one's outcome."""
    os.environ.update(environment)
    assert _barrier is not None
    store = open_store(url)
    outcomes = []
    for turn in range(3):
        _barrier.wait(120)
        seen = look(store, "production")
        _barrier.wait(120)
        try:
            target = digests[who + turn % 2 * (len(digests) // 2)]
            move_alias(store, seen, target, Why(by=f"promoter {who}, turn {turn}"))
            outcomes.append("moved")
        except SentinodeError as error:
            outcomes.append(f"{type(error).__name__}: {error.found}")
    return outcomes
