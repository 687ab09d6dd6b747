"""The gateway, which the endpoint leans on: it is not evicted for the endpoint, and one node takes not all of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import manifest_parts as manifests
import pytest
import yaml

SYSTEM = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
"""Priorities that every Kubernetes has."""


@pytest.fixture
def envoy(repository: Path) -> dict[str, dict[str, Any]]:
    text = (repository / "k8s" / "components" / "gateway" / "envoy.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_the_endpoint_does_not_take_its_gateways_place(envoy: dict[str, dict[str, Any]]) -> None:
    deployment = envoy["EnvoyProxy"]["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    assert deployment["patch"]["type"] == "StrategicMerge"
    pod = deployment["patch"]["value"]["spec"]["template"]["spec"]
    (ours,) = [
        c["value"]
        for c in manifests.of_kind("overlays/production", "PriorityClass")
        if c["metadata"]["name"] == "sentinode-endpoint"
    ]
    assert SYSTEM[pod["priorityClassName"]] > ours
    assert deployment["replicas"] >= 2
    assert envoy["EnvoyProxy"]["spec"]["provider"]["kubernetes"]["envoyPDB"] == {"minAvailable": 1}
    spec = {"containers": [{"name": "envoy", "image": "x"}], **pod, **deployment["pod"]}
    made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(made, "1.34", strict=True)


def test_the_gateway_is_of_that_class(envoy: dict[str, dict[str, Any]]) -> None:
    made, proxy = envoy["GatewayClass"], envoy["EnvoyProxy"]
    (gateway,) = manifests.of_kind("overlays/production", "Gateway")
    assert gateway["spec"]["gatewayClassName"] == made["metadata"]["name"]
    wanted = {"group": proxy["apiVersion"].partition("/")[0], "kind": proxy["kind"], **proxy["metadata"]}
    assert made["spec"]["parametersRef"] == wanted


def test_the_document_applies_it(repository: Path) -> None:
    text = (repository / "docs" / "kubernetes.md").read_text()
    (path,) = re.findall(r"kubectl apply --server-side -f \.\./\.\./(\S+)", text)
    assert (repository / path).is_file()
    (installed,) = re.findall(r"helm install envoy-gateway (?:.*\\\n)*.*", text)
    assert "--set deployment.priorityClassName=system-cluster-critical" in installed
