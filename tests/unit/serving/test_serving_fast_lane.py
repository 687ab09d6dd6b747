"""The fast lane around a stand-in for Ray's replica: what is counted, what goes Ray's way. The real replica is under
load in ``tests/integration/test_serving_load.py``.
"""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from replica_parts import Around, StandIn, lane_to
from starlette.types import Message

from sentinode.serving.fast_lane import FastLane


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
