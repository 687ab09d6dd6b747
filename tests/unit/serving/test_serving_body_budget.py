"""Bodies under way share a budget of bytes: what does not fit is refused before it is read, and all is given back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from serving_parts import encode, random_patches, sealed_registry, started_endpoint
from starlette.types import Message

from sentinode.errors import ConfigError
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint

PATCHES = random_patches(8, seed=4)
SIZE = PATCHES.nbytes
JPEG = encode(PATCHES[0], "JPEG")
SHAPE = (b"x-sentinode-shape", b"8,96,96,3")


@pytest.fixture
def endpoint(tmp_path: Path) -> Endpoint:
    """Two of the batches fit."""
    store, digest, _ = sealed_registry(tmp_path)
    most = {"max_body_bytes": 100_000, "max_bulk_bytes": SIZE, "max_inflight_bytes": 2 * SIZE + 10}
    return started_endpoint(store, digest, **most)


class Client:
    """One request whose body comes in two halves; the second when ``go`` is set."""

    def __init__(self, endpoint: Endpoint, path: str, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        self._halves = [body[: len(body) // 2], body[len(body) // 2 :]]
        self.go, self.is_leaving, self.seen = asyncio.Event(), False, 0
        self.status, self.headers = 0, dict[bytes, bytes]()
        scope: dict[str, Any] = {
            "type": "http", "asgi": {}, "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
            "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": list(headers), "state": {},
        }  # fmt: skip
        self.task = asyncio.ensure_future(endpoint(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        self.seen += 1
        if self.seen > 1:
            await self.go.wait()
        if self.seen > 2 or (self.seen == 2 and self.is_leaving):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._halves[self.seen - 1], "more_body": self.seen == 1}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])


def declared(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % len(body)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_body_without_room_is_refused_unread(endpoint: Endpoint) -> None:
    budget, body = endpoint._guarded.budget, PATCHES.tobytes()

    async def run() -> None:
        first, second = (Client(endpoint, "/v1/predict", body, SHAPE, declared(body)) for _ in range(2))
        await settled()
        assert budget.held == 2 * SIZE
        for path in ("/v1/predict", "/v2/models/default/infer"):
            third = Client(endpoint, path, body, SHAPE, declared(body))
            await third.task
            assert (third.status, third.seen, third.headers[b"retry-after"]) == (503, 0, b"1")
        small = Client(endpoint, "/v1/predict", JPEG, declared(JPEG))
        small.go.set()
        await small.task
        assert small.status == 200, "small ones do not count"
        second.is_leaving = True
        first.go.set()
        second.go.set()
        await asyncio.gather(first.task, second.task)
        assert (first.status, second.status, budget.held) == (200, 0, 0)

    asyncio.run(run())
    assert b'sentinode_refusals_total{reason="memory"} 2.0' in endpoint.metrics.text()


def test_a_body_without_a_length_takes_room_as_it_grows(endpoint: Endpoint) -> None:
    budget, form = endpoint._guarded.budget, (b"content-type", b"multipart/form-data; boundary=b")

    async def run() -> None:
        body = bytes(SIZE)
        clients = [Client(endpoint, "/v1/predict", body, form) for _ in range(4)]
        await settled()
        assert budget.held == 4 * (SIZE // 2)
        for client in clients:
            client.go.set()
        await asyncio.gather(*(client.task for client in clients))
        # As each that is refused gives back, the next finds room; what is read is no form.
        assert sorted({client.status for client in clients}) == [400, 503]
        assert budget.held == 0

    asyncio.run(run())


@pytest.mark.parametrize("how", ["cancelled", "too large", "no such page"])
def test_all_is_given_back_however_a_request_ends(endpoint: Endpoint, how: str) -> None:
    budget, body = endpoint._guarded.budget, PATCHES.tobytes()

    async def run() -> None:
        length = (b"content-length", b"9" * 30) if how == "too large" else declared(body)
        path = "/nowhere" if how == "no such page" else "/v1/predict"
        client = Client(endpoint, path, body, SHAPE, length)
        await settled()
        if how == "cancelled":
            assert budget.held == SIZE
            client.task.cancel()
        await asyncio.gather(client.task, return_exceptions=True)
        assert client.status == {"cancelled": 0, "too large": 413, "no such page": 404}[how]
        assert budget.held == 0

    asyncio.run(run())


def test_a_budget_below_one_body_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_inflight_bytes 2048 is below a body of"):
        ServeArgs.parse({"registry": "/tmp", "bundle": "0" * 64, "max_inflight_bytes": 2048})
