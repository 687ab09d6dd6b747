"""The registry in an S3 store: bundles are sealed and opened, aliases move by compare-and-swap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving_parts import Parts, make_card, make_parts

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.registry import read_alias, resolve, set_alias
from sentinode.errors import BundleError
from sentinode.serving.engine import Engine
from sentinode.storage import Store, join_url, open_store
from sentinode.storage.embedded import EmbeddedStore


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedStore]:
    with EmbeddedStore() as embedded:
        yield embedded


@pytest.fixture
def registry(embedded: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    for name, value in embedded.environment.items():
        monkeypatch.setenv(name, value)
    return open_store(join_url(embedded.url, tmp_path.name))


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return make_parts(tmp_path / "parts")


def test_bundle_is_sealed_and_served_from_s3(registry: Store, parts: Parts, tmp_path: Path) -> None:
    digest = parts.seal(registry)
    assert parts.seal(registry) == digest
    bundle = open_bundle(registry, digest, tmp_path / "cache")
    scores = Engine(bundle).predict(parts.golden.images_BHWC)
    np.testing.assert_allclose(scores.probabilities_B, parts.golden.probabilities_B, atol=1e-5)


def test_object_replaced_in_s3_is_refused(registry: Store, parts: Parts, tmp_path: Path) -> None:
    digest = parts.seal(registry)
    key = f"bundles/{digest}/model.onnx"
    registry.put(key, registry.get(key)[:-1] + b"\x00")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        open_bundle(registry, digest, tmp_path / "cache")


def test_alias_moves_in_s3(registry: Store, parts: Parts) -> None:
    first, second = parts.seal(registry), parts.seal(registry, make_card(licence="CC0"))
    set_alias(registry, "candidate", first)
    set_alias(registry, "candidate", second)
    assert resolve(registry, "candidate") == second
    assert len(read_alias(registry, "candidate").history) == 2
