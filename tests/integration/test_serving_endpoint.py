"""The whole endpoint: a PyTorch detector exported, sealed and served by a real Ray Serve over real HTTP."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from serving_parts import Parts, encode, make_card, random_patches

import sentinode
from sentinode.bundle.bundle import Bundle, open_bundle
from sentinode.bundle.golden import Golden
from sentinode.distributed.cluster import ray_session
from sentinode.errors import ConfigError, RequestError
from sentinode.evaluation.calibrator import Calibration
from sentinode.models.export import export_onnx
from sentinode.models.families import SeedCnnConfig, build_model
from sentinode.models.preprocess import Detector, Preprocess, PreprocessConfig
from sentinode.serving.args import ServeArgs
from sentinode.serving.client import Client
from sentinode.serving.engine import Engine
from sentinode.serving.local import LocalEndpoint
from sentinode.serving.protocol import Refusal
from sentinode.storage import open_store

PATCH = random_patches(1, seed=2)[0]
MAX_BODY_BYTES = 200_000


@dataclass(frozen=True)
class Served:
    """The running endpoint and what it serves."""

    endpoint: LocalEndpoint
    bundle: Bundle


def detector_parts(folder: Path) -> Parts:
    """An untrained seed CNN, its logits stretched so that probabilities differ, and what PyTorch says."""
    torch.manual_seed(7)
    detector = Detector(Preprocess(PreprocessConfig()), build_model(SeedCnnConfig())).eval()
    images = random_patches(8, seed=1)
    with torch.no_grad():
        last = [module for module in detector.net.modules() if isinstance(module, torch.nn.Linear)][-1]
        last.weight *= 40
        logits_B = detector(torch.from_numpy(images))
        last.bias[1] -= logits_B.mean()
        logits_B = detector(torch.from_numpy(images))
    export_onnx(detector, folder / "model.onnx")
    save_file(detector.net.state_dict(), folder / "model.safetensors")
    golden = Golden.of(images, logits_B.numpy(), Calibration())
    card = make_card(name="seed-cnn", golden_computed_by=f"PyTorch {torch.__version__} (CPU)")
    return Parts(card, folder / "model.onnx", folder / "model.safetensors", golden)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    store = open_store(str(folder / "registry"))
    digest = detector_parts(folder).seal(store)
    args = ServeArgs(
        registry=store.url,
        bundle=digest,
        cpus_per_replica=0.5,
        max_body_bytes=MAX_BODY_BYTES,
        batch_wait_ms=20,
    )
    with ray_session("local", num_cpus=2), LocalEndpoint(args) as endpoint:
        yield Served(endpoint, open_bundle(store, digest, folder / "cache"))


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.endpoint.url) as client:
        yield client


def ask(served: Served, method: str, path: str, body: bytes | Iterator[bytes] = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", served.endpoint.port, timeout=20)
    try:
        connection.request(method, path, body, encode_chunked=not isinstance(body, bytes))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_golden_patches_get_the_probability_that_pytorch_gave(served: Served, client: Client) -> None:
    golden = served.bundle.golden
    assert np.ptp(golden.probabilities_B) > 0.1
    for patch, probability in zip(golden.images_BHWC, golden.probabilities_B, strict=True):
        reply = client.predict(encode(patch, "PNG"))
        assert reply.probability == pytest.approx(probability, abs=1e-5)
        assert reply.verdict == ("tumour" if probability >= reply.threshold else "negative")
        assert reply.bundle == served.bundle.digest


def test_real_patches_are_answered_in_order(served: Served, client: Client, real_data: Path) -> None:
    paths = sorted((real_data / "kaggle" / "train").glob("*.tif"))[:40]
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    expected = Engine(served.bundle).predict(images).probabilities_B
    replies = list(client.predict_many(path.read_bytes() for path in paths))
    np.testing.assert_allclose([reply.probability for reply in replies], expected, atol=1e-5)
    assert np.ptp(expected) > 0.01


def test_pixels_are_scored_in_one_request(served: Served, client: Client) -> None:
    golden = served.bundle.golden
    reply = client.predict_pixels(golden.images_BHWC)
    given = [patch.probability for patch in reply.predictions]
    np.testing.assert_allclose(given, golden.probabilities_B, atol=1e-5)
    assert sentinode.Client is Client


def test_concurrent_requests_share_batches(served: Served) -> None:
    before = batches(served)
    with Client(served.endpoint.url, connections=32) as client:
        assert len(list(client.predict_many([encode(PATCH, "JPEG")] * 320))) == 320
    count, total = (after - was for after, was in zip(batches(served), before, strict=True))
    assert total / count > 1.5


def batches(served: Served) -> tuple[float, float]:
    """Number of requests, and the sum of the sizes of their batches."""
    text = ask(served, "GET", "/metrics")[1].decode()
    values = [re.search(rf"^sentinode_batch_size_{what} (\S+)$", text, re.M) for what in ("count", "sum")]
    assert all(values)
    return tuple(float(value[1]) for value in values if value)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"plain text", 415),
        (encode(PATCH, "GIF"), 415),
        (encode(PATCH, "TIFF", compression="zstd"), 415),
        (encode(PATCH, "JPEG")[:300], 400),
        (encode(PATCH, "PNG")[:-200], 400),
        (encode(PATCH[:, :95], "PNG"), 422),
        (encode(np.zeros((6000, 6000, 3), np.uint8), "PNG"), 422),
        (b"\xff\xd8\xff" + bytes(MAX_BODY_BYTES), 413),
        (bytes(20_000_000), 413),
    ],
    ids=["empty", "text", "gif", "zstd-tiff", "cut-jpeg", "cut-png", "95x96", "bomb", "large", "huge"],
)
def test_bad_bodies_are_refused_in_json(served: Served, body: bytes, status: int) -> None:
    given, reply = ask(served, "POST", "/v1/predict", body)
    refusal = Refusal.model_validate_json(reply)
    assert given == refusal.status == status
    assert refusal.reason


def test_body_without_length_is_refused_at_the_limit(served: Served) -> None:
    status, reply = ask(served, "POST", "/v1/predict", iter([bytes(10_000)] * 100))
    assert (status, Refusal.model_validate_json(reply).status) == (413, 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/predict", 405),
        ("PUT", "/healthz", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/", 405),
        ("POST", "/nowhere", 404),
    ],
)
def test_wrong_method_or_path_is_refused_in_json(served: Served, method: str, path: str, status: int) -> None:
    given, reply = ask(served, method, path)
    assert (given, Refusal.model_validate_json(reply).status) == (status, status)


def test_bad_image_does_not_disturb_its_batch(client: Client) -> None:
    good = encode(PATCH, "PNG")
    expected = client.predict(good).probability

    def outcome(body: bytes) -> float:
        try:
            return client.predict(body).probability
        except RequestError as error:
            return error.status

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(outcome, [good, b"no image"] * 20))
    assert outcomes[1::2] == [415] * 20
    np.testing.assert_allclose(outcomes[::2], expected, atol=1e-6)


def test_refusal_reaches_the_client_as_a_typed_error(client: Client) -> None:
    with pytest.raises(RequestError, match="95x96") as caught:
        client.predict(encode(PATCH[:, :95], "PNG"))
    assert caught.value.status == 422


def test_health_card_and_metrics_are_served(served: Served) -> None:
    digest = served.bundle.digest
    assert ask(served, "GET", "/healthz") == (200, f'{{"status":"ok","bundle":"{digest}"}}'.encode())
    status, card = ask(served, "GET", f"/v1/bundles/{digest}")
    assert (status, b'"seed-cnn"' in card) == (200, True)
    status, text = ask(served, "GET", "/metrics")
    assert status == 200
    assert f'bundle="{digest}"'.encode() in text


def test_page_of_a_foreign_name_gets_nothing(served: Served) -> None:
    for host, status in (("evil.example", 421), ("localhost", 200)):
        assert httpx.get(f"{served.endpoint.url}/v1/models", headers={"Host": host}).status_code == status


def test_second_endpoint_in_the_same_ray_is_refused(served: Served) -> None:
    args = ServeArgs(registry="unused", bundle=served.bundle.digest)
    with pytest.raises(ConfigError, match="runs already"), LocalEndpoint(args):
        raise AssertionError("must not start")
    assert ask(served, "GET", "/healthz")[0] == 200
