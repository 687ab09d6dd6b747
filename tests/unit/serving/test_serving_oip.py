"""The Open Inference Protocol over HTTP, on the real application without Ray: replies, refusals, hostile tensors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_parts import encode, make_parts, random_patches, sealed_registry, started_endpoint
from starlette.testclient import TestClient

from sentinode.errors import RequestError
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.keys import Scope, make_key
from sentinode.serving.oip.http import InferResponse, parse
from sentinode.serving.oip.model import OUTPUT_NAMES, ModelConfig, ModelMetadata, ServerMetadata
from sentinode.serving.oip.tensors import pack_bytes, unpack_bytes

PATCHES = random_patches(3, seed=4)
INFER = "/v2/models/default/infer"
MAX_JSON_BYTES = 150_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return sealed_registry(tmp_path_factory.mktemp("oip"))


@pytest.fixture(scope="module")
def client(registry: Any) -> Iterator[TestClient]:
    store, digest, _ = registry
    with TestClient(
        started_endpoint(store, digest, max_body_bytes=MAX_JSON_BYTES, max_patches=8, prevalence=None)
    ) as client:
        yield client


def binary(inputs: list[dict[str, Any]], tail: bytes, **more: Any) -> tuple[bytes, dict[str, str]]:
    text = json.dumps({"inputs": inputs, **more}).encode()
    return text + tail, {"Inference-Header-Content-Length": str(len(text))}


def pixels(raw: bytes = PATCHES.tobytes(), **changes: Any) -> tuple[bytes, dict[str, str]]:
    one = {"name": "images", "shape": [3, 96, 96, 3], "datatype": "UINT8"}
    return binary([{**one, "parameters": {"binary_data_size": len(raw)}, **changes}], raw)


def predicted(client: TestClient) -> list[dict[str, Any]]:
    reply = client.post("/v1/predict", content=PATCHES.tobytes(), headers={"X-Sentinode-Shape": "3,96,96,3"})
    return list(reply.json()["predictions"])


def values(reply: Any) -> dict[str, list[Any]]:
    answer = InferResponse.model_validate_json(reply.content)
    return {one.name: list(one.data or ()) for one in answer.outputs}


def refused(reply: Any, status: int = 400) -> str:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["error"]
    return str(reply.json()["error"])


def test_health_and_metadata(client: TestClient, registry: Any) -> None:
    _, digest, _ = registry
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert "binary_tensor_data" in ServerMetadata.model_validate_json(client.get("/v2").content).extensions
    for path in ("default", digest, f"default/versions/{digest}"):
        about = ModelMetadata.model_validate_json(client.get(f"/v2/models/{path}").content)
        assert (about.name, about.versions) == ("default", (digest,))
        assert [one.name for one in about.outputs] == list(OUTPUT_NAMES)
        assert client.get(f"/v2/models/{path}/ready").status_code == 200
        config = ModelConfig.model_validate_json(client.get(f"/v2/models/{path}/config").content)
        assert config.input[0].dims == (-1, 96, 96, 3)
    assert client.post("/v2/repository/index").json() == [
        {"name": "default", "version": digest, "state": "READY", "reason": ""}
    ]


def test_pixels_and_images_get_what_v1_says(client: TestClient, registry: Any) -> None:
    said = predicted(client)
    body, headers = pixels()
    images = [encode(patch, "PNG") for patch in PATCHES]
    packed = pack_bytes(images)
    encoded = {"name": "encoded_images", "shape": [3], "datatype": "BYTES"}
    text = [base64.b64encode(image).decode() for image in images]
    tail = {"parameters": {"binary_data_size": len(packed)}}
    behind, length = binary([{**encoded, **tail}], packed)
    replies = [
        client.post(INFER, content=body, headers=headers),
        client.post(INFER, content=behind, headers=length),
        client.post(INFER, json={"inputs": [{**encoded, "data": text}]}),
    ]  # fmt: skip
    for reply in replies:
        assert reply.status_code == 200, reply.text
        got = values(reply)
        for name in ("probability", "raw_probability"):
            assert got[name] == pytest.approx([one[name] for one in said], abs=1e-6)
        assert got["prevalence_adjusted_probability"] == [None] * 3
        assert got["verdict"] == [one["verdict"] for one in said]
        assert (got["abstained"], got["flags"]) == ([False] * 3, [""] * 3)
        assert reply.json()["model_version"] == registry[1]
        assert "Research use only" in reply.json()["parameters"]["notice"]


def test_nested_and_flat_json(client: TestClient) -> None:
    one = {"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8"}
    for data in (PATCHES[:1].tolist(), PATCHES[0].reshape(-1).tolist()):
        reply = client.post(INFER, json={"inputs": [{**one, "data": data}], "id": "7"})
        assert reply.json()["id"] == "7"
        assert values(reply)["probability"] == pytest.approx([predicted(client)[0]["probability"]], abs=1e-6)


def test_outputs_are_chosen_and_come_behind_the_json(client: TestClient) -> None:
    outputs = [{"name": "verdict", "parameters": {"binary_data": True}}, {"name": "abstained"},
               {"name": "probability", "parameters": {"binary_data": True}}]  # fmt: skip
    one = {"name": "images", "shape": [3, 96, 96, 3], "datatype": "UINT8"}
    body, headers = binary(
        [{**one, "parameters": {"binary_data_size": PATCHES.nbytes}}], PATCHES.tobytes(), outputs=outputs
    )
    reply = client.post(INFER, content=body, headers=headers)
    size = int(reply.headers["inference-header-content-length"])
    answer, tail = InferResponse.model_validate_json(reply.content[:size]), reply.content[size:]
    assert [one.name for one in answer.outputs] == ["verdict", "abstained", "probability"]
    assert answer.outputs[1].data == (False,) * 3
    words = tail[: (answer.outputs[0].parameters or {})["binary_data_size"]]
    said = predicted(client)
    assert unpack_bytes(memoryview(words), 3, "verdict") == [one["verdict"].encode() for one in said]
    np.testing.assert_allclose(
        np.frombuffer(tail[len(words) :], "<f4"), [one["probability"] for one in said], atol=1e-6
    )


def test_a_flagged_patch_gets_no_number(client: TestClient) -> None:
    body, headers = pixels(bytes(PATCHES.nbytes))
    got = values(client.post(INFER, content=body, headers=headers))
    assert got["probability"] == got["raw_probability"] == [None] * 3
    assert (got["verdict"], got["abstained"], got["flags"]) == (["abstained"] * 3, [True] * 3, ["blank"] * 3)
    body, headers = pixels()
    got = values(client.post(INFER, content=body, headers={**headers, "X-MPP-UM-PX": "0.25"}))
    assert got["flags"] == ["wrong_scale"] * 3


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"name": "pixels"}, 400, "no input 'pixels'; expected: images UINT8 [-1, 96, 96, 3] or encoded_images"),
        ({"datatype": "FP32"}, 400, "datatype 'FP32'; expected: UINT8"),
        ({"shape": [3, 96, 96]}, 400, "shape [3, 96, 96]"),
        ({"shape": [3, 64, 64, 3]}, 400, "does not resize"),
        ({"shape": [0, 96, 96, 3]}, 400, "at least one patch"),
        ({"shape": [-1, 96, 96, 3]}, 400, "at least one patch"),
        ({"shape": [2**63 - 1, 96, 96, 3]}, 413, "at most 8"),
        ({"shape": [2**64, 96, 96, 3]}, 400, "shape"),
        ({"shape": [2, 96, 96, 3]}, 400, "82944 bytes; expected: 55296 bytes"),
        ({"shape": []}, 400, "shape []"),
        ({"parameters": {"binary_data_size": 5}}, 400, "82939 bytes follow"),
        ({"parameters": {"binary_data_size": -5}}, 400, "binary_data_size"),
        ({"parameters": {"binary_data_size": 1e9}}, 400, "binary_data_size"),
        ({"parameters": {}}, 400, "no data"),
        ({"data": [1]}, 400, "two sorts"),
        ({"parameters": {"shared_memory_region": "x", "binary_data_size": 82944}}, 400, "shared_memory_region"),
    ],
)  # fmt: skip
def test_wrong_tensors_are_refused(
    client: TestClient, changes: dict[str, Any], status: int, words: str
) -> None:
    body, headers = pixels(**changes)
    assert words in refused(client.post(INFER, content=body, headers=headers), status)


@pytest.mark.parametrize(
    ("data", "words"),
    [([256] * 27648, "0 to 255"), ([-1] * 27648, "0 to 255"), ([1.5] * 27648, "0 to 255"), ([1], "1 values"),
     (["a" * 100] * 27648 , "the JSON has"), ([[1]] * 27648, "nested"), ([[[[[1]]]]], "nested"), ([], "0 values")],
)  # fmt: skip
def test_wrong_values_are_refused(client: TestClient, data: list[Any], words: str) -> None:
    one = {"name": "images", "shape": [1, 96, 96, 3], "datatype": "UINT8", "data": data}
    assert words in refused(client.post(INFER, json={"inputs": [one]}), 413 if "JSON" in words else 400)


def test_bytes_with_lying_lengths_are_refused(client: TestClient) -> None:
    image = encode(PATCHES[0], "PNG")
    for raw, words in (
        (struct.pack("<I", 2**32 - 1) + image, "says 4294967295"),
        (struct.pack("<I", len(image)) + image + b"x", "1 bytes after"),
        (b"\x00", "ends before element 1 of 1"),
    ):
        size = {"parameters": {"binary_data_size": len(raw)}}
        one = {"name": "encoded_images", "shape": [1], "datatype": "BYTES", **size}
        body, headers = binary([one], raw)
        assert words in refused(client.post(INFER, content=body, headers=headers))
    one = {"name": "encoded_images", "shape": [1], "datatype": "BYTES", "data": ["\x89PNG"]}
    assert "base64" in refused(client.post(INFER, json={"inputs": [one]}))
    one = {"name": "encoded_images", "shape": [1], "datatype": "BYTES", "data": [{"b64": "A"}]}
    assert "base64" in refused(client.post(INFER, json={"inputs": [one]}))


def test_paths_methods_and_names_are_refused_in_the_protocols_words(client: TestClient) -> None:
    assert "no such model; expected: default" in refused(client.get("/v2/models/nobody"), 404)
    assert "no such version" in refused(client.get("/v2/models/default/versions/1"), 404)
    assert "no such page" in refused(client.get("/v2/nothing"), 404)
    assert "not possible" in refused(client.get(INFER), 405)
    assert "is no inference" in refused(client.post(INFER, content=b"[" * 3000))
    assert "no output 'logit'" in refused(
        client.post(INFER, json={"inputs": [], "outputs": [{"name": "logit"}]})
    )
    assert "0 inputs" in refused(client.post(INFER, json={"inputs": []}))
    assert "compressed" in refused(
        client.post(INFER, content=b"x", headers={"content-encoding": "gzip"}), 415
    )
    wrong = {"Inference-Header-Content-Length": "99999"}
    assert "how many of the body's 1 bytes" in refused(client.post(INFER, content=b"x", headers=wrong))


def test_credentials_are_asked_for_and_answers_are_counted(registry: Any) -> None:
    store, digest, _ = registry
    key, record = make_key("a", (Scope.PREDICT, Scope.METRICS))
    with TestClient(started_endpoint(store, digest, ApiKeys(records=[record]))) as client:
        assert client.get("/v2/health/ready").status_code == 200
        body, headers = pixels()
        assert "no valid API key" in refused(client.post(INFER, content=body, headers=headers), 401)
        headers["Authorization"] = f"Bearer {key}"
        assert client.post(INFER, content=body, headers=headers).status_code == 200
        counted = client.get("/metrics", headers=headers).text
        assert 'sentinode_requests_total{path="/v2/*",status="200"}' in counted
        assert f'sentinode_score_count{{bundle="{digest}"}} 3.0' in counted


def test_canaries_versions_and_the_audit_log(tmp_path: Path) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    canary = make_parts(tmp_path / "canary", seed=1).seal(store)
    log = tmp_path / "audit.jsonl"
    traffic = {
        "models": {"main": {"bundle": digest, "canary": {"bundle": canary, "share": 1.0}}},
        "default": "main",
    }
    args = ServeArgs.parse({"registry": store.url, "traffic": traffic, "trust": {"audit_log": log}})
    endpoint = Endpoint(args, ApiKeys())
    asyncio.run(endpoint.reconfigure(traffic))
    body, headers = pixels()
    with TestClient(endpoint) as client:
        assert client.get("/v2/models/main").json()["versions"] == [digest, canary]
        assert client.get(f"/v2/models/main/versions/{canary}").json()["versions"] == [canary]
        first = client.post("/v2/models/main/infer", content=body, headers=headers).json()
        other = client.post(f"/v2/models/main/versions/{digest}/infer", content=body, headers=headers).json()
    assert (first["model_version"], other["model_version"]) == (canary, digest)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["action"], line["bundle"], line["patches"]) for line in lines] == [
        ("predict", canary, 3), ("predict", digest, 3),
    ]  # fmt: skip


HEADS = st.one_of(st.none(), st.binary(max_size=24), st.integers(-5, 300).map(lambda n: str(n).encode()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["name", "shape", "datatype", "data", "parameters", "binary_data_size", "inputs"]), inner
    ),
    max_leaves=12,
)  # fmt: skip
TENSORS = st.fixed_dictionaries(
    {"name": st.sampled_from(["images", "encoded_images"]) | JSON, "shape": st.lists(st.integers()) | JSON,
     "datatype": st.sampled_from(["UINT8", "BYTES"]) | JSON},
    optional={"data": JSON, "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-2, 40) | JSON)},
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    head=HEADS, body=st.fixed_dictionaries({"inputs": st.lists(TENSORS)}) | JSON, tail=st.binary(max_size=40)
)
def test_any_body_is_an_inference_or_a_refusal(head: bytes | None, body: Any, tail: bytes) -> None:
    text = json.dumps(body).encode()
    asked = None
    with contextlib.suppress(RequestError):
        asked, _ = parse(text + tail, str(len(text)).encode() if head == b"" else head, 1000)
    if asked is not None:
        assert sum(len(one.raw) for one in asked.inputs if one.raw is not None) <= len(tail)


@settings(max_examples=300, deadline=None)
@given(
    raw=st.binary(max_size=64), count=st.integers(1, 9), elements=st.lists(st.binary(max_size=20), max_size=9)
)
def test_bytes_tensors_come_back_or_are_refused(raw: bytes, count: int, elements: list[bytes]) -> None:
    assert unpack_bytes(memoryview(pack_bytes(elements)), len(elements), "x") == elements
    try:
        found = unpack_bytes(memoryview(raw), count, "x")
    except RequestError:
        return
    assert pack_bytes(found) == raw
