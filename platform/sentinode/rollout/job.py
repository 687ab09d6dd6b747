"""A step as a RayJob (KubeRay 1.7). Its cluster is a copy of one that stands: images, accounts, limits and security
are said in one place, the overlay's RayCluster.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Sequence
from typing import Any, Final

from sentinode.errors import ClusterError, ConfigError
from sentinode.rollout.cluster import RAY_JOB, Object
from sentinode.rollout.job_settings import JobSettings
from sentinode.rollout.serve_config import check_image

NAME_LENGTH: Final = 47
"""Longest name of a RayJob that KubeRay takes."""
_OURS: Final = re.compile(r"(\$SENTINODE_[A-Z]+|\$\{SENTINODE_[A-Z]+\})")
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def ray_job(name: str, step: str, arguments: Sequence[str], cluster: Object, settings: JobSettings) -> Object:
    """The RayJob ``name`` that runs ``sentinode step arguments``; ``cluster`` is the RayCluster to copy. Pure.

    Raises ConfigError for a name that KubeRay refuses, an image without digest, or an unknown group; ClusterError where
    the RayCluster is none of ours.
    """
    if not _NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise ConfigError(
            f"{name!r} is no name of a RayJob", f"a-z, 0-9 and -, at most {NAME_LENGTH} characters"
        )
    spec = _own_cluster(cluster, settings)
    return {
        "apiVersion": RAY_JOB.api_version,
        "kind": RAY_JOB.kind,
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": step, "app.kubernetes.io/part-of": "sentinode"},
        },
        "spec": {
            "entrypoint": entrypoint(step, arguments),
            "submissionMode": "K8sJobMode",
            "backoffLimit": settings.retries,
            "activeDeadlineSeconds": settings.deadline_s,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": settings.ttl_s,
            "submitterConfig": {"backoffLimit": 3},
            "submitterPodTemplate": _submitter(spec["headGroupSpec"]["template"]["spec"]),
            "rayClusterSpec": spec,
        },
    }


def entrypoint(step: str, arguments: Sequence[str]) -> str:
    """The command, quoted for the one shell that reads it, the submitter's. ``$SENTINODE_...``, in braces or not, names
    a setting of the cluster and is expanded there; nothing else is, by the shell or by the kubelet, which takes ``$$``
    for a dollar.
    """
    return " ".join(["sentinode", step, *map(_quoted, arguments)])


def _quoted(argument: str) -> str:
    parts = [part for part in _OURS.split(argument) if part]
    if not parts:
        return "''"
    return "".join(
        f'"${{{part.strip("${}")}}}"' if _OURS.fullmatch(part) else shlex.quote(part).replace("$", "$$")
        for part in parts
    )


def _own_cluster(cluster: Object, settings: JobSettings) -> Object:
    spec: Object = copy.deepcopy(cluster["spec"])
    try:
        groups: list[Any] = spec["workerGroupSpecs"]
        pods = [group["template"]["spec"]["containers"] for group in (spec["headGroupSpec"], *groups)]
        for group in groups:
            # What the autoscaler has written into the cluster that stands.
            group["scaleStrategy"] = {}
            group["replicas"] = group["minReplicas"] = 0
        ready = next((g for g in groups if settings.group in (None, g["groupName"])), None)
        if ready is None:
            names = ", ".join(group["groupName"] for group in groups)
            raise ConfigError(
                f"the RayCluster {settings.cluster} has no group {settings.group!r}", f"one of {names}"
            )
        if settings.workers > ready["maxReplicas"]:
            raise ConfigError(
                f"{settings.workers} workers are asked of the group {ready['groupName']}",
                f"at most {ready['maxReplicas']}",
                "lower --job.workers, or raise maxReplicas in the overlay",
            )
        ready["replicas"] = ready["minReplicas"] = settings.workers
        if settings.image is not None:
            for containers in pods:
                containers[0]["image"] = check_image(settings.image)
    except (KeyError, IndexError, TypeError) as error:
        raise ClusterError(
            f"the RayCluster {settings.cluster} lacks a part that jobs need ({error})",
            "one as in k8s/base/cluster",
            "name the right one with --job.cluster",
        ) from error
    spec.pop("suspend", None)
    # A job whose head is lost begins anew and resumes: it keeps nothing outside.
    spec.pop("gcsFaultToleranceOptions", None)
    return spec


def _submitter(head: Object) -> Object:
    """Pod template of what submits the job: the head's image, security and settings, but none of its secrets."""
    container = head["containers"][0]
    settings = [source for source in container.get("envFrom", ()) if "configMapRef" in source]
    return {
        "metadata": {
            "labels": {"app.kubernetes.io/component": "submitter", "app.kubernetes.io/part-of": "sentinode"}
        },
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "submitter",
            "automountServiceAccountToken": False,
            **{key: head[key] for key in ("priorityClassName", "securityContext") if key in head},
            "containers": [
                {
                    "name": "submitter",
                    "image": container["image"],
                    "envFrom": settings,
                    "env": [{"name": "HOME", "value": "/tmp"}],
                    "resources": {
                        "requests": {"cpu": "100m", "memory": "512Mi"},
                        "limits": {"cpu": "1", "memory": "1Gi"},
                    },
                    "securityContext": container.get("securityContext", {}),
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        },
    }
