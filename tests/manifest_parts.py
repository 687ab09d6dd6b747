"""The manifests as kustomize builds them, for the tests of k8s/."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
OVERLAYS = ("local", "gpu", "production")
BUILDS = tuple(f"overlays/{name}{part}" for name in OVERLAYS for part in ("", "/jobs"))
CUSTOM_RAY = ("RayCluster", "RayJob", "RayService")

Manifest = dict[str, Any]


@cache
def built(folder: str) -> tuple[Manifest, ...]:
    """Everything that ``k8s/<folder>`` builds. Skips, visibly, where neither kubectl nor kustomize is installed."""
    return built_at(ROOT / "k8s" / folder)


def built_at(folder: Path) -> tuple[Manifest, ...]:
    if shutil.which("kubectl"):
        command = ["kubectl", "kustomize", str(folder)]
    elif shutil.which("kustomize"):
        command = ["kustomize", "build", str(folder)]
    else:
        pytest.skip("neither kubectl nor kustomize is installed")
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return tuple(yaml.safe_load_all(result.stdout))


def name(manifest: Manifest) -> str:
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


def of_kind(folder: str, *kinds: str) -> list[Manifest]:
    return [manifest for manifest in built(folder) if manifest["kind"] in kinds]


def rights(folder: str, *resources: str) -> set[tuple[str, str, str]]:
    """(API group, resource, verb) of what the Role for these resources allows."""
    (role,) = of_kind(folder, "Role")
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if resource in resources
    }


def ray_clusters(folder: str) -> Iterator[tuple[str, Manifest]]:
    """(name, RayClusterSpec) of each Ray object."""
    places = {"RayCluster": "", "RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
    for manifest in of_kind(folder, *CUSTOM_RAY):
        place = places[manifest["kind"]]
        yield name(manifest), manifest["spec"][place] if place else manifest["spec"]


def pod_templates(folder: str) -> Iterator[tuple[str, Manifest]]:
    """(name, pod template) of whatever runs."""
    for label, spec in ray_clusters(folder):
        yield f"{label}/head", spec["headGroupSpec"]["template"]
        for group in spec["workerGroupSpecs"]:
            yield f"{label}/{group['groupName']}", group["template"]
    for manifest in of_kind(folder, "RayJob"):
        yield f"{name(manifest)}/submitter", manifest["spec"]["submitterPodTemplate"]
    for manifest in of_kind(folder, "Deployment", "StatefulSet"):
        yield name(manifest), manifest["spec"]["template"]
