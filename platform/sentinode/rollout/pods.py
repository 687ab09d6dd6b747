"""Why pods do not start, in words: KubeRay's status says only that a cluster is not ready yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from sentinode.errors import ClusterError
from sentinode.rollout.cluster import Cluster, Object
from sentinode.rollout.decide import Decision, RollBack, Wait
from sentinode.rollout.status import ServiceStatus

_USUAL: Final = ("", "ContainerCreating", "PodInitializing")


def explained(decision: Decision, status: ServiceStatus, cluster: Cluster) -> Decision:
    """``decision``, with what ails a pod of the RayCluster that is to take over, where something does."""
    ray_cluster = status.pending.ray_cluster_name
    if not ray_cluster or not isinstance(decision, Wait | RollBack):
        return decision
    try:
        told = trouble(cluster.pods(f"ray.io/cluster={ray_cluster}"))
    except ClusterError:
        # An explanation less; whoever may not list pods may roll out all the same.
        return decision
    return replace(decision, reason=f"{decision.reason}; {told}") if told else decision


def trouble(pods: Iterable[Object]) -> str:
    """What ails the first pod that cannot start, in a line; empty where all run, or are on their way."""
    return next((told for pod in pods for told in _ails(pod)), "")


def _ails(pod: Object) -> Iterator[str]:
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"no node takes pod {name}: {_short(condition)}"
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            waiting = container["state"].get("waiting") or {}
            if waiting.get("reason", "") not in _USUAL:
                yield f"pod {name}, container {container['name']}: {waiting['reason']}: {_short(waiting)}"


def _short(told: Object) -> str:
    return " ".join(str(told.get("message", "")).split())[:300]
