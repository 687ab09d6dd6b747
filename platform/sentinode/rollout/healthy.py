"""Before a rollout: what was done just before, a rollback say, may still settle."""

from __future__ import annotations

import logging
import time
from typing import Final

from sentinode.errors import RolloutError
from sentinode.rollout.cluster import RAY_SERVICE, Cluster, Object
from sentinode.rollout.decide import Moment, Patience, Promote, Wait, decide
from sentinode.rollout.status import ServiceStatus

log = logging.getLogger(__name__)
GLANCE_S: Final = 5.0
"""How long a change is waited for until the RayService is read again."""


def healthy(cluster: Cluster, service: Object, patience: Patience) -> Object:
    """The RayService as soon as it is healthy.

    Raises RolloutError where it is broken, or not healthy after ``patience.operator_s``.
    """
    name, started_s, said = service["metadata"]["name"], time.monotonic(), ""
    while True:
        moment = Moment(service["metadata"]["generation"])
        decision = decide(ServiceStatus.of(service), moment, patience)
        if isinstance(decision, Promote):
            return service
        if not isinstance(decision, Wait) or time.monotonic() - started_s > patience.operator_s:
            raise RolloutError(
                f"the RayService is not healthy before the rollout: {decision.reason}",
                "all applications RUNNING and no upgrade under way",
                "mend it first; docs/rollout.md names the usual causes",
            )
        if decision.reason != said:
            said = decision.reason
            log.info("waiting for a healthy RayService: %s", said)
        cluster.wait_for_change(RAY_SERVICE, service, GLANCE_S)
        service = cluster.read(RAY_SERVICE, name)
