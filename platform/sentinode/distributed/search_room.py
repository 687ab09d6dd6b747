"""How many trials a cluster has room for. Asked before a search: one that can never fit would wait for ever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentinode.distributed.trainer import ScalingSettings
from sentinode.errors import ConfigError

_ROUNDING = 1e-6


def trials_at_a_time(nodes: Sequence[Mapping[str, float]], scaling: ScalingSettings) -> int:
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
