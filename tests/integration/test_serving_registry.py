"""The registry in an S3 store: bundles are sealed and opened, aliases move by compare-and-swap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serving_parts import Parts, make_card, make_parts

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.registry import list_aliases, read_alias, resolve, set_alias
from sentinode.commands.serve import ServeCommand
from sentinode.errors import BundleError, StoreError
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, slides_table
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


def test_a_registry_copied_from_a_folder_by_any_tool_is_good(
    registry: Store, parts: Parts, tmp_path: Path
) -> None:
    folder = open_store(str(tmp_path / "registry"))
    digest = parts.seal(folder)
    set_alias(folder, "candidate", digest)
    files = [path for path in (tmp_path / "registry").rglob("*") if path.is_file()]
    for path in files:
        registry.upload(path, str(path.relative_to(tmp_path / "registry")))
    assert any(path.name.startswith(".") for path in files), "the folder left no lock"
    assert [alias.name for alias in list_aliases(registry)] == ["candidate"]
    open_bundle(registry, digest, tmp_path / "cache")


def test_a_place_for_corrections_that_is_not_there_is_told_at_the_start(
    registry: Store, parts: Parts
) -> None:
    digest = parts.seal(registry)
    record = SlideScore(slide="a", url="a.tif", status="done", key="k" * 64, bundle=digest)
    registry.put(SLIDES_NAME, slides_table([record]))
    command = ServeCommand(
        registry=registry.url, bundle=digest, scores=registry.url, corrections="s3://no-such/c"
    )
    with pytest.raises(StoreError, match="no such bucket"):
        command.args()
    assert command.model_copy(update={"corrections": registry.locate("new")}).args().slides is not None


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
