"""Groups of nodes that stand at 0 grow, and what grows has what the manifests ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import manifest_parts as manifests
import pytest

TAG = "k8s.io/cluster-autoscaler/node-template/resources/"
KNOWN = {"cpu", "memory", "nvidia.com/gpu", "pods"}
"""What the cluster autoscaler finds out by itself about nodes that do not exist yet."""
CORES = {"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16}


def node_groups(folder: Path, name: str) -> dict[str, dict[str, Any]]:
    """The node groups of ``<name>.tfvars``."""
    found = re.findall(r"(?m)^  ([a-z-]+)\s*= \{ (.*) \}$", (folder / f"{name}.tfvars").read_text())
    assert found
    return {
        group: {
            "cores": {CORES[one] for one in re.findall(r'"[a-z0-9]+\.(\w+)"', text)},
            "disk_gib": int(given[1]) if (given := re.search(r"disk_gib = (\d+)", text)) else 100,
            "gpu": " gpu = true" in text,
            "spot": " spot = true" in text,
        }
        for group, text in found
    }


def asked_for(build: str) -> dict[str, dict[str, str]]:
    """Requests of each container of a pod, the namespace's defaults among them."""
    found = {
        f"{label}/{container['name']}": container["resources"]["requests"]
        for label, template in manifests.pod_templates(build)
        for container in template["spec"]["containers"]
    }
    for limits in manifests.of_kind(build, "LimitRange"):
        found[manifests.name(limits)] = limits["spec"]["limits"][0]["defaultRequest"]
    return found


@pytest.fixture
def folder(repository: Path) -> Path:
    return repository / "infra" / "terraform"


@pytest.mark.parametrize("overlay", ["gpu", "production"])
def test_an_empty_group_is_told_to_have_what_pods_ask_for(folder: Path, overlay: str) -> None:
    asked = {
        resource
        for build in (f"overlays/{overlay}", f"overlays/{overlay}/jobs")
        for requests in asked_for(build).values()
        for resource in requests
    }
    assert "ephemeral-storage" in asked
    groups = (folder / "nodes.tf").read_text().partition('resource "aws_eks_node_group"')[2]
    told = set(re.findall(rf'"{re.escape(TAG)}([a-z.\-/]+)"', groups))
    assert asked - KNOWN <= told, "pods that ask for it wait for ever for the first node of a group"
    # Tags of a managed group, its labels and its taints are not those of its Auto Scaling group: EKS alone tells them.
    assert '"eks:DescribeNodegroup"' in (folder / "identity.tf").read_text()


@pytest.mark.parametrize("name", ["small", "production"])
def test_the_disk_is_enough_for_as_many_workers_as_the_cores(folder: Path, name: str) -> None:
    (share,) = re.findall(r"each\.value\.disk_gib \* (0\.\d+)", (folder / "nodes.tf").read_text())
    (spec,) = [
        spec for label, spec in manifests.ray_clusters("overlays/production") if "interactive" in label
    ]
    workers = {
        group["groupName"]: group["template"]["spec"]["containers"][0]["resources"]["requests"]
        for group in spec["workerGroupSpecs"]
    }
    head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
    for group, node in node_groups(folder, name).items():
        if group == "system":
            continue
        asks = workers["gpu" if node["gpu"] else "cpu"]
        count = 1 if node["gpu"] else max((cores - 1) // int(asks["cpu"]) for cores in node["cores"])
        wanted_gib = count * int(asks["ephemeral-storage"].removesuffix("Gi"))
        wanted_gib += int(head["ephemeral-storage"].removesuffix("Gi"))
        assert wanted_gib <= float(share) * node["disk_gib"], group


def test_what_brings_the_gpus_runs_on_every_node_that_has_one(folder: Path) -> None:
    """Feature discovery and device plugin tolerate each taint of nodes.tf, or GPUs are never advertised."""
    taints = set(re.findall(r'each\.value\.\w+ \? \["([^"]+)"\]', (folder / "nodes.tf").read_text()))
    assert taints == {"nvidia.com/gpu", "sentinode/spot"}
    operators = (folder / "operators.tf").read_text()
    (tolerated,) = re.findall(r"gpu_tolerations\s+= \[for taint in \[(.*?)\]", operators)
    assert set(re.findall(r'"([^"]+)"', tolerated)) == taints
    gpu = operators.partition('resource "helm_release" "gpu"')[2].partition("\nresource ")[0]
    assert re.search(r"daemonsets\s+= \{ tolerations = local\.gpu_tolerations \}", gpu)
    worker = gpu.partition("node-feature-discovery")[2].partition("depends_on")[0]
    assert re.search(r"worker = \{ tolerations = concat\(local\.gpu_tolerations,", worker)


def test_the_way_in_is_made_before_the_operators_and_goes_after_them(folder: Path) -> None:
    """Helm speaks to the cluster by the administrators' rights, also when it removes what it made."""
    releases = re.findall(
        r'(?ms)^resource "helm_release" "(\w+)" \{(.*?)^\}', (folder / "operators.tf").read_text()
    )
    assert len(releases) == 3
    for name, text in releases:
        (needed,) = re.findall(r"depends_on = \[(.*?)\]", text)
        assert "aws_eks_access_policy_association.administrator" in needed, name


def test_network_policies_are_switched_on_in_a_plug_in_that_is_there_already(folder: Path) -> None:
    """EKS gives a new cluster a vpc-cni of its own; taking it over with settings is a conflict unless told."""
    addon = (folder / "cluster.tf").read_text().partition('resource "aws_eks_addon" "network"')[2]
    addon = addon.partition("\n}\n")[0]
    assert re.search(r'enableNetworkPolicy = "true"', addon)
    assert re.search(r'resolve_conflicts_on_create\s+= "OVERWRITE"', addon)
