"""The real tritonclient against a real Ray Serve, over HTTP and gRPC.

It wants another protobuf than Ray, so it lives in a folder of its own (.ci/install-tritonclient) and runs in a
process of its own.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from serving_parts import encode, random_patches, sealed_registry

from sentinode.distributed.cluster import ray_session
from sentinode.serving.args import ServeArgs
from sentinode.serving.local import LocalEndpoint
from sentinode.serving.oip.messages import SERVICE

PATCHES = random_patches(5, seed=9)
KEY = "triton-test-key-0123456789"
TRITONCLIENT = Path(os.environ.get("SENTINODE_TRITONCLIENT", Path(sys.prefix) / "tritonclient"))
BOTH = pytest.mark.parametrize("kind", ["http", "grpc"])


@dataclass(frozen=True)
class Served:
    """The endpoint, and what its clients got."""

    endpoint: LocalEndpoint
    got: dict[str, Any]
    said: list[dict[str, Any]]
    """What ``POST /v1/predict`` says of the patches."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not (TRITONCLIENT / "tritonclient").is_dir():
        pytest.skip(f"tritonclient is not installed in {TRITONCLIENT}: run .ci/install-tritonclient")
    folder = tmp_path_factory.mktemp("triton")
    store, digest, _ = sealed_registry(folder)
    np.save(folder / "pixels.npy", PATCHES)
    for number, patch in enumerate(PATCHES):
        (folder / f"{number}.png").write_bytes(encode(patch, "PNG"))
    args = ServeArgs(registry=store.url, bundle=digest, cpus_per_replica=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SENTINODE_API_KEYS", KEY)
        with ray_session("local", num_cpus=2), LocalEndpoint(args, grpc_port=0) as endpoint:
            yield Served(endpoint, asked(endpoint, folder), predicted(endpoint))


def asked(endpoint: LocalEndpoint, folder: Path) -> dict[str, Any]:
    worker = Path(__file__).with_name("triton_worker.py")
    result = subprocess.run(
        [sys.executable, "-S", str(worker), f"127.0.0.1:{endpoint.port}", f"127.0.0.1:{endpoint.grpc_port}",
         KEY, str(folder)],
        env={**os.environ, "PYTHONPATH": str(TRITONCLIENT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


def predicted(endpoint: LocalEndpoint) -> list[dict[str, Any]]:
    headers = {"X-API-Key": KEY, "X-Sentinode-Shape": "5,96,96,3"}
    reply = httpx.post(f"{endpoint.url}/v1/predict", content=PATCHES.tobytes(), headers=headers, timeout=60)
    return list(reply.json()["predictions"])


@BOTH
def test_health_and_metadata(served: Served, kind: str) -> None:
    got, digest = served.got[kind], served.endpoint.bundle
    assert (got["live"], got["ready"], got["model_ready"], got["unknown_ready"]) == (True, True, True, False)
    assert got["server"]["name"] == "sentinode"
    assert (got["model"]["name"], got["model"]["versions"]) == ("default", [digest])
    assert [one["name"] for one in got["model"]["inputs"]] == ["images", "encoded_images"]
    config = got["config"].get("config", got["config"])
    assert [one["data_type"] for one in config["input"]] == ["TYPE_UINT8", "TYPE_STRING"]
    index = got["index"]["models"] if kind == "grpc" else got["index"]
    assert [(one["name"], one["version"]) for one in index] == [("default", digest)]


@BOTH
@pytest.mark.parametrize("sent", ["pixels", "encoded", "pinned"])
def test_answers_are_those_of_v1(served: Served, kind: str, sent: str) -> None:
    got = served.got[kind][sent]
    for name in ("probability", "raw_probability"):
        assert got[name] == pytest.approx([one[name] for one in served.said], abs=1e-6)
    assert got["verdict"] == [one["verdict"] for one in served.said]
    assert (got["abstained"], got["flags"]) == ([False] * 5, [""] * 5)


@BOTH
def test_seven_megabytes_are_one_request(served: Served, kind: str) -> None:
    expected = np.resize([one["probability"] for one in served.said], 256)
    np.testing.assert_allclose(served.got[kind]["bulk"], expected, atol=1e-6)


@BOTH
def test_a_reply_says_who_answered_and_holds_what_was_asked(served: Served, kind: str) -> None:
    got = served.got[kind]
    assert (got["version"], got["id"]) == (served.endpoint.bundle, "r1")
    assert got["chosen"] == ["flags", "probability"]
    assert got["flagged"]["flags"] == ["wrong_scale"] * 5
    assert all(math.isnan(value) for value in got["flagged"]["probability"])


def test_refusals_are_typed(served: Served) -> None:
    for kind, statuses in (
        ("http", ("401", "404", "400")),
        ("grpc", ("StatusCode.UNAUTHENTICATED", "StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT")),
    ):
        got = served.got[kind]
        assert tuple(got[name][0] for name in ("no_key", "no_model", "wrong_type")) == statuses
        assert "no valid API key" in got["no_key"][1]
        assert "expected: default" in got["no_model"][1]
        assert "'FP32'; expected: UINT8" in got["wrong_type"][1]


def test_hostile_bytes_do_no_harm_over_real_grpc(served: Served) -> None:
    rng = np.random.default_rng(3)
    with grpc.insecure_channel(f"127.0.0.1:{served.endpoint.grpc_port}") as channel:
        infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        codes = set()
        for size in (0, 1, 5, 100, 5000, 2_000_000) * 5:
            with pytest.raises(grpc.RpcError) as refused:
                infer(rng.bytes(size), metadata=[("x-api-key", KEY)], timeout=60)
            codes.add(refused.value.code())
        assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(f"/{SERVICE}/reconfigure")(b"", timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [one["probability"] for one in predicted(served.endpoint)] == pytest.approx(
        [one["probability"] for one in served.said], abs=1e-6
    )
