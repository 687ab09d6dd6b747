"""decide() over the shapes of a RayService's status that KubeRay 1.7 writes."""

from __future__ import annotations

from typing import Any

import pytest

from sentinode.errors import ClusterError
from sentinode.rollout.decide import Decision, Moment, Patience, Promote, RollBack, Wait, decide
from sentinode.rollout.status import ServiceStatus

PATIENCE = Patience(step_s=600, operator_s=60, unhealthy_s=30)


def condition(kind: str, status: str, reason: str, message: str = "words") -> dict[str, str]:
    stamp = "2026-11-26T18:00:00Z"
    return {
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": stamp,
    }  # fmt: skip


READY = condition("Ready", "True", "NonZeroServeEndpoints")
QUIET = condition("UpgradeInProgress", "False", "NoPendingCluster")
BOTH = condition("UpgradeInProgress", "True", "BothActivePendingClustersExist")


def app(status: str, message: str = "", **deployments: str) -> dict[str, Any]:
    return {
        "sentinode": {
            "status": status,
            "message": message,
            "serveDeploymentStatuses": {name: {"status": word} for name, word in deployments.items()},
        }
    }


def cluster(name: str, apps: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"rayClusterName": name, "rayClusterStatus": {"desiredCPU": "0"}, **more}
    return found if apps is None else {**found, "applicationStatuses": apps}


def status(*conditions: dict[str, str], seen: int = 2, **more: Any) -> ServiceStatus:
    return ServiceStatus.of(
        {
            "status": {
                "observedGeneration": seen,
                "conditions": list(conditions),
                "numServeEndpoints": 1,
                **more,
            }
        }
    )


GOOD = app("RUNNING", predict="HEALTHY")
SERVING = status(READY, QUIET, activeServiceStatus=cluster("a", GOOD))
HERE, NEW = Moment(2), Moment(2, leaves="a")

CASES: dict[str, tuple[ServiceStatus, Moment, type[Decision], str]] = {
    "in place, all healthy": (SERVING, HERE, Promote, "cluster a serves"),
    "operator has not looked": (status(READY, QUIET, seen=1), HERE, Wait, "not seen"),
    "operator is gone": (status(READY, QUIET, seen=1), Moment(2, waited_s=61), RollBack, "operator run"),
    "no status at all": (ServiceStatus.of({}), HERE, Wait, "not seen"),
    "no status, generation of the first": (ServiceStatus.of({}), Moment(0), Wait, "no application"),
    "deploying": (
        status(READY, QUIET, activeServiceStatus=cluster("a", app("DEPLOYING", predict="UPDATING"))),
        HERE, Wait, "is DEPLOYING",
    ),
    "running but a deployment is updating": (
        status(READY, QUIET, activeServiceStatus=cluster("a", app("RUNNING", predict="UPDATING"))),
        HERE, Wait, "predict is UPDATING",
    ),
    "not started": (
        status(READY, QUIET, activeServiceStatus=cluster("a", app("NOT_STARTED"))), HERE, Wait, "NOT_STARTED",
    ),
    "deleting": (status(READY, QUIET, activeServiceStatus=cluster("a", app("DELETING"))), HERE, Wait, "DELETING"),
    "a status of a later Ray": (
        status(READY, QUIET, activeServiceStatus=cluster("a", app("DREAMING"))), HERE, Wait, "DREAMING",
    ),
    "no application": (status(READY, QUIET, activeServiceStatus=cluster("a")), HERE, Wait, "no application"),
    "deploy failed": (
        status(READY, QUIET, activeServiceStatus=cluster("a", app("DEPLOY_FAILED", "golden patch 3"))),
        HERE, RollBack, "golden patch 3",
    ),
    "one of two applications failed": (
        status(READY, QUIET, activeServiceStatus=cluster("a", {**GOOD, "other": {"status": "DEPLOY_FAILED"}})),
        HERE, RollBack, "application other",
    ),
    "unhealthy for a moment": (
        status(READY, QUIET, activeServiceStatus=cluster("a", app("UNHEALTHY", predict="UNHEALTHY"))),
        Moment(2, unhealthy_s=5), Wait, "UNHEALTHY",
    ),
    "unhealthy for long": (
        status(READY, QUIET, activeServiceStatus=cluster("a", app("UNHEALTHY", predict="UNHEALTHY"))),
        Moment(2, unhealthy_s=31), RollBack, "for 31 s",
    ),
    "a deployment unhealthy for long": (
        status(READY, QUIET, activeServiceStatus=cluster("a", app("DEPLOYING", predict="UNHEALTHY"))),
        Moment(2, unhealthy_s=31), RollBack, "predict is UNHEALTHY",
    ),
    "endpoints gone": (
        status(condition("Ready", "False", "ZeroServeEndpoints"), QUIET, activeServiceStatus=cluster("a", GOOD)),
        HERE, Wait, "ZeroServeEndpoints",
    ),
    "no condition": (status(activeServiceStatus=cluster("a", GOOD)), HERE, Wait, "no condition"),
    "refused by the operator": (
        status(condition("Ready", "False", "ValidationFailed", "bad surge"), seen=1),
        HERE, RollBack, "bad surge",
    ),
    "initializing timed out": (
        status(condition("Ready", "False", "InitializingTimeout", "30m")), HERE, RollBack, "made anew",
    ),
    "initializing": (status(condition("Ready", "False", "Initializing"), QUIET), HERE, Wait, "no application"),
    "suspended": (status(condition("Suspended", "True", "SuspendComplete")), HERE, RollBack, "suspended"),
    "suspending": (status(condition("Suspending", "True", "SuspendInProgress")), HERE, RollBack, "suspended"),
    "new cluster not prepared": (SERVING, NEW, Wait, "not prepared"),
    "new cluster starts": (
        status(READY, BOTH, activeServiceStatus=cluster("a"), pendingServiceStatus=cluster("b")),
        NEW, Wait, "cluster b starts",
    ),
    "new cluster deploys": (
        status(READY, BOTH, activeServiceStatus=cluster("a"), pendingServiceStatus=cluster("b", app("DEPLOYING"))),
        NEW, Wait, "is DEPLOYING",
    ),
    "new cluster failed": (
        status(READY, BOTH, activeServiceStatus=cluster("a"),
               pendingServiceStatus=cluster("b", app("DEPLOY_FAILED", "no such image"))),
        NEW, RollBack, "no such image",
    ),
    "new cluster unhealthy": (
        status(READY, BOTH, activeServiceStatus=cluster("a"), pendingServiceStatus=cluster("b", app("UNHEALTHY"))),
        Moment(2, leaves="a", unhealthy_s=40), RollBack, "UNHEALTHY",
    ),
    "new cluster ready, not switched": (
        status(READY, BOTH, activeServiceStatus=cluster("a"), pendingServiceStatus=cluster("b", GOOD)),
        NEW, Wait, "cluster b starts",
    ),
    "new cluster took over": (status(READY, QUIET, activeServiceStatus=cluster("b", GOOD)), NEW, Promote, "b serves"),
    "new cluster took over, still deploying": (
        status(READY, QUIET, activeServiceStatus=cluster("b", app("DEPLOYING"))), NEW, Wait, "DEPLOYING",
    ),
    "upgrade is stuck": (
        status(READY, BOTH, activeServiceStatus=cluster("a"), pendingServiceStatus=cluster("b")),
        Moment(2, leaves="a", waited_s=601), RollBack, "not in force after 600 s: cluster b starts",
    ),
    "incremental, on its way": (
        status(READY, BOTH,
               activeServiceStatus=cluster("a", GOOD, targetCapacity=80, trafficRoutedPercent=75),
               pendingServiceStatus=cluster("b", GOOD, targetCapacity=40, trafficRoutedPercent=25)),
        NEW, Wait, "answers 25 % of the requests, at 40 %",
    ),
    "incremental, the new one fails under traffic": (
        status(READY, BOTH,
               activeServiceStatus=cluster("a", GOOD, targetCapacity=80, trafficRoutedPercent=75),
               pendingServiceStatus=cluster("b", app("DEPLOY_FAILED", "out of memory"), trafficRoutedPercent=25)),
        NEW, RollBack, "out of memory",
    ),
    "incremental, taken back by KubeRay": (
        status(READY, BOTH, condition("RollbackInProgress", "True", "DesiredClusterSpecChanged"),
               activeServiceStatus=cluster("a", GOOD), pendingServiceStatus=cluster("b", GOOD)),
        NEW, RollBack, "old one again",
    ),
    "somebody else upgrades": (
        status(READY, BOTH, activeServiceStatus=cluster("a"), pendingServiceStatus=cluster("c")),
        HERE, Wait, "another upgrade",
    ),
    "first start of a service": (
        status(condition("Ready", "False", "Initializing"), pendingServiceStatus=cluster("a", app("DEPLOYING"))),
        HERE, Wait, "cluster a starts",
    ),
    "nulls instead of absence": (
        ServiceStatus.of({"status": {"observedGeneration": 2, "conditions": [READY], "pendingServiceStatus": None,
                                     "activeServiceStatus": cluster("a", GOOD, targetCapacity=None)}}),
        HERE, Promote, "serves",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_table(case: str) -> None:
    found_status, moment, kind, words = CASES[case]
    decision = decide(found_status, moment, PATIENCE)
    assert type(decision) is kind, decision
    assert words in decision.reason


@pytest.mark.parametrize("case", [name for name, row in CASES.items() if row[2] is Wait])
def test_no_wait_is_endless(case: str) -> None:
    found_status, moment, _, _ = CASES[case]
    late = Moment(moment.generation, waited_s=601, unhealthy_s=moment.unhealthy_s, leaves=moment.leaves)
    assert isinstance(decide(found_status, late, PATIENCE), RollBack)


def test_a_status_of_another_shape_is_told() -> None:
    with pytest.raises(ClusterError, match="observedGeneration"):
        ServiceStatus.of({"status": {"observedGeneration": "many"}})
