"""Traces over real OTLP: a collector of this test's own receives what the endpoint's exporter sends."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from serving_parts import Parts, encode, random_patches, sealed_registry, started_endpoint
from starlette.testclient import TestClient

from sentinode.errors import ConfigError, MissingDependencyError
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.oip.grpc_app import call
from sentinode.serving.tracing import open_tracing
from sentinode.storage import Store

PNG = encode(random_patches(1, seed=2)[0], "PNG")
PIXELS = random_patches(3, seed=3)
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
STAGES = ["guard", "read", "queue", "decode", "inference", "gate", "reply"]
KEY = "0123456789abcdef-key"
Registry = tuple[Store, str, Parts]


class Collector:
    """An OpenTelemetry collector that keeps what it gets."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.requests.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def spans(self) -> list[Span]:
        scopes = (s for r in self.requests for one in r.resource_spans for s in one.scope_spans)
        return [span for scope in scopes for span in scope.spans]

    def server_span(self) -> Span:
        (span,) = (span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER)
        return span

    def stages(self) -> list[Span]:
        """In order of their begin."""
        children = [span for span in self.spans if span.parent_span_id == self.server_span().span_id]
        return sorted(children, key=lambda span: span.start_time_unix_nano)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return sealed_registry(tmp_path_factory.mktemp("traced"))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server.server_port}")
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def endpoint_of(registry: Registry, keys: ApiKeys | None = None) -> Endpoint:
    return started_endpoint(registry[0], registry[1], keys)


def attributes(span: Span) -> dict[str, object]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_request_is_one_trace_below_the_clients(registry: Registry, collector: Collector) -> None:
    with TestClient(endpoint_of(registry)) as client:
        headers = {"traceparent": TRACEPARENT, "x-request-id": "mine-1"}
        assert client.post("/v1/predict", content=PNG, headers=headers).status_code == 200
    # The client's end closes the endpoint, which sends what it has.
    span, stages = collector.server_span(), collector.stages()
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.name == "POST /v1/predict"
    assert [stage.name for stage in stages] == STAGES
    assert {stage.trace_id for stage in stages} == {span.trace_id}
    ends = [stage.end_time_unix_nano for stage in stages]
    assert ends == sorted(ends)
    assert stages[0].start_time_unix_nano == span.start_time_unix_nano
    assert ends[-1] == span.end_time_unix_nano
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "sentinode.request_id": "mine-1",
        "sentinode.bundle": registry[1],
        "sentinode.patches": 1,
        "sentinode.batch_patches": 1,
    }
    (resource,) = {one.resource.SerializeToString() for r in collector.requests for one in r.resource_spans}
    assert b"service.name" in resource
    assert b"sentinode" in resource


def test_refused_request_stops_at_the_guard_and_tells_no_key(
    registry: Registry, collector: Collector
) -> None:
    with TestClient(endpoint_of(registry, ApiKeys((KEY,)))) as client:
        refused = client.post("/v1/predict", content=PNG, headers={"x-api-key": "wrong-key-0123456789"})
        assert refused.status_code == 401
    assert [stage.name for stage in collector.stages()] == ["guard"]
    assert attributes(collector.server_span())["http.response.status_code"] == 401
    assert not any(b"wrong-key" in request.SerializeToString() for request in collector.requests)


def test_bad_image_is_traced_as_far_as_it_came(registry: Registry, collector: Collector) -> None:
    with TestClient(endpoint_of(registry)) as client:
        headers = {"traceparent": "00-no-trace-01"}
        assert client.post("/v1/predict", content=b"no image", headers=headers).status_code == 415
    assert [stage.name for stage in collector.stages()] == ["guard", "read"]
    assert not collector.server_span().parent_span_id, "a traceparent that is none begins a trace"


def test_grpc_carries_the_trace(registry: Registry, collector: Collector) -> None:
    endpoint = endpoint_of(registry)
    reply = asyncio.run(call(endpoint, "ServerLive", [("traceparent", TRACEPARENT)], b""))
    endpoint.close()
    assert reply.code is grpc.StatusCode.OK
    assert collector.server_span().trace_id.hex() == TRACE


def test_sampler_of_the_environment_decides(
    registry: Registry, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with TestClient(endpoint_of(registry)) as client:
        shape = {"x-sentinode-shape": "3,96,96,3", "traceparent": TRACEPARENT}
        assert client.post("/v1/predict", content=PIXELS.tobytes(), headers=shape).status_code == 200
    assert not collector.spans


@pytest.mark.parametrize("variables", [{}, {"OTEL_TRACES_EXPORTER": "none"},
    {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}])  # fmt: skip
def test_off_means_nothing_is_imported(variables: dict[str, str], repository: Path) -> None:
    code = (
        "import sys; from sentinode.serving.args import ServeArgs; from sentinode.serving.asgi import Endpoint\n"
        "from sentinode.serving.auth import ApiKeys\n"
        "before = {n for n in sys.modules if n.startswith('opentelemetry')}\n"
        "endpoint = Endpoint(ServeArgs(registry='x', bundle='0' * 64), ApiKeys())\n"
        "assert endpoint._http == endpoint._watched\n"
        "assert 'sentinode.serving.spans' not in sys.modules\n"
        "assert {n for n in sys.modules if n.startswith('opentelemetry')} == before"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environment = {**clean, "PYTHONPATH": str(repository / "platform"), **variables}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_console_is_an_exporter(repository: Path) -> None:
    code = (
        "from starlette.testclient import TestClient; from sentinode.serving.args import ServeArgs\n"
        "from sentinode.serving.asgi import Endpoint; from sentinode.serving.auth import ApiKeys\n"
        "endpoint = Endpoint(ServeArgs(registry='x', bundle='0' * 64), ApiKeys())\n"
        "with TestClient(endpoint) as client: client.get('/v1/nothing')"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(repository / "platform"),
        "OTEL_TRACES_EXPORTER": "console",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert '"name": "GET other"' in done.stdout


def test_exporter_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    with pytest.raises(MissingDependencyError, match=r"sentinode\[traces\]"):
        open_tracing("r")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(MissingDependencyError, match="pip install opentelemetry-exporter-otlp-proto-grpc"):
        open_tracing("r")


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin", "none, otlp or one of console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon", "http/protobuf or grpc"),
    ],
)
def test_wrong_settings_are_named(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=words):
        open_tracing("r")
