"""The Open Inference Protocol's gRPC messages, on the real application without Ray or a socket."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_parts import encode, random_patches, sealed_registry, started_endpoint
from starlette.testclient import TestClient

from sentinode.errors import RequestError
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.keys import RateLimits, Scope, make_key
from sentinode.serving.oip.grpc_app import PREFIX, Reply, call
from sentinode.serving.oip.grpc_wire import inference_of, split
from sentinode.serving.oip.messages import METHODS, message
from sentinode.serving.oip.model import OUTPUT_NAMES
from sentinode.serving.oip.tensors import pack_bytes

PATCHES = random_patches(3, seed=4)
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sealed_registry(tmp_path_factory.mktemp("oip-grpc"))


@pytest.fixture
def endpoint(registry: Any) -> Endpoint:
    store, digest, _ = registry
    return started_endpoint(store, digest, max_body_bytes=150_000, max_patches=8)


def ask(endpoint: Endpoint, method: str, request: Any = None, **metadata: str) -> Reply:
    body = (
        request
        if isinstance(request, bytes)
        else (request or message(f"{method}Request")()).SerializeToString()
    )
    return asyncio.run(call(endpoint, method, [(k.replace("_", "-"), v) for k, v in metadata.items()], body))


def answered(endpoint: Endpoint, method: str, request: Any = None, **metadata: str) -> Any:
    reply = ask(endpoint, method, request, **metadata)
    assert reply.code is grpc.StatusCode.OK, reply.details
    return message(f"{method}Response").FromString(reply.message)


def request(raw: bytes | None = PATCHES.tobytes(), **changes: Any) -> Any:
    one = {"name": "images", "datatype": "UINT8", "shape": [3, 96, 96, 3]}
    asked = message("ModelInferRequest")(model_name="default", inputs=[{**one, **changes}])
    if raw is not None:
        asked.raw_input_contents.append(raw)
    return asked


def test_health_and_metadata(endpoint: Endpoint, registry: Any) -> None:
    _, digest, _ = registry
    assert answered(endpoint, "ServerLive").live
    assert answered(endpoint, "ServerReady").ready
    assert answered(endpoint, "ServerMetadata").name == "sentinode"
    assert answered(endpoint, "ModelReady", message("ModelReadyRequest")(name="default")).ready
    assert not answered(endpoint, "ModelReady", message("ModelReadyRequest")(name="nobody")).ready
    about = answered(endpoint, "ModelMetadata", message("ModelMetadataRequest")(name=digest))
    assert (about.name, list(about.versions)) == ("default", [digest])
    assert [one.name for one in about.outputs] == list(OUTPUT_NAMES)
    assert list(about.inputs[0].shape) == [-1, 96, 96, 3]
    config = answered(endpoint, "ModelConfig", message("ModelConfigRequest")(name="default")).config
    assert [(one.name, one.data_type, one.optional) for one in config.input] == [
        ("images", 2, True), ("encoded_images", 13, True),
    ]  # fmt: skip
    (only,) = answered(endpoint, "RepositoryIndex").models
    assert (only.name, only.version, only.state) == ("default", digest, "READY")


def test_raw_and_typed_contents_get_what_v1_says(endpoint: Endpoint, registry: Any) -> None:
    with TestClient(endpoint) as client:
        shape = {"X-Sentinode-Shape": "3,96,96,3"}
        said = client.post("/v1/predict", content=PATCHES.tobytes(), headers=shape).json()["predictions"]
        images = [encode(patch, "PNG") for patch in PATCHES]
        encoded = {"name": "encoded_images", "datatype": "BYTES", "shape": [3]}
        asked = [
            request(),
            request(pack_bytes(images), **encoded),
            request(None, **encoded, contents={"bytes_contents": images}),
            request(None, shape=[1, 96, 96, 3], contents={"uint_contents": PATCHES[0].reshape(-1).tolist()}),
        ]
        for one in asked:
            reply = answered(endpoint, "ModelInfer", one)
            raw = dict(zip([one.name for one in reply.outputs], reply.raw_output_contents, strict=True))
            expected = [one["probability"] for one in said][: one.inputs[0].shape[0]]
            np.testing.assert_allclose(np.frombuffer(raw["probability"], "<f4"), expected, atol=1e-6)
            assert raw["verdict"] == pack_bytes([one["verdict"].encode() for one in said][: len(expected)])
            assert np.isnan(np.frombuffer(raw["prevalence_adjusted_probability"], "<f4")).all()
            assert (reply.model_version, reply.outputs[0].shape) == (registry[1], [len(expected)])
            assert {one.key for one in reply.parameters} == {"operating_point", "threshold", "notice"}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (request(b"x"), "1 bytes; expected: 82944 bytes"),
        (request(shape=[-3, 96, 96, 3]), "at least one patch"),
        (request(shape=[2**63 - 1, 96, 96, 3]), "at most 8"),
        (request(datatype="FP32"), "datatype 'FP32'"),
        (request(datatype="BYTES"), "expected: UINT8"),
        (request(name="pixels"), "no input 'pixels'"),
        (request(contents={"uint_contents": [1]}), "contents and raw_input_contents"),
        (request(None, shape=[1, 96, 96, 3], contents={"uint_contents": [256] * 27648}), "0 to 255"),
        (request(None, contents={"bytes_contents": [b"x"]}), "0 values"),
        (request(None), "0 values"),
        (request(struct.pack("<I", 2**31), name="encoded_images", datatype="BYTES", shape=[1]), "says 2147483648"),
        (request(None, parameters=[{"key": "shared_memory_region"}]), "shared_memory_region is not supported"),
        (message("ModelInferRequest")(model_name="default"), "0 inputs"),
        (message("ModelInferRequest")(model_name="default", raw_input_contents=[b""]), "1 raw_input_contents for 0"),
        (message("ModelInferRequest")(model_name="default", id="a" * 150_000), "beside raw_input_contents"),
        (b"\x2a\x00" * 65, "more than 64 fields"),
        (b"\x3a\xff\xff\xff\xff\x7f", "where 0 are left"),
        (b"\xff" * 11, "does not end"),
        (b"\x0b\x00", "wire type 3"),
        (b"\x0a\x02\xff\xff", "no ModelInferRequest"),
    ],
)  # fmt: skip
def test_wrong_messages_are_invalid(endpoint: Endpoint, asked: Any, words: str) -> None:
    reply = ask(endpoint, "ModelInfer", asked)
    assert reply.code is INVALID
    assert words in reply.details
    assert reply.SerializeToString() == b""


def test_unknown_names_are_not_found(endpoint: Endpoint) -> None:
    asked = request()
    asked.model_version = "1"
    for one, words in ((asked, "no such version"), (message("ModelInferRequest")(), "names no model")):
        reply = ask(endpoint, "ModelInfer", one)
        assert reply.code is grpc.StatusCode.NOT_FOUND
        assert words in reply.details
    assert ask(endpoint, "ModelStreamInfer", b"").code is grpc.StatusCode.NOT_FOUND
    with TestClient(endpoint) as client:
        assert client.post(f"{PREFIX}ServerLive").status_code == 404, "it is no path of HTTP"


def test_credentials_scopes_and_rates_are_those_of_http(registry: Any) -> None:
    store, digest, _ = registry
    key, record = make_key("a", (Scope.PREDICT,), RateLimits(requests_per_s=0.01, burst=2))
    other, metrics = make_key("b", (Scope.METRICS,))
    endpoint = started_endpoint(store, digest, ApiKeys(records=[record, metrics]))
    assert answered(endpoint, "ServerReady").ready
    for method in set(METHODS) - {"ServerLive", "ServerReady"}:
        reply = ask(endpoint, method)
        assert reply.code is grpc.StatusCode.UNAUTHENTICATED
        assert "no valid API key" in reply.details
    assert ask(endpoint, "ModelInfer", request(), x_api_key=other).code is grpc.StatusCode.PERMISSION_DENIED
    answered(endpoint, "ModelInfer", request(), x_api_key=key)
    answered(endpoint, "ModelInfer", request(), authorization=f"Bearer {key}")
    assert ask(endpoint, "ModelInfer", request(), x_api_key=key).code is grpc.StatusCode.RESOURCE_EXHAUSTED
    with TestClient(endpoint) as client:
        counted = client.get("/metrics", headers={"x-api-key": other}).text
    assert f'sentinode_requests_total{{path="{PREFIX}*",status="200"}} 3.0' in counted


def test_a_wrong_scale_is_flagged(endpoint: Endpoint) -> None:
    reply = answered(endpoint, "ModelInfer", request(), x_mpp_um_px="0.25")
    assert np.isnan(np.frombuffer(reply.raw_output_contents[0], "<f4")).all()
    assert reply.raw_output_contents[5] == pack_bytes([b"wrong_scale"] * 3)


@settings(max_examples=500, deadline=None)
@given(body=st.binary(max_size=80), at=st.integers(0, 200), byte=st.integers(0, 255))
def test_any_bytes_are_an_inference_or_a_refusal(body: bytes, at: int, byte: int) -> None:
    real = bytearray(request(b"abc").SerializeToString())
    real[at % len(real)] = byte
    for one in (body, bytes(real)):
        with contextlib.suppress(RequestError):
            _, _, asked = inference_of(one, 1000)
            assert sum(len(tensor.raw or b"") for tensor in asked.inputs) <= len(one)


def test_raw_tensors_are_not_copied() -> None:
    body = request().SerializeToString()
    head, (raw,) = split(body)
    assert raw.obj is body
    assert bytes(raw) == PATCHES.tobytes()
    assert len(head) + len(raw) < len(body)
