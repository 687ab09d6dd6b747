"""Without keys an endpoint answers only to the names of its own machine (DNS rebinding)."""

from __future__ import annotations

from pathlib import Path

import pytest
from replica_parts import Asked, Connection, StandIn, lane_to
from served_parts import served
from serving_parts import encode, random_patches, sealed_registry, started_endpoint
from starlette.testclient import TestClient

from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.hosts import are_local, is_local

PATCH = encode(random_patches(1)[0], "JPEG")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8000",
        "sentinode.localhost:1",
        "localhost.",
        "127.0.0.1:8000",
        "127.1.2.3",
        "[::1]",
        "[::1]:80",
    ],
)
def test_names_of_this_machine(host: str) -> None:
    assert is_local(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.test", "notlocalhost", "127.evil",
        "127.0.0.1@evil", "10.0.0.1", "0.0.0.0", "[::2]", "localhost:80:80", "localhost,evil.example", "[::1].evil",
    ],
)  # fmt: skip
def test_names_of_others(host: str) -> None:
    assert not is_local(host.encode())


def test_every_host_of_a_request_counts() -> None:
    assert are_local([(b"accept", b"evil.example")]), "no browser sends none"
    assert not are_local([(b"host", b"localhost"), (b"host", b"evil.example")])


def test_nothing_is_answered_to_another_host() -> None:
    args = ServeArgs.model_validate({"registry": "unused", "bundle": "a" * 64})
    endpoint = Endpoint(args, ApiKeys(), local_alone=True)
    with TestClient(endpoint) as client:
        for path in ("/", "/metrics", "/v1/predict", "/v1/models", "/v2/models/default", "/openapi.json"):
            reply = client.get(path, headers={"host": "evil.example:8000"})
            assert reply.status_code == 421, path
            assert "localhost" in reply.text
        text = client.get("/metrics", headers={"host": "127.0.0.1:8000"}).text
        assert client.get("/openapi.json", headers={"host": "[::1]:8000"}).status_code == 200
    assert 'sentinode_refusals_total{reason="host"} 6.0' in text


def test_nor_past_the_application(tmp_path: Path) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    endpoint = started_endpoint(store, digest, local_alone=True)
    replica = StandIn()
    replica._user_callable_asgi_app = asked = Asked(endpoint)

    def request(host: str) -> bytes:
        lines = ["POST /app/v1/predict HTTP/1.1", f"Host: {host}", f"Content-Length: {len(PATCH)}", "", ""]
        return "\r\n".join(lines).encode() + PATCH

    with served(lane_to(replica)) as url:
        client = Connection(url)
        hosts = ("localhost", "localhost", "evil.example", "127.0.0.1")
        assert [client.ask(request(host))[0] for host in hosts] == [200, 200, 421, 200]
        assert asked.requests == 2, "the first, and the one that was refused"
        client.close()
