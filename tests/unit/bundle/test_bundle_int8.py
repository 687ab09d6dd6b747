"""The int8 graph: made from patches, its cost measured, and refused where it is not the one that was sealed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from serving_parts import make_card, make_parts, random_patches, write_onnx

from sentinode.bundle.bundle import FILE_NAMES, INT8_NAME, open_bundle
from sentinode.bundle.int8 import Int8Facts
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.quantise import int8_facts, quantise
from sentinode.bundle.seal import seal
from sentinode.bundle.verify import golden_difference, open_verified
from sentinode.errors import BundleError
from sentinode.evaluation.calibrator import Calibration
from sentinode.storage import open_store

FACTS = Int8Facts(
    method="static QDQ", calibration_patches=8, patches=9, auroc=0.9, auroc_loss=0.001, golden_difference=0
)


def test_static_int8_is_close_and_holds_int8_weights(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model.onnx")
    images = random_patches(40)
    assert quantise(tmp_path / "model.onnx", tmp_path / INT8_NAME, images) == "static QDQ"
    exact, int8 = (OnnxModel(tmp_path / name).logits(images) for name in ("model.onnx", INT8_NAME))
    assert np.corrcoef(exact, int8)[0, 1] > 0.99
    assert not np.array_equal(exact, int8)
    assert b"QuantizeLinear" in (tmp_path / INT8_NAME).read_bytes()
    one_by_one = [OnnxModel(tmp_path / INT8_NAME).logits(image[None])[0] for image in images[:3]]
    np.testing.assert_allclose(one_by_one, int8[:3], atol=1e-4)


def test_without_patches_to_see_ranges_the_other_way_is_taken(tmp_path: Path) -> None:
    write_onnx(tmp_path / "model.onnx")
    images = random_patches(8)
    assert quantise(tmp_path / "model.onnx", tmp_path / INT8_NAME, images[:0]) == "dynamic"
    exact, int8 = (OnnxModel(tmp_path / name).logits(images) for name in ("model.onnx", INT8_NAME))
    assert np.corrcoef(exact, int8)[0, 1] > 0.98


def test_what_is_no_graph_cannot_be_quantised(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match="cannot be quantised"):
        quantise(tmp_path / "model.onnx", tmp_path / INT8_NAME, random_patches(2))


def test_the_loss_is_the_paired_difference_of_aurocs() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    exact = (labels + rng.normal(size=300)).astype(np.float32)
    noisy = (exact + rng.normal(size=300)).astype(np.float32)
    found = int8_facts("dynamic", labels, exact, noisy, None, 0.1)
    assert found.auroc_loss_low is not None
    assert found.auroc_loss_high is not None
    assert 0 < found.auroc_loss_low < found.auroc_loss < found.auroc_loss_high
    assert (found.calibration_patches, found.patches) == (0, 300)
    same = int8_facts("static QDQ", labels, exact, exact, np.arange(300) // 30, 0.0)
    assert (same.auroc_loss, same.auroc_loss_low) == (0, 0)


def test_a_bundle_keeps_int8_and_notices_another_graph(tmp_path: Path) -> None:
    parts = make_parts(tmp_path / "parts")
    store, path = open_store(str(tmp_path / "registry")), tmp_path / INT8_NAME
    quantise(parts.onnx_path, path, random_patches(16, seed=3))
    difference = golden_difference(OnnxModel(path), parts.golden, Calibration())
    facts = FACTS.model_copy(update={"golden_difference": difference})

    def sealed(card_facts: Int8Facts | None, int8_path: Path | None) -> str:
        return seal(
            store,
            make_card(int8=card_facts),
            onnx_path=parts.onnx_path,
            safetensors_path=parts.safetensors_path,
            golden=parts.golden,
            model_card="# tiny\n",
            int8_path=int8_path,
        )

    bundle = open_verified(store, sealed(facts, path), tmp_path / "cache")
    assert bundle.int8_path is not None
    assert bundle.int8_path.read_bytes() == path.read_bytes()
    assert set(bundle.card.files) == {*FILE_NAMES, INT8_NAME}
    assert bundle.card.int8 == facts
    assert open_bundle(store, sealed(None, None), tmp_path / "cache").int8_path is None
    for half in ((facts, None), (None, path)):
        with pytest.raises(BundleError, match="int8 graph of which one is missing"):
            sealed(*half)
    write_onnx(path, seed=1)
    with pytest.raises(BundleError, match=r"model\.int8\.onnx gives a golden probability"):
        sealed(facts, path)
