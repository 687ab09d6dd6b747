"""What no manifest may do: run as root, stand open, go without limits, hold a secret, float on a tag."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import manifest_parts as manifests
import pytest

from sentinode.serving.ingress import REFUSALS, VARIABLES
from sentinode.tracking.mode import tracking_mode

RAY_PORTS = {
    "gcs": 6379, "client": 10001, "dashboard": 8265, "agent": 52365, "metrics": 8080, "serve": 8000, "grpc": 9000,
    "haproxy statistics": 8404, "haproxy metrics": 9101, "replica": 30000, "replica grpc": 40000,
}  # fmt: skip
OPERATOR, GATEWAY, MONITORING = "kuberay-system", "envoy-gateway-system", "monitoring"

each_build = pytest.mark.parametrize("build", manifests.BUILDS)
each_overlay = pytest.mark.parametrize("overlay", manifests.OVERLAYS)


def containers(build: str) -> list[tuple[str, dict[str, Any]]]:
    return [
        (label, container)
        for label, template in manifests.pod_templates(build)
        for container in (*template["spec"]["containers"], *template["spec"].get("initContainers", ()))
    ]


@each_build
def test_pods_fit_the_restricted_standard(build: str) -> None:
    for label, template in manifests.pod_templates(build):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, label
        assert spec["securityContext"]["runAsUser"] > 0, label
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), label
        kinds = {kind for volume in spec.get("volumes", ()) for kind in set(volume) - {"name"}}
        assert kinds <= {"emptyDir", "secret", "configMap", "projected", "persistentVolumeClaim"}, label
    found = containers(build)
    assert found
    locked = [(label, c["securityContext"]) for label, c in found]
    locked += [
        (f"{label}/autoscaler", spec["autoscalerOptions"]["securityContext"])
        for label, spec in manifests.ray_clusters(build)
    ]
    for label, context in locked:
        assert context["allowPrivilegeEscalation"] is False, label
        assert context["readOnlyRootFilesystem"] is True, label
        assert context["runAsNonRoot"] is True, label
        assert context["capabilities"] == {"drop": ["ALL"]}, label
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, label


@each_build
def test_temporary_files_have_a_place(build: str) -> None:
    for label, template in manifests.pod_templates(build):
        volumes = {volume["name"]: volume for volume in template["spec"].get("volumes", ())}
        for container in template["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert "/tmp" in mounts or "/data" in mounts, label
            if "/tmp" in mounts:
                assert "sizeLimit" in volumes[mounts["/tmp"]]["emptyDir"], label


@each_build
def test_requests_and_limits(build: str) -> None:
    for label, container in containers(build):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"]), label
        assert {"cpu", "memory"} <= set(resources["limits"]), label
        # More memory than was asked for is what makes a node kill a neighbour; Ray sizes its store by it.
        if label.startswith(("RayCluster", "RayJob", "RayService")) and "submitter" not in label:
            assert resources["requests"]["memory"] == resources["limits"]["memory"], label
    for label, spec in manifests.ray_clusters(build):
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", label
        assert spec["autoscalerOptions"]["resources"]["limits"], label


@each_build
def test_images_are_pinned(build: str) -> None:
    for label, container in containers(build):
        image = container["image"]
        if build.startswith("overlays/local"):
            assert re.fullmatch(r"localhost/sentinode/[a-z]+:\d+\.\d+\.\d+", image), label
        else:
            assert re.fullmatch(r"[a-z0-9.\-/]+@sha256:[0-9a-f]{64}", image), f"{label}: {image}"


@each_build
def test_tokens_are_asked_for(build: str) -> None:
    for label, spec in manifests.ray_clusters(build):
        assert spec["authOptions"] == {"mode": "token", "secretName": "sentinode-ray-auth"}, label
        assert spec["enableInTreeAutoscaling"] is True, label
        assert spec["autoscalerOptions"]["version"] == "v2", label


@each_build
def test_only_heads_may_ask_the_api_server(build: str) -> None:
    for label, template in manifests.pod_templates(build):
        mounted = template["spec"].get("automountServiceAccountToken")
        assert mounted is (label.endswith("/head")), label
        if not label.startswith(("Deployment", "StatefulSet")):
            assert template["spec"]["serviceAccountName"], label


@each_build
def test_ray_pods_are_watched(build: str) -> None:
    for label, container in containers(build):
        if "submitter" not in label:
            alive = container["livenessProbe"]
            # A machine that stood still for a minute once cost the local store its memory.
            assert alive["periodSeconds"] * alive["failureThreshold"] >= 120, label
            assert alive["timeoutSeconds"] >= 10, label
            assert container["readinessProbe"], label


@each_build
def test_a_silent_node_is_given_up_in_time(build: str) -> None:
    for label, spec in manifests.ray_clusters(build):
        (head,) = spec["headGroupSpec"]["template"]["spec"]["containers"]
        env = {one["name"]: one.get("value") for one in head["env"]}
        names = ("period_ms", "timeout_ms", "failure_threshold")
        checks = {name: int(env[f"RAY_health_check_{name}"]) for name in names}
        given_up_ms = checks["failure_threshold"] * (checks["period_ms"] + checks["timeout_ms"])
        assert checks["failure_threshold"] >= 3, f"{label}: one lost packet must not cost a node"
        assert given_up_ms <= 20_000, label


@each_build
def test_spot_workers_leave_in_order(build: str) -> None:
    for label, spec in manifests.ray_clusters(build):
        for group in spec["workerGroupSpecs"]:
            if "spot" in group["groupName"]:
                pod = group["template"]["spec"]
                command = " ".join(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
                deadline_s = int(re.search(r"sentinode-drain --deadline-s (\d+)", command)[1])  # type: ignore[index]
                assert deadline_s < pod["terminationGracePeriodSeconds"] < 120, label
                assert {"sentinode/capacity": "spot"}.items() <= pod["nodeSelector"].items()


@each_build
def test_every_pod_has_a_priority(build: str) -> None:
    """A pod without one makes room for any other: so went the store in memory, with all data, for the head of a job."""
    for label, template in manifests.pod_templates(build):
        assert template["spec"]["priorityClassName"].startswith("sentinode-"), label


@each_overlay
def test_only_the_endpoint_makes_others_go(overlay: str) -> None:
    classes = {c["metadata"]["name"]: c for c in manifests.of_kind(f"overlays/{overlay}", "PriorityClass")}
    assert {n for n, c in classes.items() if c.get("preemptionPolicy") != "Never"} == {"sentinode-endpoint"}


@each_build
def test_the_operator_has_nothing_to_put_into_the_groups(build: str) -> None:
    """KubeRay writes back what it read, with ``scaleStrategy``: its own change, and a conflict for the next apply."""
    for label, spec in manifests.ray_clusters(build):
        for group in spec["workerGroupSpecs"]:
            assert group["scaleStrategy"] == {}, f"{label}: {group['groupName']}"


def selected(policy: dict[str, Any], labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    fits = all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
    return fits and all(
        labels.get(e["key"]) in e["values"]
        for e in selector.get("matchExpressions", ())
        if e["operator"] == "In"
    )


def labels_of(label: str, template: dict[str, Any]) -> dict[str, str]:
    """The template's labels and those that the operator adds."""
    kind = "head" if label.endswith("/head") else "worker"
    if label.startswith(("Deployment", "StatefulSet")) or label.endswith("/submitter"):
        return dict(template["metadata"]["labels"])
    return {**template["metadata"]["labels"], "ray.io/is-ray-node": "yes", "ray.io/node-type": kind}


def peers(overlay: str, labels: dict[str, str], port: int) -> set[str]:
    """Who reaches ``port`` of a pod: names of namespaces, or of components of our own."""
    found = set()
    for policy in manifests.of_kind(f"overlays/{overlay}", "NetworkPolicy"):
        if "Ingress" not in policy["spec"]["policyTypes"] or not selected(policy, labels):
            continue
        for rule in policy["spec"].get("ingress", ()):
            ports = [p["port"] for p in rule.get("ports", ())]
            if ports and port not in ports:
                continue
            assert rule.get("from"), f"{policy['metadata']['name']} lets in everybody"
            for peer in rule["from"]:
                assert "ipBlock" not in peer
                space = peer.get("namespaceSelector", {}).get("matchLabels", {})
                own = peer.get("podSelector", {}).get("matchLabels", {})
                found.add(
                    space.get("kubernetes.io/metadata.name")
                    or own.get("app.kubernetes.io/component")
                    or str(peer)
                )
    return found


@each_overlay
def test_everything_is_closed_first(overlay: str) -> None:
    policies = manifests.of_kind(f"overlays/{overlay}", "NetworkPolicy")
    (deny,) = [p for p in policies if p["metadata"]["name"] == "deny-all"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in policies:
        for rule in policy["spec"].get("egress", ()):
            assert rule.get("to"), policy["metadata"]["name"]
            for peer in rule["to"]:
                if "ipBlock" in peer:
                    assert "169.254.0.0/16" in peer["ipBlock"]["except"], "the node's own credentials"
                    assert {p["port"] for p in rule["ports"]} <= {443, 6443}


@each_overlay
def test_each_port_of_ray_is_open_to_its_own_and_few_others(overlay: str) -> None:
    builds = (f"overlays/{overlay}", f"overlays/{overlay}/jobs")
    pods = [
        (lab, t) for build in builds for lab, t in manifests.pod_templates(build) if lab.startswith("Ray")
    ]
    pods = [(label, template) for label, template in pods if not label.endswith("/submitter")]
    assert len(pods) > 10
    production = overlay == "production"
    for label, template in pods:
        labels = labels_of(label, template)
        own = labels["app.kubernetes.io/component"]
        head, endpoint = label.endswith("/head"), own == "endpoint"
        others = {
            "dashboard": ({OPERATOR} | (set() if endpoint else {"submitter"})) if head else set(),
            "serve": ({OPERATOR} if head else set())
            | ({GATEWAY, MONITORING} if production and endpoint and not head else set()),
            "metrics": {MONITORING} if production else set(),
        }
        for kind, port in RAY_PORTS.items():
            assert peers(overlay, labels, port) == {own} | others.get(kind, set()), f"{label}: {kind}"


@each_overlay
def test_what_else_listens_is_closed_too(overlay: str) -> None:
    for label, template in manifests.pod_templates(f"overlays/{overlay}"):
        if label.startswith(("Deployment", "StatefulSet")):
            for port in template["spec"]["containers"][0]["ports"]:
                reached = peers(overlay, labels_of(label, template), port["containerPort"])
                assert len(reached) == 1, f"{label}: {reached}"
                assert "ray.io/" in reached.pop()


def test_no_service_leaves_the_cluster() -> None:
    for overlay in manifests.OVERLAYS:
        for service in manifests.of_kind(f"overlays/{overlay}", "Service"):
            assert service["spec"].get("type", "ClusterIP") == "ClusterIP"
    (gateway,) = manifests.of_kind("overlays/production", "Gateway")
    assert [listener["protocol"] for listener in gateway["spec"]["listeners"]] == ["HTTPS"]
    (route,) = manifests.of_kind("overlays/production", "HTTPRoute")
    paths = {match["path"]["value"] for rule in route["spec"]["rules"] for match in rule["matches"]}
    assert not any(path.startswith("/-/") for path in paths)


def test_no_secret_in_git(repository: Path) -> None:
    for build in manifests.BUILDS:
        assert not manifests.of_kind(build, "Secret"), build
    for path in (repository / "k8s").rglob("*.yaml"):
        text = path.read_text()
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|secretGenerator", text), path
        assert not re.search(r"(?i)(password|token|api_key): *['\"]?[A-Za-z0-9+/]{16,}", text), path


def test_rights_are_few() -> None:
    for overlay in manifests.OVERLAYS:
        assert not manifests.of_kind(
            f"overlays/{overlay}", "ClusterRole", "ClusterRoleBinding", "RoleBinding"
        )
        for role in manifests.of_kind(f"overlays/{overlay}", "Role"):
            for rule in role["rules"]:
                assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
                assert "secrets" not in rule["resources"]


def test_the_role_of_operators_is_for_what_the_commands_use() -> None:
    """Which verbs, the tests of rollouts and submissions derive from the requests that are made."""
    (role,) = manifests.of_kind("overlays/local", "Role")
    used = {"rayservices", "leases", "rayjobs", "rayclusters", "pods", "pods/log", "gateways"}
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == used


def test_production_takes_connections_through_haproxy() -> None:
    """As ``sentinode serve --ingress haproxy`` sets it, on every node of the endpoint and nowhere else."""
    for label, template in manifests.pod_templates("overlays/production"):
        (ray, *_) = template["spec"]["containers"]
        given = {item["name"]: item.get("value") for item in ray["env"]}
        wanted = {**VARIABLES, **REFUSALS}
        found = {name: given.get(name) for name in wanted}
        endpoint = template["metadata"]["labels"]["app.kubernetes.io/component"] == "endpoint"
        assert found == (wanted if endpoint else dict.fromkeys(wanted)), label


def test_accounts_of_production_have_roles() -> None:
    for account in manifests.of_kind("overlays/production", "ServiceAccount"):
        roles = account["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn", "")
        assert roles.startswith("arn:aws:iam::") or account["metadata"]["name"] == "submitter"
    services = manifests.of_kind("overlays/production", "RayCluster", "RayService")
    for manifest in services:
        spec = manifest["spec"].get("rayClusterConfig", manifest["spec"])
        assert spec["gcsFaultToleranceOptions"]["redisAddress"] == "redis://gcs-store:6379"


@each_overlay
def test_a_key_of_tracking_is_enough(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """WANDB_MODE would have precedence: with it in the settings, a key in the secret changed nothing."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (settings,) = [
        m
        for m in manifests.of_kind(f"overlays/{overlay}", "ConfigMap")
        if m["metadata"]["name"] == "sentinode-settings"
    ]
    for name, value in settings["data"].items():
        monkeypatch.setenv(name, value)
    assert tracking_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert tracking_mode() == "online"
    secret = {"secretRef": {"name": "sentinode-tracking", "optional": True}}
    for label, container in containers(f"overlays/{overlay}/jobs"):
        assert "submitter" in label or secret in container["envFrom"], label
