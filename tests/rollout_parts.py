"""What tests of rollouts are played on: Kubernetes' client, a double of its API server, a double of KubeRay, and a real
endpoint of ours with real bundles as the gateway.
"""

from __future__ import annotations

import asyncio
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import manifest_parts as manifests
import uvicorn
import yaml
from kube_double.api_server import ApiServerDouble
from kube_double.kuberay import KEY, KubeRayDouble
from kube_double.refusals import Object
from PIL import Image
from serving_parts import make_parts, sealed_registry

from sentinode.cli import run_step
from sentinode.rollout.record import RECORD, history_of
from sentinode.rollout.serve_config import ServeConfig
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.client import Client

ROOT = Path(__file__).resolve().parents[1]
CRDS = ROOT.parent / "shared" / "k8s" / "kuberay-crds"
OLD, NEW = (f"registry.example/serve@sha256:{digit * 64}" for digit in "12")


@dataclass
class Stage:
    """Everything of a test."""

    api: ApiServerDouble
    url: str
    old: str
    new: str
    kubeconfig: Path
    restart: Callable[[], None]
    """A replica starts anew, with the bundle that was served first."""
    fails: list[str] = field(default_factory=list)
    """Words that must not stand in a specification, or its deployment fails."""
    recompresses: threading.Event = field(default_factory=threading.Event)
    """Whether the way to the endpoint turns images into poor JPEGs, as a bad proxy might."""

    @property
    def service(self) -> Object:
        return self.api.get(*KEY[1:])

    @property
    def bundle(self) -> str:
        return ServeConfig(self.service["spec"]["serveConfigV2"]).bundle

    def start(self, *more: str) -> int:
        fast = ["--patience.step-s", "30", "--lease-s", "3", "--by", "test"]
        return run_step("rollout", ["start", "--gateway", self.url, *fast, *more])

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(entry.outcome, entry.reason) for entry in history_of(self.service)]

    def change_by_hand(self) -> str:
        """Somebody else writes the traffic; the text."""
        service = self.service
        text = str(service["spec"]["serveConfigV2"]) + "# by hand\n"
        service["spec"]["serveConfigV2"] = text
        self.api.put(KEY, service)
        return text

    @contextmanager
    def client(self) -> Iterator[None]:
        """Patches, one after the other, as long as the block lasts."""
        over, patch = threading.Event(), (ROOT / "docs/pictures/tumour_patch.png").read_bytes()

        def ask() -> None:
            with Client(self.url) as client:
                while not over.is_set():
                    client.predict(patch)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        yield
        over.set()
        thread.join(30)

    def asgi(self, endpoint: Endpoint) -> object:
        """The endpoint, behind a way that may spoil images."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or not self.recompresses.is_set() or scope["path"] != "/v1/predict":
                await endpoint(scope, receive, send)
                return
            body, more = b"", True
            while more:
                message = await receive()
                body, more = body + message.get("body", b""), message.get("more_body", False)
            spoilt = io.BytesIO()
            Image.open(io.BytesIO(body)).save(spoilt, "JPEG", quality=5)
            kept = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
            headers = [*kept, (b"content-length", str(len(spoilt.getvalue())).encode())]

            async def again() -> object:
                return {"type": "http.request", "body": spoilt.getvalue(), "more_body": False}

            await endpoint({**scope, "headers": headers}, again, send)

        return app

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


@contextmanager
def open_stage(tmp_path: Path) -> Iterator[Stage]:
    """Two sealed bundles, an endpoint that serves the first, and the doubles of Kubernetes and KubeRay."""
    store, old, _ = sealed_registry(tmp_path)
    new = make_parts(tmp_path / "new", seed=5).seal(store)
    args = ServeArgs(registry=store.url, bundle=old)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint, loop = Endpoint(args, ApiKeys()), asyncio.new_event_loop()
    api = ApiServerDouble(CRDS, manifests.of_kind("overlays/local", "Role")[0])
    first = args.first_traffic.model_dump(mode="json")

    def reconfigure(traffic: Object) -> None:
        asyncio.run_coroutine_threadsafe(endpoint.reconfigure(traffic), loop).result(60)

    made = Stage(
        api, f"http://127.0.0.1:{port}", old, new, api.kubeconfig(tmp_path / "kubeconfig"), lambda: reconfigure(first)
    )  # fmt: skip
    app: Any = made.asgi(endpoint)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", loop="none", lifespan="off"))
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(),), daemon=True)
    loop.run_until_complete(endpoint.reconfigure(first))
    thread.start()
    with api, KubeRayDouble(api, reconfigure, made.why_fails):
        api.put(KEY, rayservice(store.url, old))
        wait_until(
            lambda: "applicationStatuses" in made.service.get("status", {}).get("activeServiceStatus", {})
        )
        yield made
    server.should_exit = True
    thread.join(20)
    loop.close()


def wait_until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come to pass"
        time.sleep(0.05)


def held(stage: Stage) -> subprocess.Popen[bytes]:
    """A rollout in a process of its own, which waits in its canary for patches that do not come."""
    code = "import sys; from sentinode.cli import run_step; sys.exit(run_step('rollout', sys.argv[1:]))"
    slow = ["--pace.shares", "0.5", "--pace.hold-s", "0.5", "--limits.min-patches", "1000", "--lease-s", "3"]
    command = [sys.executable, "-c", code, "start", "--gateway", stage.url, "--bundle", stage.new, *slow]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "platform")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    wait_until(lambda: '"step":1' in (stage.service["metadata"].get("annotations") or {}).get(RECORD, ""))
    return process
