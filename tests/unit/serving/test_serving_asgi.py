"""The ASGI application without Ray: routes, refusals, keys, metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from serving_parts import Parts, encode, random_patches, sealed_registry, started_endpoint
from starlette.testclient import TestClient

from sentinode.bundle.bundle import read_card
from sentinode.errors import ConfigError
from sentinode.serving.auth import KEYS_VARIABLE, ApiKeys
from sentinode.serving.engine import Engine
from sentinode.serving.predictor import Job, Predictor, Scored, decoded_at_once
from sentinode.serving.protocol import Prediction, Refusal
from sentinode.storage import Store

KEY = "0123456789abcdef-key"


Registry = tuple[Store, str, Parts]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return sealed_registry(tmp_path_factory.mktemp("asgi"))


def client_of(registry: Registry, keys: ApiKeys) -> TestClient:
    store, digest, _ = registry
    return TestClient(started_endpoint(store, digest, keys, max_body_bytes=50_000))


@pytest.fixture
def client(registry: Registry) -> Iterator[TestClient]:
    with client_of(registry, ApiKeys()) as client:
        yield client


def refusal(response) -> Refusal:  # type: ignore[no-untyped-def]
    assert response.headers["content-type"] == "application/json"
    return Refusal.model_validate_json(response.content)


def test_golden_patches_get_their_probabilities(client: TestClient, registry: Registry) -> None:
    _, digest, parts = registry
    for patch, probability in zip(parts.golden.images_BHWC, parts.golden.probabilities_B, strict=True):
        response = client.post("/v1/predict", content=encode(patch, "PNG"))
        assert response.status_code == 200
        reply = Prediction.model_validate_json(response.content)
        assert reply.probability == pytest.approx(probability, abs=1e-5)
        assert reply.verdict == ("tumour" if probability >= 0.5 else "negative")
        assert (reply.operating_point, reply.threshold) == ("balanced", 0.5)
        assert reply.bundle == digest
        assert "Research use only" in reply.notice


def test_health_and_card(client: TestClient, registry: Registry) -> None:
    store, digest, _ = registry
    assert client.get("/healthz").json() == {"status": "ok", "bundle": digest}
    assert client.get(f"/v1/bundles/{digest}").json() == read_card(store, digest).model_dump(mode="json")
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


def test_fault_of_the_model_is_a_plain_500(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret inner state")

    with client_of(registry, ApiKeys()) as client:
        monkeypatch.setattr(Engine, "predict", broken)
        response = client.post("/v1/predict", content=encode(random_patches(1)[0], "PNG"))
        assert refusal(response).status == 500
        assert b"secret" not in response.content
        assert b'status="500"' in client.get("/metrics").content


def test_metrics_count_what_happened(registry: Registry) -> None:
    _, digest, parts = registry
    with client_of(registry, ApiKeys()) as client:
        for patch in parts.golden.images_BHWC:
            client.post("/v1/predict", content=encode(patch, "JPEG"))
        client.post("/v1/predict", content=b"no image")
        client.get("/etc/passwd")
        text = client.get("/metrics").text
    count = len(parts.golden.images_BHWC)
    assert f'sentinode_requests_total{{path="/v1/predict",status="200"}} {count}.0' in text
    assert 'sentinode_requests_total{path="/v1/predict",status="415"} 1.0' in text
    assert 'sentinode_requests_total{path="other",status="404"} 1.0' in text
    assert f'sentinode_score_count{{bundle="{digest}"}} {count}.0' in text
    assert f"sentinode_batch_size_sum {count}.0" in text
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
def test_keys_are_asked_for(registry: Registry, headers: dict[str, str], status: int) -> None:
    with client_of(registry, ApiKeys(["another-key-0123456789", KEY])) as client:
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


def test_images_get_the_same_answer_wherever_they_are_decoded(registry: Registry) -> None:
    store, digest, _ = registry
    version = started_endpoint(store, digest).fleet.catalogue.default.stable
    predictor = Predictor(version.engine, version.trust.gate.check, version.trust.count)

    def predict(jobs: list[Job]) -> list[Scored | Exception]:
        return predictor.conclude(predictor.compute(jobs))

    patches = random_patches(4, seed=5)
    images = [encode(patch, "JPEG", quality=90) for patch in patches]
    jobs = [decoded_at_once(Job((image,))) for image in images]
    assert all(job.pixels_BHWC is not None and job.decode_s > 0 for job in jobs)
    in_thread = decoded_at_once(Job((encode(patches[1], "JPEG", quality=90, progressive=True),)))
    assert in_thread.images
    alone = [predict([Job((image,))])[0] for image in images]
    for together in (predict(jobs), predict([jobs[0], in_thread, *jobs[2:]])):
        for one, other in zip(alone, together, strict=True):
            assert isinstance(one, Scored)
            assert isinstance(other, Scored)
            assert other.probabilities == pytest.approx(one.probabilities, abs=1e-6)
    assert len({scored.probabilities[0] for scored in alone if isinstance(scored, Scored)}) == len(images)
