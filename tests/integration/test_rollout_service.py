"""Rollouts over real HTTP: the client of Kubernetes against a double of its API server, a double of KubeRay, and a real
endpoint of ours with real bundles as the gateway.
"""

from __future__ import annotations

import asyncio
import copy
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import manifest_parts as manifests
import pytest
import uvicorn
import yaml
from kube_double.api_server import ApiServerDouble, Object
from kube_double.kuberay import KEY, KubeRayDouble
from serving_parts import make_parts, sealed_registry

from sentinode.cli import run_step
from sentinode.rollout.record import HISTORY, RECORD, history_of
from sentinode.rollout.serve_config import ServeConfig
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.client import Client

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT.parent / "shared" / "k8s" / "kuberay-crds"
OLD, NEW = (f"registry.example/serve@sha256:{digit * 64}" for digit in "12")
pytestmark = pytest.mark.skipif(not CRDS.exists(), reason="the CRDs of KubeRay are not beside the checkout")


@dataclass
class Stage:
    """Everything of a test."""

    api: ApiServerDouble
    url: str
    old: str
    new: str
    fails: list[str] = field(default_factory=list)
    """Words that must not stand in a specification, or its deployment fails."""

    @property
    def service(self) -> Object:
        return self.api.get(*KEY[1:])

    @property
    def bundle(self) -> str:
        return ServeConfig(self.service["spec"]["serveConfigV2"]).bundle

    def start(self, *more: str) -> int:
        fast = ["--patience.step-s", "30", "--lease-s", "3", "--by", "test"]
        return run_step("rollout", ["start", "--gateway", self.url, *fast, *more])

    def why_fails(self, spec: Object) -> str:
        text = yaml.safe_dump(spec)
        return next((f"{word} cannot be deployed" for word in self.fails if word in text), "")


def rayservice(registry: str, bundle: str) -> Object:
    """The manifest of the repository, with its gaps filled."""
    service: Object = yaml.safe_load((ROOT / "k8s" / "base" / "endpoint" / "rayservice.yaml").read_text())
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    config["applications"][0]["args"] |= {"registry": registry, "bundle": bundle, "num_replicas": 2}
    service["spec"]["serveConfigV2"] = yaml.safe_dump(config)
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        group["template"]["spec"]["containers"][0]["image"] = OLD
    return service


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    store, old, _ = sealed_registry(tmp_path)
    new = make_parts(tmp_path / "new", seed=5).seal(store)
    args = ServeArgs(registry=store.url, bundle=old)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint, loop = Endpoint(args, ApiKeys()), asyncio.new_event_loop()
    server = uvicorn.Server(uvicorn.Config(endpoint, port=port, log_level="warning", loop="none"))
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),), daemon=True)
    loop.run_until_complete(endpoint.reconfigure(args.first_traffic.model_dump(mode="json")))
    thread.start()

    def reconfigure(traffic: Object) -> None:
        asyncio.run_coroutine_threadsafe(endpoint.reconfigure(traffic), loop).result(60)

    with ApiServerDouble(CRDS, manifests.of_kind("overlays/local", "Role")[0]) as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig")))
        made = Stage(api, f"http://127.0.0.1:{port}", old, new)
        with KubeRayDouble(api, reconfigure, made.why_fails):
            api.put(KEY, rayservice(store.url, old))
            wait_until(
                lambda: "applicationStatuses" in made.service.get("status", {}).get("activeServiceStatus", {})
            )
            yield made
    server.should_exit = True
    thread.join(20)
    loop.close()


def wait_until(holds: object, timeout_s: float = 60.0) -> None:
    assert callable(holds)
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.05)


def test_a_bundle_is_rolled_out_in_place_and_kept(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    before = copy.deepcopy(stage.service["spec"]["rayClusterConfig"])
    assert stage.start("--bundle", stage.new) == 0
    assert stage.bundle == stage.new
    assert stage.service["spec"]["rayClusterConfig"] == before
    assert RECORD not in stage.service["metadata"]["annotations"]
    with Client(stage.url) as client:
        assert client.predict((ROOT / "docs/pictures/tumour_patch.png").read_bytes()).bundle == stage.new
    assert [entry.outcome for entry in history_of(stage.service)] == ["kept"]
    assert stage.start("--bundle", stage.new) == 0  # nothing is left to do
    capsys.readouterr()
    assert run_step("rollout", ["status"]) == 0
    assert stage.new in capsys.readouterr().out
    assert run_step("rollout", ["history"]) == 0
    assert "kept  by test" in capsys.readouterr().out


def test_what_cannot_be_deployed_is_taken_back(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    before = stage.service["spec"]
    stage.fails.append("rollout-candidate")
    assert stage.start("--bundle", stage.new) == 1
    assert "rolled back: application sentinode is DEPLOY_FAILED" in capsys.readouterr().err
    assert stage.service["spec"] == before
    assert [entry.outcome for entry in history_of(stage.service)] == ["rolled back"]


def test_another_image_makes_a_new_cluster(stage: Stage) -> None:
    assert stage.start("--image", NEW) == 0
    service = stage.service
    assert service["status"]["activeServiceStatus"]["rayClusterName"] == "cluster-2"
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["image"] == NEW


def test_an_image_that_does_not_start_is_taken_back(stage: Stage) -> None:
    before = stage.service["spec"]
    stage.fails.append(NEW)
    assert stage.start("--image", NEW) == 1
    assert stage.service["spec"] == before
    assert stage.service["status"]["activeServiceStatus"]["rayClusterName"] == "cluster-1"


def test_dry_run_shows_each_step_and_changes_nothing(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stage.service
    assert stage.start("--bundle", stage.new, "--pace.shares", "0.1", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "step 2 of 3: canary 10%" in shown
    assert f"+            bundle: {stage.new}" in shown
    assert stage.service == before


def test_a_canary_without_traffic_is_taken_back(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--pace.shares", "0.5", "--pace.hold-s", "0", "--evidence-s", "1"]
    assert stage.start("--bundle", stage.new, *quick, "--pace.hold-s", "1") == 1
    assert "too few to judge by" in capsys.readouterr().err
    assert stage.bundle == stage.old


def test_killed_anywhere_it_goes_on(stage: Stage) -> None:
    code = "import sys; from sentinode.cli import run_step; sys.exit(run_step('rollout', sys.argv[1:]))"
    slow = ["--pace.shares", "0.5", "--pace.hold-s", "0.5", "--limits.min-patches", "1000", "--lease-s", "3"]
    command = [sys.executable, "-c", code, "start", "--gateway", stage.url, "--bundle", stage.new, *slow]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as killed:
        wait_until(lambda: '"step":1' in (stage.service["metadata"]["annotations"] or {}).get(RECORD, ""))
        assert stage.start("--bundle", stage.new) == 1  # the first one lives: this one is refused
        killed.send_signal(signal.SIGKILL)
    assert stage.bundle == stage.old
    assert stage.start("--bundle", stage.new, "--limits.min-patches", "0") == 0
    assert stage.bundle == stage.new
    assert HISTORY in stage.service["metadata"]["annotations"]
    rights = manifests.rights("overlays/local", "rayservices", "leases")
    assert stage.api.used == rights, "the Role has what is used, and no more"


def test_a_wrong_token_is_told(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(stage.api.kubeconfig(tmp_path / "wrong", token="wrong")))
    assert run_step("rollout", ["status"]) == 1
    assert "does not accept the credentials" in capsys.readouterr().err
