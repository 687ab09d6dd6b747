"""Sealing and opening: what went in comes out, and nothing else does."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from serving_parts import Parts, make_card, make_parts, sealed_registry

from sentinode.bundle.bundle import FILE_NAMES, MODEL_CARD_NAME, open_bundle, read_card
from sentinode.bundle.golden import Golden
from sentinode.errors import BundleError
from sentinode.evaluation.calibrator import Calibration
from sentinode.storage import Store, open_store


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Store, str, Parts]:
    return sealed_registry(tmp_path)


def _file(store: Store, digest: str, name: str) -> Path:
    return Path(store.url) / "bundles" / digest / name


def test_bundle_opens_as_it_was_sealed(sealed: tuple[Store, str, Parts], tmp_path: Path) -> None:
    store, digest, parts = sealed
    bundle = open_bundle(store, digest, tmp_path / "cache")
    assert bundle.digest == digest
    assert bundle.card == parts.card.model_copy(update={"files": bundle.card.files})
    assert set(bundle.card.files) == set(FILE_NAMES)
    assert (bundle.folder / MODEL_CARD_NAME).read_text() == "# Model card: tiny\n"
    assert bundle.onnx_path.read_bytes() == parts.onnx_path.read_bytes()
    assert bundle.safetensors_path.read_bytes() == parts.safetensors_path.read_bytes()
    np.testing.assert_array_equal(bundle.golden.images_BHWC, parts.golden.images_BHWC)
    np.testing.assert_array_equal(bundle.golden.probabilities_B, parts.golden.probabilities_B)


def test_digest_is_the_sha256_of_the_card(sealed: tuple[Store, str, Parts]) -> None:
    store, digest, _ = sealed
    assert hashlib.sha256(_file(store, digest, "card.json").read_bytes()).hexdigest() == digest
    assert read_card(store, digest).digest() == digest


def test_sealing_again_changes_nothing(sealed: tuple[Store, str, Parts]) -> None:
    store, digest, parts = sealed
    before = {info.key: info.etag for info in store.list()}
    assert parts.seal(store) == digest
    assert {info.key: info.etag for info in store.list()} == before


def test_other_content_gives_another_digest(sealed: tuple[Store, str, Parts]) -> None:
    store, digest, parts = sealed
    assert parts.seal(store, make_card(licence="CC0")) != digest


def test_seal_that_was_killed_is_completed(sealed: tuple[Store, str, Parts], tmp_path: Path) -> None:
    store, digest, parts = sealed
    _file(store, digest, "card.json").unlink()
    _file(store, digest, "model.safetensors").unlink()
    with pytest.raises(BundleError, match="there is no bundle"):
        open_bundle(store, digest, tmp_path / "cache")
    assert parts.seal(store) == digest
    assert open_bundle(store, digest, tmp_path / "cache").card.name == "tiny"


@pytest.mark.parametrize("name", FILE_NAMES)
def test_changed_file_is_refused(sealed: tuple[Store, str, Parts], tmp_path: Path, name: str) -> None:
    store, digest, _ = sealed
    path = _file(store, digest, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=name):
        open_bundle(store, digest, tmp_path / "cache")


@pytest.mark.parametrize("name", FILE_NAMES)
def test_truncated_or_missing_file_is_refused(
    sealed: tuple[Store, str, Parts], tmp_path: Path, name: str
) -> None:
    store, digest, _ = sealed
    path = _file(store, digest, name)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BundleError, match=name):
        open_bundle(store, digest, tmp_path / "cache")
    path.unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        open_bundle(store, digest, tmp_path / "cache")


@pytest.mark.parametrize("name", FILE_NAMES)
def test_sealing_anew_repairs_a_damaged_file(
    sealed: tuple[Store, str, Parts], tmp_path: Path, name: str
) -> None:
    store, digest, parts = sealed
    path = _file(store, digest, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert parts.seal(store) == digest
    assert open_bundle(store, digest, tmp_path / "cache").digest == digest


def test_changed_card_is_refused(sealed: tuple[Store, str, Parts], tmp_path: Path) -> None:
    store, digest, parts = sealed
    path = _file(store, digest, "card.json")
    path.write_bytes(path.read_bytes().replace(b'"threshold":0.5', b'"threshold":0.9'))
    with pytest.raises(BundleError, match="changed after sealing"):
        open_bundle(store, digest, tmp_path / "cache")
    with pytest.raises(BundleError, match="exists with other content"):
        parts.seal(store)


@pytest.mark.parametrize(
    ("name", "reason"), [("weights.pt", "pickled code"), ("notes.txt", "not on the card")]
)
def test_unknown_file_is_refused(
    sealed: tuple[Store, str, Parts], tmp_path: Path, name: str, reason: str
) -> None:
    store, digest, _ = sealed
    _file(store, digest, name).write_bytes(b"anything")
    with pytest.raises(BundleError, match=reason):
        open_bundle(store, digest, tmp_path / "cache")


def test_damaged_cache_is_repaired(sealed: tuple[Store, str, Parts], tmp_path: Path) -> None:
    store, digest, parts = sealed
    first = open_bundle(store, digest, tmp_path / "cache")
    first.onnx_path.write_bytes(b"x" * first.onnx_path.stat().st_size)
    second = open_bundle(store, digest, tmp_path / "cache")
    assert second.onnx_path.read_bytes() == parts.onnx_path.read_bytes()


@pytest.mark.parametrize("digest", ["latest", "a" * 63, "../" + "a" * 61, "A" * 64])
def test_what_is_no_digest_is_refused(tmp_path: Path, digest: str) -> None:
    with pytest.raises(BundleError, match="no bundle digest"):
        open_bundle(open_store(str(tmp_path)), digest, tmp_path / "cache")


def test_graph_that_does_not_give_the_golden_probabilities_is_not_sealed(tmp_path: Path) -> None:
    parts, other = make_parts(tmp_path / "a", seed=0), make_parts(tmp_path / "b", seed=1)
    wrong = Parts(parts.card, other.onnx_path, parts.safetensors_path, parts.golden)
    store = open_store(str(tmp_path / "registry"))
    with pytest.raises(BundleError, match="golden patch"):
        wrong.seal(store)
    assert list(store.list()) == []


def test_golden_of_another_calibration_is_not_sealed(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    card = make_card(calibration=Calibration(kind="platt", a=0.5, b=0.1))
    with pytest.raises(BundleError, match="golden patch"):
        parts.seal(open_store(str(tmp_path / "registry")), card)


def test_graph_with_external_data_is_not_sealed(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    model = onnx.load(parts.onnx_path)
    onnx.save_model(
        model, parts.onnx_path, save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )
    with pytest.raises(BundleError, match="external data"):
        parts.seal(open_store(str(tmp_path / "registry")))


def test_pickle_under_the_name_of_the_weights_is_not_sealed(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    parts.safetensors_path.write_bytes(b"\x80\x04\x95" + bytes(64))
    with pytest.raises(BundleError, match="safetensors"):
        parts.seal(open_store(str(tmp_path / "registry")))


@pytest.mark.parametrize(
    "images",
    [np.zeros((0, 96, 96, 3), np.uint8), np.zeros((1, 95, 96, 3), np.uint8), np.zeros((1, 96, 96, 3))],
)
def test_golden_of_wrong_shape_or_type_is_refused(images: np.ndarray) -> None:
    with pytest.raises(BundleError, match=r"images is"):
        Golden.of(images, np.zeros(len(images), np.float32), Calibration())


def test_golden_that_is_not_finite_is_refused() -> None:
    with pytest.raises(BundleError, match="finite"):
        Golden.of(np.zeros((1, 96, 96, 3), np.uint8), np.array([np.nan]), Calibration())


def test_nan_probability_does_not_reproduce_golden(tmp_path: Path) -> None:
    golden = make_parts(tmp_path).golden
    given = golden.probabilities_B.copy()
    given[3] = np.nan
    with pytest.raises(BundleError, match="golden patch 3"):
        golden.check_reproduced(given, "a broken runtime")
