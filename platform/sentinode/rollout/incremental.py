"""Upgrades in steps (``NewClusterWithIncrementalUpgrade``): KubeRay moves the traffic by a Gateway of its own.
Where no controller serves that, it waits for ever.
"""

from __future__ import annotations

import logging
from typing import Final

from sentinode.errors import ClusterError, RolloutError
from sentinode.rollout.cluster import Cluster, Kind, MissingObjectError, Object

log = logging.getLogger(__name__)
GATEWAY: Final = Kind("gateway.networking.k8s.io", "v1", "Gateway", "gateways")
INCREMENTAL: Final = "NewClusterWithIncrementalUpgrade"


def check_gateway(cluster: Cluster, service: Object) -> None:
    """Raises RolloutError where the upgrade of this RayService would go in steps and nothing serves its Gateway."""
    strategy = service["spec"].get("upgradeStrategy") or {}
    if strategy.get("type") != INCREMENTAL:
        return
    name = f"{service['metadata']['name']}-gateway"
    wanted = (strategy.get("clusterUpgradeOptions") or {}).get("gatewayClassName", "")
    try:
        trouble = _trouble(cluster.read(GATEWAY, name))
    except MissingObjectError:
        trouble = "it is not there: KubeRay makes it where the Gateway API is installed"
    except ClusterError as error:
        # Whoever may not read gateways may roll out all the same.
        log.warning("whether Gateway %s is served cannot be seen: %s", name, error.found)
        return
    if trouble:
        raise RolloutError(
            f"upgrades of this RayService go in steps by Gateway {name}, and {trouble}",
            f"a Gateway of class {wanted}, accepted and programmed by its controller",
            "install such a controller, or apply the RayService with `upgradeStrategy: {type: NewCluster}`",
        )


def _trouble(gateway: Object) -> str:
    """Why it carries nothing; empty where it does. KubeRay asks the same (``IsGatewayReady``)."""
    found = {one["type"]: one for one in (gateway.get("status") or {}).get("conditions") or ()}
    for kind in ("Accepted", "Programmed"):
        condition = found.get(kind, {})
        if condition.get("status") != "True":
            why = condition.get("message") or condition.get("reason") or "no controller has looked at it"
            return f"it is not {kind.lower()}: {why}"
    return ""
