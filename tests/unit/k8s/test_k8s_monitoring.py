"""What would page when the endpoint is gone, and whether Prometheus gets what the rules ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import manifest_parts as manifests
import pytest
import yaml

PLATFORM = "overlays/production"


@pytest.fixture(scope="module")
def rules() -> dict[str, dict[str, Any]]:
    (found,) = manifests.of_kind(PLATFORM, "PrometheusRule")
    return {rule["alert"]: rule for group in found["spec"]["groups"] for rule in group["rules"]}


def monitor(name: str) -> dict[str, Any]:
    (found,) = [m for m in manifests.of_kind(PLATFORM, "PodMonitor") if m["metadata"]["name"] == name]
    spec: dict[str, Any] = found["spec"]
    return spec


def label(name: str) -> str:
    """As the Prometheus operator writes a pod's label."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", name)


def test_replicas_are_counted_and_not_pods(rules: dict[str, dict[str, Any]]) -> None:
    """``up`` of Ray's port is 1 while Serve has no replica at all; the head counts them, and its absence pages too."""
    expression = rules["EndpointDown"]["expr"]
    assert "up{" not in expression
    counted = 'ray_serve_deployment_replica_healthy{app_kubernetes_io_component="endpoint"}'
    assert f"sum({counted}) < 1" in expression
    assert f"absent({counted})" in expression


def test_errors_are_counted_where_there_may_be_no_replica(rules: dict[str, dict[str, Any]]) -> None:
    """HAProxy counts nothing, so that Ray's counters come from replicas alone."""
    for _, template in manifests.pod_templates(PLATFORM):
        for variable in template["spec"]["containers"][0]["env"]:
            assert variable != {"name": "RAY_SERVE_HAPROXY_METRICS_ENABLED", "value": "1"}
    expression = rules["EndpointErrorBudgetBurnsFast"]["expr"]
    assert set(re.findall(r"rate\((\w+)", expression)) == {"envoy_http_downstream_rq_xx"}
    assert expression.count('envoy_response_code_class="5"') == 2


def test_the_gateways_proxies_are_read(rules: dict[str, dict[str, Any]]) -> None:
    spec, (gateway,) = monitor("gateway"), manifests.of_kind(PLATFORM, "Gateway")
    ours = "gateway.envoyproxy.io/owning-gateway-name"
    assert spec["namespaceSelector"] == {"matchNames": ["envoy-gateway-system"]}
    assert spec["selector"]["matchLabels"][ours] == gateway["metadata"]["name"]
    assert spec["podTargetLabels"] == [ours]
    for name in ("EndpointErrorBudgetBurnsFast", "EndpointGatewayDown"):
        asked = re.findall(rf'{label(ours)}="(\w+)"', rules[name]["expr"])
        assert set(asked) == {gateway["metadata"]["name"]}


def test_of_replicas_only_what_is_true_of_each_is_read(
    repository: Path, rules: dict[str, dict[str, Any]]
) -> None:
    spec = monitor("verdicts")
    (endpoint,) = spec["podMetricsEndpoints"]
    ports = {
        (port["name"], port["containerPort"])
        for name, template in manifests.pod_templates(PLATFORM)
        if name == "RayService/sentinode/cpu"
        for port in template["spec"]["containers"][0]["ports"]
    }
    assert (endpoint["port"], 8000) in ports
    (kept,) = endpoint["metricRelabelings"]
    secret = endpoint["authorization"]["credentials"]
    (external,) = [
        m for m in manifests.of_kind(PLATFORM, "ExternalSecret") if m["metadata"]["name"] == secret["name"]
    ]
    assert [one["secretKey"] for one in external["spec"]["data"]] == [secret["key"]]
    elsewhere = yaml.safe_load((repository / "infra" / "dashboards" / "alerts.yaml").read_text())["groups"]
    theirs = {rule["alert"]: rule for group in elsewhere for rule in group["rules"]}
    ours = {name: rule for name, rule in rules.items() if name.startswith("Sentinode")}
    assert len(ours) == 3
    for name, rule in ours.items():
        assert re.sub(r"max_over_time\((\w+)\[10m\]\)", r"\1", rule["expr"]) == theirs[name]["expr"]
        assert rule["for"] == theirs[name]["for"]
        (metric,) = re.findall(r"sentinode_\w+", rule["expr"])
        assert re.fullmatch(kept["regex"], metric), "else it is thrown away when it is read"
        assert not metric.endswith(("_total", "_bucket"))


def test_prometheus_takes_monitors_and_rules_of_other_releases(repository: Path) -> None:
    text = (repository / "docs" / "kubernetes.md").read_text()
    for kind in {m["kind"] for m in manifests.built(PLATFORM)} & {
        "ServiceMonitor",
        "PodMonitor",
        "PrometheusRule",
    }:
        name = {"ServiceMonitor": "serviceMonitor", "PodMonitor": "podMonitor", "PrometheusRule": "rule"}[
            kind
        ]
        assert f"prometheusSpec.{name}SelectorNilUsesHelmValues=false" in text, kind
