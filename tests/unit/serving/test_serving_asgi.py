"""The ASGI application without Ray: routes, refusals, keys, metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving_parts import Parts, encode, random_patches, sealed_registry
from starlette.testclient import TestClient

from sentinode.bundle.bundle import open_bundle
from sentinode.errors import ConfigError
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import create_app
from sentinode.serving.auth import KEYS_VARIABLE, ApiKeys
from sentinode.serving.engine import Engine
from sentinode.serving.protocol import Prediction, Refusal

KEY = "0123456789abcdef-key"


@pytest.fixture(scope="module")
def engine_and_parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engine, Parts]:
    folder = tmp_path_factory.mktemp("asgi")
    store, digest, parts = sealed_registry(folder)
    return Engine(open_bundle(store, digest, folder / "cache")), parts


def client_of(engine: Engine, keys: ApiKeys) -> TestClient:
    args = ServeArgs(registry="unused", bundle=engine.bundle.digest, max_body_bytes=50_000)
    return TestClient(create_app(engine, args, keys), raise_server_exceptions=False)


@pytest.fixture
def client(engine_and_parts: tuple[Engine, Parts]) -> Iterator[TestClient]:
    with client_of(engine_and_parts[0], ApiKeys()) as client:
        yield client


def refusal(response) -> Refusal:  # type: ignore[no-untyped-def]
    assert response.headers["content-type"] == "application/json"
    return Refusal.model_validate_json(response.content)


def test_golden_patches_get_their_probabilities(
    client: TestClient, engine_and_parts: tuple[Engine, Parts]
) -> None:
    engine, parts = engine_and_parts
    for patch, probability in zip(parts.golden.images_BHWC, parts.golden.probabilities_B, strict=True):
        response = client.post("/v1/predict", content=encode(patch, "PNG"))
        assert response.status_code == 200
        reply = Prediction.model_validate_json(response.content)
        assert reply.probability == pytest.approx(probability, abs=1e-5)
        assert reply.verdict == ("tumour" if probability >= 0.5 else "negative")
        assert (reply.operating_point, reply.threshold) == ("balanced", 0.5)
        assert reply.bundle == engine.bundle.digest
        assert "Research use only" in reply.notice


def test_health_and_card(client: TestClient, engine_and_parts: tuple[Engine, Parts]) -> None:
    bundle = engine_and_parts[0].bundle
    assert client.get("/healthz").json() == {"status": "ok", "bundle": bundle.digest}
    assert client.get(f"/v1/bundles/{bundle.digest}").json() == bundle.card.model_dump(mode="json")
    assert refusal(client.get(f"/v1/bundles/{'d' * 64}")).status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/predict", 405),
        ("DELETE", "/v1/predict", 405),
        ("POST", "/healthz", 405),
        ("POST", "/", 405),
        ("GET", "/viewer/nothing.js", 404),
        ("GET", "/viewer/../app.py", 404),
        ("GET", "/viewer/%2e%2e%2fapp.py", 404),
        ("POST", "/v1/predict/", 404),
        ("GET", "/v1/bundles/../../etc/passwd", 404),
        ("GET", "/v1/bundles/%2e%2e%2fetc", 404),
    ],
)
def test_wrong_method_or_path_is_refused_in_json(
    client: TestClient, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    assert response.status_code == refusal(response).status == status


def test_body_above_the_limit_is_refused(client: TestClient) -> None:
    assert refusal(client.post("/v1/predict", content=bytes(50_001))).status == 413


def test_body_without_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 10_000
            yield bytes(10_000)

    assert refusal(client.post("/v1/predict", content=endless())).status == 413


def test_refusal_says_what_was_expected(client: TestClient) -> None:
    response = client.post("/v1/predict", content=b"GIF89a")
    assert response.status_code == 415
    assert "JPEG, PNG or TIFF" in refusal(response).expected
    assert response.headers["x-content-type-options"] == "nosniff"


def test_fault_of_the_model_is_a_plain_500(engine_and_parts: tuple[Engine, Parts]) -> None:
    class Broken(Engine):
        def predict(self, images_BHWC):  # type: ignore[no-untyped-def]
            raise RuntimeError("secret inner state")

    broken = Broken.__new__(Broken)
    broken.__dict__ = engine_and_parts[0].__dict__
    with client_of(broken, ApiKeys()) as client:
        response = client.post("/v1/predict", content=encode(random_patches(1)[0], "PNG"))
        assert refusal(response).status == 500
        assert b"secret" not in response.content
        assert b'status="500"' in client.get("/metrics").content


def test_metrics_count_what_happened(engine_and_parts: tuple[Engine, Parts]) -> None:
    engine, parts = engine_and_parts
    with client_of(engine, ApiKeys()) as client:
        for patch in parts.golden.images_BHWC:
            client.post("/v1/predict", content=encode(patch, "JPEG"))
        client.post("/v1/predict", content=b"no image")
        client.get("/etc/passwd")
        text = client.get("/metrics").text
    count = len(parts.golden.images_BHWC)
    assert f'sentinode_requests_total{{path="/v1/predict",status="200"}} {count}.0' in text
    assert 'sentinode_requests_total{path="/v1/predict",status="415"} 1.0' in text
    assert 'sentinode_requests_total{path="other",status="404"} 1.0' in text
    assert f"sentinode_score_count {count}.0" in text
    assert f"sentinode_batch_size_sum {count}.0" in text
    assert f'bundle="{engine.bundle.digest}"' in text
    assert "passwd" not in text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"X-API-Key": "wrong"}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": f"Bearer {KEY}"}, 200),
        ({"X-API-Key": KEY}, 200),
    ],
)
def test_keys_are_asked_for(
    engine_and_parts: tuple[Engine, Parts], headers: dict[str, str], status: int
) -> None:
    with client_of(engine_and_parts[0], ApiKeys(["another-key-0123456789", KEY])) as client:
        body = encode(random_patches(1)[0], "PNG")
        assert client.post("/v1/predict", content=body, headers=headers).status_code == status
        assert client.get("/metrics", headers=headers).status_code == status
        assert client.get("/nowhere", headers=headers).status_code == (404 if status == 200 else 401)
        assert client.get("/healthz").status_code == 200


def test_beyond_loopback_keys_are_a_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match=KEYS_VARIABLE):
        ApiKeys.from_environment(loopback_only=False)
    ApiKeys.from_environment(loopback_only=True)
    monkeypatch.setenv(KEYS_VARIABLE, f" {KEY} , ")
    ApiKeys.from_environment(loopback_only=False)
    monkeypatch.setenv(KEYS_VARIABLE, "short")
    with pytest.raises(ConfigError, match="16 characters"):
        ApiKeys.from_environment(loopback_only=True)
