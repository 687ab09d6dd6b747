"""``sentinode submit --kubernetes``: the step as a RayJob, made and followed; who stops watching leaves it."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Sequence
from typing import Final

import yaml

from sentinode.errors import ClusterError, ConfigError
from sentinode.rollout.cluster import RAY_CLUSTER, RAY_JOB, Cluster, MissingObjectError, Object
from sentinode.rollout.job import ray_job
from sentinode.rollout.job_follow import follow
from sentinode.rollout.job_settings import JobSettings

log = logging.getLogger(__name__)

STILL_RUNNING: Final = 130
"""Exit code of one who stopped watching."""


def make(
    step: str, arguments: Sequence[str], name: str | None, settings: JobSettings
) -> tuple[Cluster, Object]:
    """The connection, and the RayJob, which does not exist yet."""
    if step == "rollout":
        raise ConfigError(
            "a rollout needs no cluster of Ray", "ingest, train, tune, evaluate, promote or score",
            "run `sentinode rollout` itself; it uses the same kubeconfig",
        )  # fmt: skip
    cluster = Cluster.connect(settings.namespace, settings.context)
    try:
        found = cluster.read(RAY_CLUSTER, settings.cluster)
    except MissingObjectError as error:
        raise ClusterError(
            f"there is no RayCluster {settings.cluster} in the namespace {cluster.namespace}",
            "the interactive cluster, whose specification jobs are given",
            "apply the overlay's platform, or name another by --job.cluster, --job.namespace",
        ) from error
    return cluster, ray_job(name or f"{step}-{uuid.uuid4().hex[:8]}", step, arguments, found, settings)


def show(cluster: Cluster, job: Object) -> int:
    """Print the RayJob as YAML, once the API server has found it good. It keeps nothing."""
    cluster.create(RAY_JOB, job, dry_run=True)
    # Through JSON, or what several containers share would be shown as references.
    sys.stdout.write(yaml.safe_dump(json.loads(json.dumps(job)), sort_keys=False, width=110))
    return 0


def run(cluster: Cluster, job: Object, detach: bool, stop_on_interrupt: bool) -> int:
    """Create the RayJob and follow it: its own exit code, or 130 where one stops watching it."""
    name = job["metadata"]["name"]
    cluster.create(RAY_JOB, job)
    kubectl = f"kubectl -n {cluster.namespace}"
    log.info("job %s: %s", name, job["spec"]["entrypoint"])
    if detach:
        log.info(
            "follow it by: %s logs -f -l job-name=%s; its state: %s get rayjob %s",
            kubectl,
            name,
            kubectl,
            name,
        )
        return 0
    try:
        return follow(cluster, name, _write)
    except KeyboardInterrupt:
        if stop_on_interrupt:
            cluster.delete(RAY_JOB, name)
            log.info("job %s is deleted, its cluster with it; the same command goes on where it stood", name)
        else:
            log.info("job %s goes on; end it by: %s delete rayjob %s", name, kubectl, name)
        return STILL_RUNNING


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
