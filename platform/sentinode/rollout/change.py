"""A RayService changed while its operator writes to it: only what somebody else wants there is a conflict."""

from __future__ import annotations

import logging
from typing import Any, Final

from sentinode.errors import ClusterConflictError
from sentinode.rollout.cluster import RAY_SERVICE, Cluster, Object

log = logging.getLogger(__name__)
_TRIES: Final = 8


def change(cluster: Cluster, seen: Object, wanted: Object) -> None:
    """Put specification and annotations of ``wanted`` in the place of those of ``seen``, which it was made from.

    KubeRay writes the status (and its finalizer) into the same object whenever it likes, and each such write makes a
    new resource version: then the object is read again and, where specification and annotations are still those of
    ``seen``, written on top. Raises ClusterConflictError where they are not, or after eight attempts.
    """
    now = seen
    for attempt in range(_TRIES):
        metadata = {**now["metadata"], "annotations": wanted["metadata"].get("annotations") or {}}
        try:
            cluster.replace(RAY_SERVICE, {**now, "metadata": metadata, "spec": wanted["spec"]})
            return
        except ClusterConflictError:
            now = cluster.read(RAY_SERVICE, seen["metadata"]["name"])
            if _wishes(now) != _wishes(seen) or attempt + 1 == _TRIES:
                raise
            log.info("KubeRay wrote its status meanwhile, writing again")


def _wishes(service: Object) -> tuple[Any, Any, Any]:
    """What people and pipelines say, as opposed to what the operator notes down. Made anew, it is another one."""
    metadata = service["metadata"]
    return metadata.get("uid"), service.get("spec"), metadata.get("annotations") or {}
