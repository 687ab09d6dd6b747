"""Predictions past uvicorn's handling of a request: over a real uvicorn and a real endpoint, byte by byte."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from load_parts import until
from replica_parts import Asked, Connection, Server, StandIn, lane_to
from served_parts import served
from serving_parts import encode, random_patches, sealed_registry, started_endpoint

from sentinode.serving.auth import ApiKeys
from sentinode.serving.keys import RateLimits, make_key
from sentinode.serving.keys import Scope as KeyScope
from sentinode.serving.protocol import Prediction

KEY = "0123456789abcdef-key"
PATCH = encode(random_patches(1)[0], "JPEG")


def request(
    body: bytes = PATCH, *headers: str, path: str = "/app/v1/predict", version: str = "1.1", key: str = KEY
) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: a", f"X-API-Key: {key}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, str, Any]:
    return sealed_registry(tmp_path_factory.mktemp("front"))


Start = Callable[..., Server]


@pytest.fixture
def start(registry: tuple[Any, str, Any]) -> Iterator[Start]:
    opened, servers = [], []

    def started(keys: ApiKeys | None = None, timeout_s: float | None = None, **settings: object) -> Server:
        endpoint = started_endpoint(registry[0], registry[1], keys or ApiKeys([KEY]), **settings)
        replica = StandIn(timeout_s=timeout_s)
        replica._user_callable_asgi_app = asked = Asked(endpoint)
        context = served(lane_to(replica))
        opened.append(context)
        servers.append(Server(replica, asked, endpoint, context.__enter__()))
        return servers[-1]

    yield started
    for client in [client for server in servers for client in server.clients]:
        client.close()
    for context in opened:
        context.__exit__(None, None, None)


def until_free(server: Server) -> None:
    replica = server.replica
    until(
        "the replica's places are free",
        lambda: replica._metrics_manager.ongoing == 0 and not replica._semaphore.locked(),
        timeout_s=2,
    )


def until_under_way(replica: StandIn) -> None:
    until("a request is under way", lambda: replica._metrics_manager.ongoing == 1, timeout_s=2)


def test_replies_are_the_same_as_the_applications(start: Start) -> None:
    server = start()
    client = server.connect()
    first, *more = [client.ask(request(PATCH, f"X-Request-ID: mine-{n}")) for n in range(4)]
    assert server.asked.requests == 1, "further predictions pass it"
    for n, (status, headers, body) in enumerate(more, 1):
        assert status == first[0] == 200
        assert set(headers) == set(first[1])
        assert headers["x-request-id"] == f"mine-{n}"
        same = {name for name in headers if name not in ("date", "x-request-id", "content-length")}
        assert {name: headers[name] for name in same} == {name: first[1][name] for name in same}
        answers = [
            Prediction.model_validate_json(text).model_dump(exclude={"timing_ms"})
            for text in (body, first[2])
        ]
        assert answers[0] == answers[1]
    text = server.endpoint.metrics.text().decode()
    assert 'sentinode_requests_total{path="/v1/predict",status="200"} 4.0' in text
    counted = server.replica._metrics_manager
    assert [one["status_code"] for one in counted.ingress] == ["200"] * 4
    assert (len(counted.requests), counted.ongoing, server.replica.rays_way) == (4, 0, 0)


PNG = encode(random_patches(1)[0], "PNG")
CHUNKED = (
    f"POST /app/v1/predict HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
)
UNUSUAL = {
    "PNG": (request(PNG), 200),
    "no image": (request(b"no image"), 415),
    "broken JPEG": (request(PATCH[:200]), 400),
    "a JPEG of another size": (request(encode(random_patches(1)[0][:64], "JPEG")), 422),
    "no body": (request(b""), 400),
    "no key": (request(key="another-key-0123456789"), 401),
    "its model": (request(path="/app/v1/predict?model=default"), 200),
    "an unknown model": (request(path="/app/v1/predict?model=x"), 404),
    "a form": (request(PATCH, "Content-Type: multipart/form-data; boundary=b"), 400),
    "a scale": (request(PATCH, "X-MPP-um-px: 0.97"), 200),
    "a scale that is none": (request(PATCH, "X-MPP-um-px: much"), 400),
    "two request ids": (request(PATCH, "X-Request-ID: a", "X-Request-ID: b"), 200),
    "chunked": (CHUNKED.encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(PATCH), PATCH), 200),
    "a deadline": (request(PATCH, "X-Request-Timeout-Seconds: 5"), 202),
    "another path": (request(path="/app/v1/models"), 202),
    "health": (b"GET /app/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 202),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_is_not_usual_is_answered_as_on_a_fresh_connection(start: Start, kind: str) -> None:
    server, (data, status) = start(), UNUSUAL[kind]
    client = server.connect()
    client.ask(request())
    if status == 202:
        # Ray's own way, of which the stand-in tells the status alone.
        client.send(data)
        assert client._socket.recv(1 << 16).startswith(b"HTTP/1.1 202")
        assert server.replica.rays_way == 1
        return
    found, fresh = client.ask(data), server.connect().ask(data)
    assert found[0] == fresh[0] == status
    assert set(found[1]) == set(fresh[1])
    if status != 200:
        assert found[2] == fresh[2]
    assert client.ask(request())[0] == 200
    until_free(server)


@pytest.mark.parametrize("ending", [("1.1", "Connection: close"), ("1.0", "A: b")])
def test_connection_that_shall_end_ends(start: Start, ending: tuple[str, str]) -> None:
    client = start().connect()
    client.ask(request())
    assert client.ask(request(PATCH, ending[1], version=ending[0]))[0] == 200
    assert client.is_closed()


def test_no_http_is_refused(start: Start) -> None:
    client = start().connect()
    client.ask(request())
    client.send(b"\x16\x03\x01 no http\r\n\r\n")
    assert client._socket.recv(1 << 16).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("seed", range(12))
def test_however_the_bytes_come_each_request_gets_its_reply(start: Start, seed: int) -> None:
    server, chance = start(), random.Random(seed)
    kinds = [request(PATCH, f"X-Request-ID: id-{n}") for n in range(8)]
    kinds[3] = request(PNG, "X-Request-ID: id-3")
    kinds[5] = request(PATCH[:200], "X-Request-ID: id-5")
    data, client = b"".join(kinds), server.connect()
    cuts = sorted(chance.sample(range(1, len(data)), chance.choice([0, 1, 8, 40])))
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        client.send(data[begin:end])
        time.sleep(chance.choice([0, 0, 0.003]))
    replies = [client.reply() for _ in kinds]
    assert [headers["x-request-id"] for _, headers, _ in replies] == [f"id-{n}" for n in range(8)]
    assert [status for status, _, _ in replies] == [200] * 5 + [400] + [200] * 2
    until_free(server)


def test_deadline_is_kept(start: Start) -> None:
    server = start(timeout_s=0.15, batch_wait_ms=1000.0)
    client = server.connect()
    assert client.ask(request())[0] == 408
    server.replica._metrics_manager.ingress.clear()
    asked = server.asked.requests
    status, headers, body = client.ask(request())
    assert (status, server.asked.requests, headers["content-type"]) == (408, asked, "application/json")
    assert b"the answer was not there in time" in body
    until_free(server)
    assert server.replica._metrics_manager.ingress[0]["status_code"] == "408"


def test_client_that_leaves_gives_its_place_back(start: Start) -> None:
    server = start(batch_wait_ms=500.0)
    client = server.connect()
    client.ask(request())
    client.send(request())
    until_under_way(server.replica)
    client.close()
    until_free(server)
    assert server.replica._metrics_manager.ingress[-1]["status_code"] == "499"


def test_what_is_under_way_when_the_server_shuts_down_is_answered(registry: tuple[Any, str, Any]) -> None:
    endpoint = started_endpoint(registry[0], registry[1], ApiKeys([KEY]), batch_wait_ms=400.0)
    replica = StandIn()
    replica._user_callable_asgi_app = asked = Asked(endpoint)
    with served(lane_to(replica)) as url:
        client = Connection(url)
        client.ask(request())
        client.send(request())
        until_under_way(replica)
        client.send(request())
        time.sleep(0.1)
        assert (replica._metrics_manager.ongoing, asked.requests) == (1, 1)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 2, "the connection is not kept until it has been idle for long"
    status, headers, _ = client.reply()
    assert (status, headers["connection"]) == (200, "close"), "what came behind it was not begun"
    assert client.is_closed()
    assert replica._metrics_manager.ongoing == 0
    client.close()


def test_shutdown_reaches_what_goes_the_long_way_after_all(
    registry: tuple[Any, str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = started_endpoint(registry[0], registry[1], ApiKeys([KEY]), batch_wait_ms=400.0)
    replica = StandIn()
    replica._user_callable_asgi_app = Asked(endpoint)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    with served(lane_to(replica)) as url:
        client = Connection(url)
        client.ask(request())
        monkeypatch.setattr(endpoint.fleet.catalogue.default.stable.engine, "predict", fail)
        client.send(request())
        until_under_way(replica)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 3
    status, headers, _ = client.reply()
    assert (status, headers["connection"]) == (500, "close")
    client.close()


def test_idle_connection_is_closed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    server, before = start(), HttpToolsProtocol.__init__

    def impatient(self: Any, *args: Any, **options: Any) -> None:
        before(self, *args, **options)
        self.timeout_keep_alive = 0.3

    monkeypatch.setattr(HttpToolsProtocol, "__init__", impatient)
    client = server.connect()
    assert [client.ask(request())[0] for _ in range(3)] == [200] * 3
    began_s = time.monotonic()
    assert client.is_closed()
    assert 0.2 < time.monotonic() - began_s < 10


def test_limits_of_a_key_hold_and_what_went_the_long_way_counts_once(start: Start) -> None:
    key, record = make_key("few", (KeyScope.PREDICT,), RateLimits(requests_per_s=0.001, burst=6))
    server = start(ApiKeys(records=(record,)))
    client = server.connect()
    data = [PATCH, PATCH, PATCH[:200], PATCH, PATCH, PATCH, PATCH, PATCH]
    assert [client.ask(request(body, key=key))[0] for body in data] == [
        200,
        200,
        400,
        200,
        200,
        200,
        429,
        429,
    ]
    text = server.endpoint.metrics.text().decode()
    assert 'sentinode_refusals_total{reason="rate"} 2.0' in text


def test_model_that_fails_is_told_in_words(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = start()
    client = server.connect()
    client.ask(request())

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    version = server.endpoint.fleet.catalogue.default.stable
    monkeypatch.setattr(version.engine, "predict", fail)
    status, _, body = client.ask(request())
    assert (status, b"the endpoint failed" in body, b"memory" in body) == (500, True, False)
    monkeypatch.undo()
    assert client.ask(request())[0] == 200
    until_free(server)


def test_full_endpoint_refuses(start: Start) -> None:
    server = start(batch_wait_ms=1000.0, max_waiting_patches=1)
    clients = [server.connect() for _ in range(2)]
    for client in clients:
        client.ask(request())
    clients[0].send(request())
    until_under_way(server.replica)
    status, headers, _ = clients[1].ask(request())
    assert (status, "retry-after" in headers) == (503, True)
    assert clients[0].reply()[0] == 200
