"""The guard before every request: who passes, with what, how often, how slowly."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from sentinode import logs
from sentinode.errors import RequestError
from sentinode.serving.auth import ApiKeys
from sentinode.serving.guard import CALLER, REQUEST_ID, Guard
from sentinode.serving.keys import RateLimits, Scope, make_key


async def show(request: Request) -> Response:
    caller = request.scope["state"].get(CALLER)
    return JSONResponse([request.scope["state"][REQUEST_ID], caller.name if caller else None])


async def read(request: Request) -> Response:
    return Response(str(len(await request.body())))


async def refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return Response(error.found, error.status)


def guarded(keys: ApiKeys, **options: Any) -> Guard:
    paths = (
        "/healthz",
        "/metrics",
        "/v1/admin/bundles",
        "/v1/explain",
        "/v2/models/x/infer",
        "/v1/bundles/x",
    )
    routes = [Route(path, show, methods=["GET", "POST"]) for path in paths]
    app = Starlette(
        routes=[*routes, Route("/v1/predict", read, methods=["POST"])],
        exception_handlers={RequestError: refuse},
    )
    return Guard(app, keys, **options)


@pytest.mark.parametrize(
    ("path", "scope"),
    [
        ("/v1/predict", Scope.PREDICT),
        ("/v2/models/x/infer", Scope.PREDICT),
        ("/v1/bundles/x", Scope.PREDICT),
        ("/nowhere", Scope.PREDICT),
        ("/v1/explain", Scope.EXPLAIN),
        ("/metrics", Scope.METRICS),
        ("/v1/admin/bundles", Scope.ADMIN),
    ],
)
def test_every_path_needs_its_scope(path: str, scope: Scope) -> None:
    refused: list[str] = []
    keys = {one: make_key(one.value, (one,)) for one in Scope}
    client = TestClient(
        guarded(ApiKeys(records=[record for _, record in keys.values()]), on_refusal=refused.append)
    )
    statuses = {
        one: client.post(path, headers={"X-API-Key": key}).status_code for one, (key, _) in keys.items()
    }
    assert statuses.pop(scope) in (200, 404)
    assert set(statuses.values()) == {403}
    assert client.post(path).status_code == 401
    assert refused.count("scope") == 3
    assert refused.count("credential") == 1


def test_health_needs_no_key_and_replies_carry_the_headers() -> None:
    client = TestClient(guarded(ApiKeys(["0123456789abcdef"])))
    for response in (client.get("/healthz"), client.get("/metrics")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["x-request-id"]


def test_request_id_is_the_clients_where_it_is_harmless() -> None:
    client = TestClient(guarded(ApiKeys()))
    assert client.get("/healthz", headers={"X-Request-Id": "case-7.b"}).json()[0] == "case-7.b"
    made = {
        client.get("/healthz", headers={"X-Request-Id": bad}).json()[0]
        for bad in ('"}', "a b", "x" * 65, "é".encode(), "")
    }
    assert len(made) == 5
    assert all(name.isascii() and "-" in name for name in made)


def test_deadlines_that_are_none_are_refused() -> None:
    client = TestClient(guarded(ApiKeys()))
    name = "X-Request-Timeout-Seconds"
    assert client.get("/healthz", headers={name: "2.5"}).status_code == 200
    several = [(name, "5"), (name, "0")]
    for headers in (*({name: bad} for bad in ("soon", "0", "-1", "nan", "inf")), several):
        refused = client.get("/healthz", headers=headers)
        assert refused.status_code == 400
        assert "seconds" in refused.json()["expected"]


def test_what_is_logged_meanwhile_carries_the_request_id() -> None:
    lines: list[str] = []

    async def logging_app(scope: Any, receive: Any, send: Any) -> None:
        record = logging.LogRecord("x", logging.INFO, "", 0, "inside", (), None)
        lines.append(logs.JsonFormatter().format(record))
        await Response("fine")(scope, receive, send)

    TestClient(Guard(logging_app, ApiKeys())).get("/healthz", headers={"X-Request-Id": "case-9"})
    assert json.loads(lines[0])["request_id"] == "case-9"
    record = logging.LogRecord("x", logging.INFO, "", 0, "outside", (), None)
    assert "request_id" not in json.loads(logs.JsonFormatter().format(record))


def test_rate_of_one_key_does_not_touch_another() -> None:
    (busy, first), (calm, second) = (
        make_key(name, (Scope.METRICS,), RateLimits(requests_per_s=0.01, burst=2))
        for name in ("busy", "calm")
    )
    client = TestClient(guarded(ApiKeys(records=[first, second])))
    replies = [client.get("/metrics", headers={"X-API-Key": busy}) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert 1 <= int(replies[2].headers["retry-after"]) <= 101
    assert client.get("/metrics", headers={"X-API-Key": calm}).status_code == 200


def run(app: Guard, receive: Callable[[], Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/predict", "root_path": "", "headers": [], "query_string": b"",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent


def test_body_that_comes_too_slowly_is_refused() -> None:
    async def never() -> Any:
        await asyncio.Event().wait()

    assert run(guarded(ApiKeys(), body_timeout_s=0.05), never)[0]["status"] == 408

    async def drop_by_drop() -> Any:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    assert run(guarded(ApiKeys(), body_timeout_s=0.2), drop_by_drop)[0]["status"] == 408


def test_concurrency_is_given_back_when_a_handler_fails() -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("inner")

    key, record = make_key("one", (Scope.PREDICT,), RateLimits(concurrent=1))
    guard = Guard(broken, ApiKeys(records=[record]))
    client = TestClient(guard, raise_server_exceptions=False)
    assert [client.post("/v1/predict", headers={"X-API-Key": key}).status_code for _ in range(3)] == [500] * 3


def test_a_refusal_is_json_with_what_to_do() -> None:
    reply = TestClient(guarded(ApiKeys(["0123456789abcdef"]))).post("/v1/predict")
    assert reply.status_code == 401
    assert json.loads(reply.content)["expected"].startswith("Authorization: Bearer")
    assert reply.headers["cache-control"] == "no-store"
