"""A stand-in for what the fast lane uses of a Ray replica; the real one is in the integration tests."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from ray.serve._private.utils import Semaphore
from starlette.types import ASGIApp, Receive, Scope, Send

from sentinode.serving.asgi import Endpoint
from sentinode.serving.fast_lane import FastLane


class Metrics:
    def __init__(self) -> None:
        self.ongoing = self.most = 0
        self.requests: list[dict[str, Any]] = []
        self.ingress: list[dict[str, Any]] = []

    def inc_num_ongoing_requests(self, metadata: Any) -> None:
        assert metadata.is_direct_ingress
        self.ongoing += 1
        self.most = max(self.most, self.ongoing)

    def dec_num_ongoing_requests(self, metadata: Any) -> None:
        self.ongoing -= 1

    def record_request_metrics(self, **labels: Any) -> None:
        self.requests.append(labels)

    def record_ingress_request_metrics(self, **labels: Any) -> None:
        self.ingress.append(labels)


class StandIn:
    """The few attributes of a Ray replica that the lane uses, over an endpoint that takes ``takes_s``."""

    def __init__(self, takes_s: float = 0.0, places: int = 2, timeout_s: float | None = None) -> None:
        self._metrics_manager = Metrics()
        self._semaphore = Semaphore(lambda: places)
        self._http_options = SimpleNamespace(request_timeout_s=timeout_s)
        self._route_prefix = "/app"
        self._deployment_id = SimpleNamespace(app_name="sentinode", name="predict")
        self._user_callable_wrapper = SimpleNamespace(_run_user_code_in_separate_thread=False)
        self._user_callable_asgi_app = self
        self.args = SimpleNamespace(fast_lane=True)
        self.direct = None
        self.takes_s = takes_s
        self.rays_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["sentinode.request_id"] = "id-1"
        await asyncio.sleep(self.takes_s)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"x-root", scope["root_path"].encode())],
            }
        )
        await send({"type": "http.response.body", "body": b"{}"})

    async def _direct_ingress_asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.rays_way += scope["type"] == "http"
        await send({"type": "http.response.start", "status": 202, "headers": []})


class Around:
    """As Ray's own middleware is built."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def lane_to(replica: StandIn) -> FastLane:
    """The outermost middleware of the replica's server."""
    return FastLane(Around(replica._direct_ingress_asgi))


class Asked:
    """The endpoint, which notes what it was asked by way of ASGI."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.args, self.direct, self._endpoint = endpoint.args, endpoint.direct, endpoint
        self.requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.requests += 1
        await self._endpoint(scope, receive, send)


@dataclass
class Server:
    replica: StandIn
    asked: Asked
    endpoint: Endpoint
    url: str
    clients: list[Connection] = field(default_factory=list)

    def connect(self) -> Connection:
        self.clients.append(Connection(self.url))
        return self.clients[-1]


class Connection:
    """A client that writes what it likes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=20)
        self._unread = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> tuple[int, dict[str, str], bytes]:
        while b"\r\n\r\n" not in self._unread:
            self._read()
        head, self._unread = self._unread.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(self._unread) < (size := int(headers["content-length"])):
            self._read()
        body, self._unread = self._unread[:size], self._unread[size:]
        return int(first.split()[1]), headers, body

    def ask(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        self.send(data)
        return self.reply()

    def is_closed(self) -> bool:
        return self._socket.recv(1) == b""

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> None:
        more = self._socket.recv(1 << 16)
        assert more, f"closed after {self._unread!r}"
        self._unread += more
