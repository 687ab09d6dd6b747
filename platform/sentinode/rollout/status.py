"""The status of a RayService (KubeRay 1.7, ``ray.io/v1``), as far as a rollout reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from sentinode.config import summarise
from sentinode.errors import ClusterError


class _Part(BaseModel):
    """Read tolerantly: an operator of another version may say more, or leave things out."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any, info: Any) -> Any:
        return cls.model_fields[info.field_name].default if value is None else value


class DeploymentStatus(_Part):
    """One deployment of Ray Serve: UPDATING, HEALTHY, UNHEALTHY, ..."""

    status: str = ""
    message: str = ""


class ApplicationStatus(_Part):
    """One application of Ray Serve: NOT_STARTED, DEPLOYING, RUNNING, DEPLOY_FAILED, DELETING, UNHEALTHY."""

    status: str = ""
    message: str = ""
    serve_deployment_statuses: dict[str, DeploymentStatus] = {}

    def words(self, name: str) -> str:
        """The application and what ails it, in a line."""
        parts = [f"application {name} is {self.status or 'without status'}", self.message]
        parts += [
            f"{deployment} is {found.status}: {found.message}".rstrip(": ")
            for deployment, found in self.serve_deployment_statuses.items()
            if found.status != "HEALTHY"
        ]
        return "; ".join(" ".join(part.split())[:400] for part in parts if part)


class ClusterStatus(_Part):
    """One of the two RayClusters of a RayService; without a name there is none."""

    ray_cluster_name: str = ""
    application_statuses: dict[str, ApplicationStatus] = {}
    target_capacity: int | None = None
    """Percent of the replicas, during an incremental upgrade."""
    traffic_routed_percent: int | None = None
    """Percent of the requests, during an incremental upgrade."""


class Condition(_Part):
    """A condition as Kubernetes writes them."""

    type: str = ""
    status: str = "Unknown"
    reason: str = ""
    message: str = ""


NO_CONDITION = Condition()


class ServiceStatus(_Part):
    """``status`` of a RayService."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    active_service_status: ClusterStatus = ClusterStatus()
    pending_service_status: ClusterStatus = ClusterStatus()
    num_serve_endpoints: int = 0

    @classmethod
    def of(cls, service: Mapping[str, Any]) -> ServiceStatus:
        """Of an object as the API server gives it. Raises ClusterError where its status has another shape."""
        try:
            return cls.model_validate(service.get("status") or {})
        except ValidationError as error:
            raise ClusterError(
                f"the status of the RayService cannot be read: {summarise(error)}",
                "ray.io/v1 as KubeRay 1.7 writes it",
            ) from error

    @property
    def active(self) -> ClusterStatus:
        """The RayCluster that answers."""
        return self.active_service_status

    @property
    def pending(self) -> ClusterStatus:
        """The RayCluster that is to take over."""
        return self.pending_service_status

    def condition(self, kind: str) -> Condition:
        """The condition of this type; an unknown one where the operator set none."""
        return next((found for found in self.conditions if found.type == kind), NO_CONDITION)

    def is_true(self, kind: str) -> bool:
        """Whether the condition is set and ``True``."""
        return self.condition(kind).status == "True"
