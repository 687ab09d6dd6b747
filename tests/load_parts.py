"""A Ray cluster that serves behind HAProxy, driven as operators do (REST, user_config), and a load generator."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from sentinode.serving.ingress import haproxy_variables

ROOT = Path(__file__).resolve().parents[1]
KEY = "load-test-key-0123456789"
HEADER_TIMEOUT_S = 3
PATIENCE_S = 120.0
"""For what takes a few seconds on a calm machine."""


def until(what: str, condition: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """What ``condition`` gives as soon as it is true. Fails where it is not within ``timeout_s``."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)
    return found


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


class ServeCluster:
    """One Ray node with its dashboard; ``deploy`` is what `serve deploy` sends."""

    def __init__(self, folder: Path, ingress: str = "haproxy") -> None:
        self.folder = folder
        self.port, self._gcs, self._dashboard, *others = free_ports(10)
        names = ["HAPROXY_STATS", "HAPROXY_METRICS", "DIRECT_INGRESS_MIN_HTTP", "DIRECT_INGRESS_MIN_GRPC"]
        ports = {f"RAY_SERVE_{name}_PORT": str(port) for name, port in zip(names, others, strict=False)}
        ports |= {
            name.replace("MIN", "MAX"): str(int(port) + 100) for name, port in ports.items() if "MIN" in name
        }
        self._environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT / 'serve'}",
            "SENTINODE_API_KEYS": KEY,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": KEY,
            "RAY_DASHBOARD_ADDRESS": f"http://127.0.0.1:{self._dashboard}",
            **(
                haproxy_variables(Path(tempfile.mkdtemp(prefix="sn-")), HEADER_TIMEOUT_S) | ports
                if ingress == "haproxy"
                else {}
            ),
        }
        self._applications: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ServeCluster:
        bin_folder = Path(sys.executable).parent
        command = [bin_folder / "ray", "start", "--head", "--block", "--num-cpus=4", f"--port={self._gcs}"]
        command += [
            f"--dashboard-port={self._dashboard}",
            "--include-dashboard=true",
            "--disable-usage-stats",
        ]
        command += [f"--temp-dir=/tmp/sentinode-{os.getpid()}", "--object-store-memory=100000000"]
        with (self.folder / "ray.log").open("wb") as log:
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            until("Ray's dashboard answers", lambda: self._rest("GET") is not None)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        # Ray would take half a minute to let everything end by itself.
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=30)

    def url(self, name: str) -> str:
        """Where an application answers."""
        return f"http://127.0.0.1:{self.port}/{name}"

    def deploy(self, name: str, args: dict[str, Any], user_config: dict[str, Any] | None = None) -> None:
        """Send application ``name`` (at ``/name``) beside those that are there; returns at once."""
        application: dict[str, Any] = {"name": name, "route_prefix": f"/{name}", "import_path": "app:build"}
        if user_config is not None:
            application["deployments"] = [{"name": "predict", "user_config": user_config}]
        self._applications[name] = {**application, "args": args}
        options = {"host": "127.0.0.1", "port": self.port, "request_timeout_s": 60}
        config = {"proxy_location": "EveryNode", "http_options": options}
        self._rest("PUT", {**config, "applications": list(self._applications.values())})

    def application(self, name: str) -> dict[str, Any]:
        """What Ray Serve says of it."""
        return dict((self._rest("GET") or {}).get("applications", {}).get(name, {}))

    def replicas(self, name: str) -> dict[int, str]:
        """Process ids of the replicas that run, and what Ray calls them."""
        deployment = self.application(name).get("deployments", {}).get("predict", {})
        running = [one for one in deployment.get("replicas", []) if one["state"] == "RUNNING"]
        return {one["pid"]: one["replica_id"] for one in running}

    def wait_running(self, name: str) -> None:
        until(f"{name} runs", lambda: self.application(name).get("status") == "RUNNING")
        until(f"{name} answers", lambda: self.get(name, "/healthz")[0] == 200)

    def get(self, name: str, path: str) -> tuple[int, bytes]:
        """Status and body; status 0 where there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", f"/{name}{path}", headers={"X-API-Key": KEY})
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def _rest(self, method: str, body: object = None) -> dict[str, Any] | None:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._dashboard}/api/serve/applications/",
            data,
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {error.code}: {error.read().decode()[:2000]}") from error
        except OSError:
            if method == "PUT":
                raise
            return None
        return json.loads(text) if text else {}


@dataclass(frozen=True)
class Reply:
    """One answer as the load generator saw it; ``status`` 0 where the connection broke."""

    status: int
    body: bytes
    retry_after: str
    began_s: float
    took_s: float

    @property
    def bundle(self) -> str:
        return str(json.loads(self.body)["bundle"])


@dataclass
class Load:
    """``connections`` clients, each asking again as soon as it has its answer, without retries."""

    url: str
    body: bytes
    connections: int = 4
    replies: list[Reply] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Load for as long as the ``with`` block lasts; all requests are answered when it ends."""
        over = threading.Event()
        threads = [threading.Thread(target=self._ask, args=(over,)) for _ in range(self.connections)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join(PATIENCE_S)
            assert not any(thread.is_alive() for thread in threads), "a request hangs"

    @property
    def statuses(self) -> Counter[int]:
        return Counter(reply.status for reply in self.replies)

    def after(self, count: int) -> None:
        """Returns when ``count`` more replies have come."""
        wanted = len(self.replies) + count
        until(f"{count} more replies", lambda: len(self.replies) >= wanted)

    def _ask(self, over: threading.Event) -> None:
        address = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE_S)
        while not over.is_set():
            began_s = time.monotonic()
            status, retry_after, text = 0, "", b""
            try:
                connection.request("POST", f"{address.path}/v1/predict", self.body, {"X-API-Key": KEY})
                response = connection.getresponse()
                status, retry_after = response.status, response.headers.get("Retry-After", "")
                text = response.read()
            except (OSError, http.client.HTTPException) as error:
                text = repr(error).encode()
                connection.close()
            self.replies.append(Reply(status, text, retry_after, began_s, time.monotonic() - began_s))
        connection.close()


def memory_mib(pids: Iterable[int]) -> float:
    """Resident memory of processes together."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20
