"""A rollout ended without a change: what stands in the RayService is somebody else's by now, and stays."""

from __future__ import annotations

import copy
import uuid

from sentinode.rollout.change import change
from sentinode.rollout.cluster import RAY_SERVICE, Cluster
from sentinode.rollout.lease import HeldLease
from sentinode.rollout.record import RolloutRecord, finish, under_way


def forget(cluster: Cluster, name: str, by: str, reason: str, lease_s: int = 30) -> RolloutRecord:
    """Move the rollout of RayService ``name`` from its memory to the history, as given up; nothing else changes.

    Raises ConfigError where none is under way, RolloutBusyError where it is alive.
    """
    lease = HeldLease(
        cluster, f"sentinode-rollout-{name}", f"{by or 'somebody'} ({uuid.uuid4().hex[:8]})", lease_s
    )
    with lease:
        service = cluster.read(RAY_SERVICE, name)
        record = under_way(service)
        changed = copy.deepcopy(service)
        finish(changed, record.model_copy(update={"reason": reason[:2000]}), "given up")
        lease.check()
        change(cluster, service, changed)
    return record
