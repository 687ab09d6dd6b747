"""What the status of a RayService means for a rollout: a pure function, as rules in their order.

The statuses are those of KubeRay 1.7 (``rayservice_types.go``, ``rayservice_controller.go``) and of Ray
Serve's applications. Two of their habits matter here. A change of ``serveConfigV2`` alone is applied to the
active cluster, whose application may still be shown RUNNING from before; so RUNNING says that nothing is
broken, and the endpoint itself is asked what it serves. And a new cluster is expected by name: until the
active cluster has another one, the old one answers.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field

from sentinode.config import Frozen
from sentinode.rollout.status import ApplicationStatus, ClusterStatus, ServiceStatus


class Patience(Frozen):
    """How long a step may take, in seconds."""

    step_s: float = Field(default=1800.0, gt=0.0)
    """Until a change is in force; a new cluster must start its nodes and pull its image in this time."""
    operator_s: float = Field(default=120.0, gt=0.0)
    """Until KubeRay has looked at a change at all."""
    unhealthy_s: float = Field(default=60.0, ge=0.0)
    """How long an application may be UNHEALTHY before it counts."""


@dataclass(frozen=True)
class Moment:
    """What the rollout knows besides the status."""

    generation: int
    """Of the object as the rollout left it."""
    waited_s: float = 0.0
    """Since the change was made."""
    unhealthy_s: float = 0.0
    """For how long an application has been UNHEALTHY."""
    leaves: str | None = None
    """Name of the RayCluster that a new one must replace; None for a change in place."""


@dataclass(frozen=True)
class Promote:
    """The change is in force and healthy."""

    reason: str


@dataclass(frozen=True)
class Wait:
    """Nothing to be done yet."""

    reason: str


@dataclass(frozen=True)
class RollBack:
    """The change failed."""

    reason: str


Decision = Promote | Wait | RollBack


def decide(status: ServiceStatus, moment: Moment, patience: Patience) -> Decision:
    """What to do at this moment. Pure: the same arguments give the same answer."""
    decision = _look(status, moment, patience)
    if isinstance(decision, Wait) and moment.waited_s > patience.step_s:
        return RollBack(f"not in force after {patience.step_s:g} s: {decision.reason}")
    return decision


def _look(status: ServiceStatus, moment: Moment, patience: Patience) -> Decision:
    ready = status.condition("Ready")
    if ready.status == "False" and ready.reason == "ValidationFailed":
        return RollBack(f"KubeRay refuses the RayService: {ready.message}")
    if ready.status == "False" and ready.reason == "InitializingTimeout":
        return RollBack(f"KubeRay gave up: {ready.message}; it stays so until the RayService is made anew")
    if status.is_true("Suspending") or status.is_true("Suspended"):
        return RollBack("the RayService is suspended")
    if status.observed_generation < moment.generation:
        if moment.waited_s > patience.operator_s:
            return RollBack(
                f"KubeRay has not looked at the change for {moment.waited_s:.0f} s: does its operator run?"
            )
        return Wait("KubeRay has not seen the change yet")
    if status.is_true("RollbackInProgress"):
        return RollBack("KubeRay takes the upgrade back: the specification is the old one again")
    if status.pending.ray_cluster_name:
        return _upgrading(status, moment, patience)
    if moment.leaves is not None and status.active.ray_cluster_name in ("", moment.leaves):
        return Wait(f"KubeRay has not prepared a cluster beside {moment.leaves or 'none'}")
    return _serving(status, moment, patience)


def _upgrading(status: ServiceStatus, moment: Moment, patience: Patience) -> Decision:
    failure = _failure(status.pending, moment, patience)
    if failure is not None:
        return failure
    name, routed = status.pending.ray_cluster_name, status.pending.traffic_routed_percent
    if moment.leaves is None and status.active.ray_cluster_name:
        return Wait(f"another upgrade is under way: cluster {name} is to take over")
    if routed is not None:
        return Wait(
            f"cluster {name} answers {routed} % of the requests, at {status.pending.target_capacity or 0} % of its size"
        )
    starting = _starting(status.pending)
    return Wait(f"cluster {name} starts" + (f": {starting}" if starting else ""))


def _serving(status: ServiceStatus, moment: Moment, patience: Patience) -> Decision:
    failure = _failure(status.active, moment, patience)
    if failure is not None:
        return failure
    starting = _starting(status.active)
    if starting or not status.active.application_statuses:
        return Wait(starting or "Ray Serve has no application yet")
    ready = status.condition("Ready")
    if ready.status != "True":
        return Wait(f"not ready ({ready.reason or 'no condition'}): {ready.message or 'no endpoint'}")
    return Promote(f"cluster {status.active.ray_cluster_name} serves at {status.num_serve_endpoints} nodes")


def _failure(cluster: ClusterStatus, moment: Moment, patience: Patience) -> Decision | None:
    for name, application in cluster.application_statuses.items():
        if application.status == "DEPLOY_FAILED":
            return RollBack(application.words(name))
    for name, application in cluster.application_statuses.items():
        if is_unhealthy(application):
            if moment.unhealthy_s >= patience.unhealthy_s:
                return RollBack(f"{application.words(name)} (for {moment.unhealthy_s:.0f} s)")
            return Wait(application.words(name))
    return None


def _starting(cluster: ClusterStatus) -> str:
    """What is not up yet, in words; empty where all is."""
    for name, application in cluster.application_statuses.items():
        updating = any(d.status != "HEALTHY" for d in application.serve_deployment_statuses.values())
        if application.status != "RUNNING" or updating:
            return application.words(name)
    return ""


def is_unhealthy(application: ApplicationStatus) -> bool:
    """Whether the application or one of its deployments is UNHEALTHY."""
    return "UNHEALTHY" in (
        application.status,
        *(deployment.status for deployment in application.serve_deployment_statuses.values()),
    )
