"""What a job on Kubernetes gets; apart from the rest, so that flags are parsed without the client of Kubernetes."""

from __future__ import annotations

from pydantic import Field

from sentinode.config import Frozen


class JobSettings(Frozen):
    """What a job on Kubernetes gets."""

    namespace: str | None = None
    """By default that of the context."""
    context: str | None = None
    """Context of the kubeconfig; by default the current one."""
    cluster: str = "interactive"
    """RayCluster whose specification the job's own cluster is a copy of."""
    image: str | None = None
    """Of all containers, by digest: registry/name@sha256:...; by default that of the cluster."""
    group: str | None = None
    """Group whose workers stand ready from the start; by default the first. The others come as they are needed."""
    workers: int = Field(default=2, ge=0)
    """How many of them."""
    retries: int = Field(default=3, ge=0)
    """How often a failed job is begun anew on a new cluster; the step goes on where it ended."""
    deadline_s: int = Field(default=86400, gt=0)
    """After which it is ended, in seconds."""
    ttl_s: int = Field(default=600, ge=0)
    """How long its cluster stands when it is over, in seconds."""
