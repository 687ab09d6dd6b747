"""What must not come up: a damaged bundle, and an open port without keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray import serve
from serving_parts import sealed_registry

from sentinode.distributed.cluster import ray_session
from sentinode.errors import SentinodeError
from sentinode.serving.application import build
from sentinode.serving.args import ServeArgs
from sentinode.serving.local import LocalEndpoint


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with ray_session("local", num_cpus=2):
        yield


@pytest.mark.usefixtures("local_ray")
def test_damaged_bundle_is_not_served_and_the_reason_is_told(tmp_path: Path) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    path = Path(store.url) / "bundles" / digest / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    args = ServeArgs(registry=store.url, bundle=digest)
    with (
        pytest.raises(SentinodeError, match=r"model\.onnx has \d+ bytes"),
        LocalEndpoint(args),
    ):
        raise AssertionError("must not start")


@pytest.mark.usefixtures("local_ray")
def test_open_port_without_keys_is_not_served(tmp_path: Path) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    serve.start(http_options={"host": "0.0.0.0", "port": 0})
    try:
        with pytest.raises(RuntimeError):
            serve.run(build({"registry": store.url, "bundle": digest}), name="open")
        (deployment,) = serve.status().applications["open"].deployments.values()
        assert "SENTINODE_API_KEYS" in deployment.message
    finally:
        serve.shutdown()
