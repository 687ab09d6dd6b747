"""The fast lane around a stand-in for Ray's replica: what is counted, what goes Ray's way. The real replica is under
load in ``tests/integration/test_serving_load.py``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.utils import Semaphore
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
        self.rays_way += 1
        await send({"type": "http.response.start", "status": 202, "headers": []})


class Around:
    """As Ray's own middleware is built."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def ask(lane: FastLane, path: str = "/app/v1/predict", *headers: tuple[bytes, bytes]) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "headers": list(headers),
        "state": {},
    }
    await lane(scope, receive, send)
    return sent


def lane_to(replica: StandIn) -> FastLane:
    return FastLane(Around(replica._direct_ingress_asgi))


def test_prediction_is_answered_and_counted_as_ray_counts() -> None:
    async def run() -> tuple[StandIn, list[Message]]:
        replica = StandIn()
        return replica, await ask(lane_to(replica))

    replica, (start, body) = asyncio.run(run())
    assert (start["status"], body["body"], replica.rays_way) == (200, b"{}", 0)
    assert start["headers"] == [(b"x-root", b"/app"), (b"x-request-id", b"id-1")]
    counted = replica._metrics_manager
    assert (counted.most, counted.ongoing, replica._semaphore.locked()) == (1, 0, False)
    (request,), (ingress,) = counted.requests, counted.ingress
    assert (request["route"], request["is_error"]) == ("/app", False)
    assert {
        "status_code": "200",
        "app_name": "sentinode",
        "is_error": False,
        "method": "POST",
    }.items() <= ingress.items()


def test_what_waits_and_what_is_no_plain_prediction_goes_rays_way() -> None:
    async def run() -> StandIn:
        replica = StandIn(takes_s=0.05, places=2)
        lane = lane_to(replica)
        # Two places: the third would have to wait.
        await asyncio.gather(*(ask(lane) for _ in range(3)))
        assert (replica.rays_way, replica._metrics_manager.most) == (1, 2)
        await ask(lane, "/app/v1/models")
        await ask(lane, "/other/v1/predict")
        await ask(lane, "/app/v1/predict", (b"x-request-timeout-seconds", b"5"))
        return replica

    assert asyncio.run(run()).rays_way == 4


def test_deadline_that_passes_is_refused_in_json_and_gives_its_place_back() -> None:
    async def run() -> tuple[StandIn, list[list[Message]]]:
        replica = StandIn(takes_s=0.2, timeout_s=0.05)
        lane = lane_to(replica)
        slow = [await ask(lane)]
        replica.takes_s = 0.0
        return replica, [*slow, await ask(lane)]

    replica, (slow, quick) = asyncio.run(run())
    assert (slow[0]["status"], json.loads(slow[1]["body"])["status"]) == (408, 408)
    assert quick[0]["status"] == 200
    counted = replica._metrics_manager
    assert ([one["is_error"] for one in counted.requests], counted.ongoing) == ([True, False], 0)
    assert not replica._semaphore.locked()


class Connection:
    """As uvicorn's object of a request: it writes the head of a reply, then the body."""

    def __init__(self) -> None:
        self.transport: Any = self
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    async def send(self, message: Message) -> None:
        self.transport.write(b"head " if message["type"] == "http.response.start" else message["body"])


def test_reply_leaves_in_one_write() -> None:
    async def run() -> Connection:
        connection = Connection()
        scope = {"type": "http", "method": "POST", "path": "/app/v1/predict", "headers": [], "state": {}}

        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        await lane_to(StandIn())(scope, receive, connection.send)
        connection.transport.write(b"more")
        assert not connection.transport.is_closing()
        return connection

    assert asyncio.run(run()).written == [b"head {}", b"more"]


def test_caller_that_is_cancelled_stays_cancelled() -> None:
    async def run() -> StandIn:
        replica = StandIn(takes_s=5, timeout_s=10)
        task = asyncio.create_task(ask(lane_to(replica)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return replica

    counted = asyncio.run(run())._metrics_manager
    assert (counted.ongoing, counted.ingress[0]["status_code"]) == (0, "499")


def test_other_servers_and_switched_off_lanes_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> list[int]:
        off, thread, odd = StandIn(), StandIn(), StandIn()
        off.args.fast_lane = False
        thread._user_callable_wrapper._run_user_code_in_separate_thread = True
        del odd._semaphore
        for replica in (off, thread, odd):
            await ask(lane_to(replica))
        return [replica.rays_way for replica in (off, thread, odd)]

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(run()) == [1, 1, 1]
    assert caplog.messages == ["predictions go Ray's slower way: this Ray's replicas have no _semaphore"]
    assert FastLane(Around(StandIn()))._lane is None
