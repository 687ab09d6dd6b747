"""The RayJob of `sentinode submit --kubernetes`: the same as the manifests', quoted for the shell that reads it."""

from __future__ import annotations

import shlex
import subprocess

import manifest_parts as manifests
import pytest

from sentinode.errors import ClusterError, ConfigError
from sentinode.rollout.job import entrypoint, ray_job
from sentinode.rollout.job_settings import JobSettings

HOSTILE = (
    "it's",
    "two words",
    "",
    "$(id)",
    "`id`",
    "a;b",
    "$HOME",
    "${HOME}",
    "${SENTINODE_X",
    "$$",
    '"',
    "\\",
    "-x=*",
    "a\nb",
    "é",
)


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_it_is_the_job_of_the_manifests(overlay: str) -> None:
    """What kustomize makes of the overlay's jobs is what comes of its RayCluster."""
    (cluster,) = manifests.of_kind(f"overlays/{overlay}", "RayCluster")
    (wanted,) = [m for m in manifests.of_kind(f"overlays/{overlay}/jobs", "RayJob")
                 if m["metadata"]["name"] == "train"]  # fmt: skip
    ttl_s = wanted["spec"]["ttlSecondsAfterFinished"]
    assert ttl_s == (20 if overlay == "local" else JobSettings().ttl_s)
    job = ray_job("train", "train", [], cluster, JobSettings(ttl_s=ttl_s))
    assert job["spec"] == {**wanted["spec"], "entrypoint": "sentinode train"}
    assert job["metadata"]["labels"]["app.kubernetes.io/name"] == "train"


def test_what_the_autoscaler_wrote_is_not_copied() -> None:
    (cluster,) = manifests.of_kind("overlays/gpu", "RayCluster")
    first = cluster["spec"]["workerGroupSpecs"][0]
    standing = {**cluster, "spec": {**cluster["spec"], "suspend": True, "workerGroupSpecs": [
        {**first, "replicas": 7, "scaleStrategy": {"workersToDelete": ["x"]}}, *cluster["spec"]["workerGroupSpecs"][1:],
    ]}}  # fmt: skip
    asked = JobSettings(group="gpu-spot", workers=4)
    assert ray_job("a", "tune", [], standing, asked) == ray_job("a", "tune", [], cluster, asked)
    groups = {
        g["groupName"]: g
        for g in ray_job("a", "tune", [], standing, asked)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    }
    assert (groups["cpu"]["minReplicas"], groups["gpu-spot"]["minReplicas"]) == (0, 4)


def test_each_image_is_the_one_asked_for() -> None:
    (cluster,) = manifests.of_kind("overlays/production", "RayCluster")
    image = f"registry.example/train@sha256:{'1' * 64}"
    spec = ray_job("a", "train", [], cluster, JobSettings(image=image))["spec"]
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    pods = [spec["submitterPodTemplate"], *(group["template"] for group in groups)]
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {image}


def test_what_kuberay_would_refuse_is_told() -> None:
    (cluster,) = manifests.of_kind("overlays/local", "RayCluster")
    for name in ("Train", "1st", "a_b", "a" * 48, "a-"):
        with pytest.raises(ConfigError, match="no name of a RayJob"):
            ray_job(name, "train", [], cluster, JobSettings())
    with pytest.raises(ConfigError, match="no group 'gpu'"):
        ray_job("a", "train", [], cluster, JobSettings(group="gpu"))
    with pytest.raises(ConfigError, match="9 workers"):
        ray_job("a", "train", [], cluster, JobSettings(workers=9))
    with pytest.raises(ConfigError, match="not named by its digest"):
        ray_job("a", "train", [], cluster, JobSettings(image="train:latest"))
    with pytest.raises(ClusterError, match="lacks a part"):
        ray_job("a", "train", [], {"spec": {"headGroupSpec": {}, "workerGroupSpecs": []}}, JobSettings())


def test_only_settings_are_expanded() -> None:
    """By a real shell, after the kubelet has made one dollar of two."""
    words = [
        *HOSTILE,
        "$SENTINODE_DATA/it's $SENTINODE_DATA",
        "--url=$SENTINODE_RUNS/a",
        "${SENTINODE_DATA}x",
    ]
    text = entrypoint("train", words).replace("$$", "$").removeprefix("sentinode train ")
    environment = {
        "SENTINODE_DATA": "s3://b/my data",
        "SENTINODE_RUNS": "s3://b/runs",
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        ["bash", "-ce", f"printf '%s\\0' {text}"], capture_output=True, env=environment, check=True
    )
    found = done.stdout.decode().split("\0")[:-1]
    assert found[: len(HOSTILE)] == list(HOSTILE)
    assert found[len(HOSTILE) :] == [
        "s3://b/my data/it's s3://b/my data",
        "--url=s3://b/runs/a",
        "s3://b/my datax",
    ]
    assert shlex.split(entrypoint("train", ["--train.epochs", "3"])) == [
        "sentinode",
        "train",
        "--train.epochs",
        "3",
    ]
