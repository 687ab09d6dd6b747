"""schemathesis against the endpoint's own OpenAPI document: what it promises is what it does, whatever is sent."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served_parts import served
from serving_parts import encode, make_parts, random_patches

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.stain import StainStatistics
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import create_app
from sentinode.serving.auth import ApiKeys
from sentinode.serving.engine import Engine
from sentinode.storage import open_store

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("schema")
    store, parts = open_store(str(folder / "registry")), make_parts(folder / "parts")
    card = parts.card.model_copy(update={"stain": StainStatistics.of(random_patches(200, seed=5))})
    engine = Engine(open_bundle(store, parts.seal(store, card), folder / "cache"))
    with served(
        create_app(engine, ServeArgs(registry="unused", bundle=engine.bundle.digest), ApiKeys())
    ) as url:
        yield url


@pytest.mark.parametrize(
    "asked",
    [
        "POST /v1/predict", "POST /v1/explain", "GET /v1/models", "GET /v1/bundles/{digest}", "GET /healthz",
        "GET /metrics", "GET /v2", "GET /v2/health/live", "GET /v2/health/ready", "POST /v2/repository/index",
        "GET /v2/models/{name}", "GET /v2/models/{name}/ready", "GET /v2/models/{name}/config",
        "POST /v2/models/{name}/infer", "POST /v2/models/{name}/versions/{version}/infer",
    ],
)  # fmt: skip
def test_the_endpoint_does_what_it_promises(url: str, asked: str) -> None:
    method, path = asked.split()
    operation = schemathesis.openapi.from_url(f"{url}/openapi.json")[path][method]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    def every(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=list(CHECKS))

    every()


def test_no_operation_is_left_out(url: str) -> None:
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    assert len(list(document.get_all_operations())) == 18


def test_real_answers_conform(url: str) -> None:
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    with httpx.Client(base_url=url, timeout=60) as client:
        png, digest = encode(random_patches(1)[0], "PNG"), client.get("/healthz").json()["bundle"]
        one = {"content": png, "headers": {"content-type": "image/png"}}
        several = {"files": [("image", ("a.png", png)), ("image", ("b.png", png))]}
        tensor = {"name": "encoded_images", "shape": [1], "datatype": "BYTES"}
        inference = {"inputs": [{**tensor, "data": [base64.b64encode(png).decode()]}]}
        asked = [
            ("POST", "/v1/predict", "/v1/predict", one),
            ("POST", "/v1/predict", "/v1/predict", several),
            ("POST", "/v1/explain", "/v1/explain", one),
            ("GET", "/v1/models", "/v1/models", {}),
            ("GET", "/v1/bundles/{digest}", f"/v1/bundles/{digest}", {}),
            ("GET", "/metrics", "/metrics", {}),
            ("GET", "/v2", "/v2", {}),
            ("GET", "/v2/models/{name}", "/v2/models/default", {}),
            ("GET", "/v2/models/{name}/config", "/v2/models/default/config", {}),
            ("POST", "/v2/models/{name}/infer", "/v2/models/default/infer", {"json": inference}),
            ("POST", "/v2/repository/index", "/v2/repository/index", {}),
        ]
        for method, operation, path, options in asked:
            response = client.request(method, path, **options)  # type: ignore[arg-type]
            assert response.status_code == 200, path
            response.request.read()
            document[operation][method].validate_response(response)
