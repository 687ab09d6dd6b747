"""How many trials a cluster has room for. Asked before a search and all along: one that can never fit would wait for
ever, also one whose nodes were lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from sentinode.distributed.scaling import ScalingSettings
from sentinode.errors import ConfigError

_ROUNDING = 1e-6
LOOK_EVERY_S = 5.0
ROOM_PATIENCE_S = 90.0
"""A cluster without room for one trial is given so long to bring nodes back. Less than Ray Train's own patience of four
times a minute, after which it would call the trial failed.
"""

Nodes = Sequence[Mapping[str, float]]
"""The resources of each node that is alive, by Ray's names."""


class RoomWatch:
    """Whether the cluster still has room for one trial of ``scaling``; ``nodes`` tells what it has now."""

    def __init__(
        self, nodes: Callable[[], Nodes], scaling: ScalingSettings, patience_s: float | None = None
    ) -> None:
        self._nodes, self._scaling = nodes, scaling
        self._patience_s = ROOM_PATIENCE_S if patience_s is None else patience_s
        self._looked_s = self._had_room_s = time.monotonic()

    def gone(self) -> str | None:
        """Why there is none, where there has been none for ``patience_s``; looks every LOOK_EVERY_S at most."""
        now = time.monotonic()
        if now - self._looked_s < min(LOOK_EVERY_S, self._patience_s):
            return None
        self._looked_s = now
        try:
            trials_at_a_time(self._nodes(), self._scaling)
        except ConfigError as error:
            return error.found if now - self._had_room_s >= self._patience_s else None
        self._had_room_s = now
        return None


def trials_at_a_time(nodes: Nodes, scaling: ScalingSettings) -> int:
    """Trials of ``scaling`` that fit on ``nodes`` (each node's resources by Ray's names) side by side, at least 1.

    Raises ConfigError where not even one does.
    """
    places = sum(_workers_on(node, scaling.resources) for node in nodes)
    trials = places // scaling.num_workers
    if not trials:
        worker = " and ".join(f"{number:g} {kind}" for kind, number in scaling.resources.items())
        found = "; ".join(
            ", ".join(f"{node.get(kind, 0):g} {kind}" for kind in scaling.resources) for node in nodes
        )
        raise ConfigError(
            f"a trial takes {scaling.num_workers} workers of {worker}, and {len(nodes)} nodes with {found} "
            f"have room for {places}",
            "room for one trial at least",
            "lower scaling.num_workers, scaling.cpus_per_worker or scaling.gpus_per_worker, or add nodes",
        )
    return trials


def _workers_on(node: Mapping[str, float], worker: Mapping[str, float]) -> int:
    return min(int(node.get(kind, 0.0) / number + _ROUNDING) for kind, number in worker.items() if number > 0)
