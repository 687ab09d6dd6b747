"""Every manifest against the schema of its kind: Kubernetes, KubeRay, Ray Serve, and our own."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import manifest_parts as manifests
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from sentinode import cli
from sentinode.serving.args import ServeArgs

KUBERNETES = ("1.30", "1.34")
"""Oldest and newest release that docs/kubernetes.md names."""
OTHERS = ("gateway.networking.k8s.io/", "external-secrets.io/", "monitoring.coreos.com/")
"""Groups whose schemas no package here carries: only their form is looked at."""


@pytest.mark.parametrize("build", manifests.BUILDS)
def test_kubernetes_schemas(build: str) -> None:
    checked = 0
    for manifest in manifests.built(build):
        if manifest["apiVersion"].startswith((*OTHERS, "ray.io/")):
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)
        checked += 1
    assert checked > 15 or build.endswith("/jobs")


@pytest.mark.parametrize("build", manifests.BUILDS)
def test_pod_templates_against_the_schema_of_pods(build: str) -> None:
    for label, template in manifests.pod_templates(build):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(pod, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                pytest.fail(f"{label}: {error}")


@pytest.fixture(scope="session")
def kuberay_schemas(repository: Path) -> dict[str, dict[str, Any]]:
    folder = repository.parent / "shared" / "k8s" / "kuberay-crds"
    if not folder.is_dir():
        pytest.skip("KubeRay's CRDs are not here (../shared/k8s/kuberay-crds)")
    definitions = [yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")]
    return {
        crd["spec"]["names"]["kind"]: closed(
            next(v for v in crd["spec"]["versions"] if v["name"] == "v1")["schema"]["openAPIV3Schema"]
        )
        for crd in definitions
    }


def test_worker_groups_belong_to_one_writer(
    repository: Path, kuberay_schemas: dict[str, dict[str, Any]]
) -> None:
    """Why an apply after the autoscaler, or after a rollout of an image, is a conflict, as the documents tell."""
    groups = kuberay_schemas["RayCluster"]["properties"]["spec"]["properties"]["workerGroupSpecs"]
    assert groups["type"] == "array"
    assert groups.get("x-kubernetes-list-type", "atomic") == "atomic"
    for document in ("kubernetes.md", "rollout.md"):
        text = (repository / "docs" / document).read_text()
        assert "workerGroupSpecs" in text
        assert "--force-conflicts" in text


def closed(schema: Any) -> Any:
    """The schema with unknown fields as errors: the API server drops them silently, unless asked to be strict."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or set(schema["properties"]) == set()
        result["additionalProperties"] = bool(open_ended)
    return result


@pytest.mark.parametrize("build", manifests.BUILDS)
def test_kuberay_schemas(build: str, kuberay_schemas: dict[str, dict[str, Any]]) -> None:
    found = manifests.of_kind(build, *manifests.CUSTOM_RAY)
    assert found
    for manifest in found:
        body = {**manifest, "metadata": {}}
        errors = list(jsonschema.Draft202012Validator(kuberay_schemas[manifest["kind"]]).iter_errors(body))
        assert not errors, [f"{manifests.name(manifest)}: {e.json_path}: {e.message[:200]}" for e in errors]


@pytest.mark.parametrize("build", manifests.BUILDS)
def test_what_kuberay_refuses_beyond_its_schema(build: str) -> None:
    """The rules of its validation that concern us (ray-operator/controllers/ray/utils/validation.go)."""
    for label, spec in manifests.ray_clusters(build):
        assert tuple(map(int, spec["rayVersion"].split("."))) >= (2, 52, 0), "token authentication"
        head = spec["headGroupSpec"]
        assert "redis-password" not in head["rayStartParams"], label
        for group in (head, *spec["workerGroupSpecs"]):
            assert group["template"]["spec"].get("restartPolicy", "Never") == "Never", "autoscaler v2"
            names = {variable["name"] for variable in group["template"]["spec"]["containers"][0]["env"]}
            assert not names & {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "RAY_enable_autoscaler_v2"}
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"], label
    for job in manifests.of_kind(build, "RayJob"):
        assert job["spec"]["shutdownAfterJobFinishes"]
        assert "deletionStrategy" not in job["spec"], "needs a gate where rules are given"
        assert len(job["metadata"]["name"]) <= 47


def serve_configs() -> Iterator[Any]:
    for overlay in manifests.OVERLAYS:
        for service in manifests.of_kind(f"overlays/{overlay}", "RayService"):
            yield yaml.safe_load(service["spec"]["serveConfigV2"])


def test_serve_configs() -> None:
    configs = list(serve_configs())
    assert len(configs) == len(manifests.OVERLAYS)
    for config in configs:
        parsed = ServeDeploySchema.model_validate(config)
        # Ray drops unknown keys of a deployment silently: what is written must come back.
        again = parsed.model_dump(exclude_unset=True, mode="json")
        assert set(config["applications"][0]) == set(again["applications"][0])
        args = ServeArgs.parse(config["applications"][0]["args"])
        assert args.registry == "s3://sentinode-data/registry"
        assert config["applications"][0]["import_path"] == "app:build"


def test_grpc_through_the_gateway(repository: Path, tmp_path: Path) -> None:
    """The component that no overlay has: production with it."""
    shutil.copytree(repository / "k8s", tmp_path / "k8s")
    overlay = tmp_path / "k8s/overlays/production/endpoint/kustomization.yaml"
    first = "  - ../../../components/gateway\n"
    overlay.write_text(overlay.read_text().replace(first, f"{first}  - ../../../components/gateway-grpc\n"))
    built = {manifests.name(one): one for one in manifests.built_at(overlay.parent)}
    service, route = built["RayService/sentinode"]["spec"], built["GRPCRoute/sentinode"]["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    assert config.grpc_options.grpc_servicer_functions[0].endswith("add_inference_service")
    (port,) = service["serveService"]["spec"]["ports"]
    head = service["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    (backend,) = route["rules"][0]["backendRefs"]
    assert config.grpc_options.port == port["port"] == backend["port"]
    assert {"name": port["name"], "containerPort": port["port"]} in head["ports"], "KubeRay looks for it here"
    listeners = {one["name"]: one["hostname"] for one in built["Gateway/sentinode"]["spec"]["listeners"]}
    assert route["hostnames"] == [listeners[route["parentRefs"][0]["sectionName"]]]
    assert not set(route["hostnames"]) & set(built["HTTPRoute/sentinode"]["spec"]["hostnames"])
    kubernetes_validate.validate(built["NetworkPolicy/gateway-to-serve-grpc"], KUBERNETES[-1], strict=True)


def test_a_worker_holds_one_replica() -> None:
    """Ray counts a pod's limit of CPUs; a worker without a replica has no proxy and never becomes ready."""
    for overlay in manifests.OVERLAYS:
        for service in manifests.of_kind(f"overlays/{overlay}", "RayService"):
            group = service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
            config = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]["args"]
            cpus = float(group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
            assert config["cpus_per_replica"] == cpus
            assert int(config["num_replicas"]) == group["minReplicas"]


JOBS = [(overlay, job) for overlay in manifests.OVERLAYS for job in ("ingest", "train", "tune", "score")]


@pytest.mark.parametrize(("overlay", "job"), JOBS)
def test_entrypoints_are_commands_of_ours(overlay: str, job: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With the settings that the submitter expands, each is parsed by the real command line."""
    settings = next(
        m["data"]
        for m in manifests.of_kind(f"overlays/{overlay}", "ConfigMap")
        if m["metadata"]["name"] == "sentinode-settings"
    )
    (manifest,) = [m for m in manifests.of_kind(f"overlays/{overlay}/jobs", "RayJob")
                   if m["metadata"]["name"] == job]  # fmt: skip
    assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == job
    entrypoint = manifest["spec"]["entrypoint"]
    assert "\n" not in entrypoint.strip(), "the shell would take a second line for a second command"
    expanded = re.sub(r"\$(\w+)", lambda match: settings[match[1]], entrypoint)
    program, command, *arguments = shlex.split(expanded)
    assert (program, command) == ("sentinode", job)
    assert cli.run_step(command, [*arguments, "--dry-run"]) == 0
    assert "s3://sentinode-data/" in capsys.readouterr().out


def test_the_search_of_local_ends_in_time() -> None:
    """On two CPUs the networks of its space take minutes an epoch: trials alone say nothing of when it is over."""
    (tune,) = [
        m for m in manifests.of_kind("overlays/local/jobs", "RayJob") if m["metadata"]["name"] == "tune"
    ]
    flags = shlex.split(tune["spec"]["entrypoint"])
    assert float(flags[flags.index("--budget.hours") + 1]) <= 0.2
    assert int(flags[flags.index("--search.epochs") + 1]) <= 3


@pytest.mark.parametrize("overlay", manifests.OVERLAYS)
def test_jobs_find_what_they_ask_for(overlay: str) -> None:
    """A search and a scoring refuse more workers than the cluster has when they start."""
    for label, spec in manifests.ray_clusters(f"overlays/{overlay}/jobs"):
        first = spec["workerGroupSpecs"][0]
        assert first["minReplicas"] == 2, label
        if overlay != "local" and label in ("RayJob/tune", "RayJob/score"):
            gpus = [g for g in spec["workerGroupSpecs"] if g["groupName"] == "gpu-spot"]
            assert gpus[0]["minReplicas"] >= 2
