"""The engine starts only where golden patches are reproduced, and its scores do not depend on the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serving_parts import make_card, make_parts, random_patches, sealed_registry, write_onnx

from sentinode.bundle.bundle import INT8_NAME, Bundle, open_bundle
from sentinode.bundle.int8 import Int8Facts
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.quantise import quantise
from sentinode.bundle.seal import seal
from sentinode.bundle.verify import golden_difference
from sentinode.errors import BundleError, ConfigError
from sentinode.serving.engine import Engine
from sentinode.storage import open_store


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    store, digest, _ = sealed_registry(tmp_path)
    return open_bundle(store, digest, tmp_path / "cache")


def test_scores_do_not_depend_on_the_batch(bundle: Bundle) -> None:
    engine = Engine(bundle)
    images = random_patches(33, seed=5)
    together = engine.predict(images).probabilities_B
    alone = [engine.predict(image[None]).probabilities_B[0] for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.ptp(together) > 0.01


def test_engine_with_another_graph_does_not_start(bundle: Bundle) -> None:
    write_onnx(bundle.onnx_path, seed=9)
    with pytest.raises(BundleError, match="golden patch"):
        Engine(bundle)


def test_engine_with_a_broken_graph_does_not_start(bundle: Bundle) -> None:
    bundle.onnx_path.write_bytes(bundle.onnx_path.read_bytes()[:-50])
    with pytest.raises(BundleError, match="no ONNX file"):
        Engine(bundle)


def test_golden_difference_above_the_tolerance_is_refused(bundle: Bundle) -> None:
    shifted = replace(bundle.golden, probabilities_B=bundle.golden.probabilities_B + 2e-5)
    with pytest.raises(BundleError, match="1e-05"):
        Engine(replace(bundle, golden=shifted))


def test_verdict_follows_the_operating_point(bundle: Bundle) -> None:
    engine = Engine(bundle)
    assert [engine.verdict(p) for p in (0.499, 0.5, 0.501)] == ["negative", "tumour", "tumour"]
    assert Engine(bundle, operating_point="sensitive").verdict(0.0) == "tumour"


def test_unknown_operating_point_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="balanced, sensitive"):
        Engine(bundle, operating_point="best")


def sealed_int8(folder: Path) -> Bundle:
    parts, store = make_parts(folder / "parts"), open_store(str(folder / "registry"))
    path = folder / INT8_NAME
    method = quantise(parts.onnx_path, path, random_patches(64, seed=3))
    # Processors without instructions for int8 products saturate sums and are further off: measured here.
    off = golden_difference(OnnxModel(path), parts.golden, make_card().calibration)
    facts = Int8Facts(
        method=method,
        calibration_patches=64,
        patches=300,
        auroc=0.89,
        auroc_loss=0.01,
        golden_difference=off,
    )
    digest = seal(
        store,
        make_card(int8=facts),
        onnx_path=parts.onnx_path,
        safetensors_path=parts.safetensors_path,
        golden=parts.golden,
        model_card="# Model card: tiny\n",
        int8_path=path,
    )
    return open_bundle(store, digest, folder / "cache")


def test_int8_answers_where_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle, images = sealed_int8(tmp_path), random_patches(33, seed=5)
    with caplog.at_level("INFO", "sentinode.serving.engine"):
        small = Engine(bundle, precision="int8")
    assert "AUROC 0.8900 on validation, -0.0100 against float" in caplog.text
    assert bundle.int8_path is not None
    np.testing.assert_array_equal(small.predict(images).logits_B, OnnxModel(bundle.int8_path).logits(images))
    assert not np.array_equal(small.predict(images).logits_B, Engine(bundle).predict(images).logits_B)


def test_int8_that_is_further_off_than_its_card_says_does_not_start(tmp_path: Path) -> None:
    bundle = sealed_int8(tmp_path)
    assert bundle.int8_path is not None
    write_onnx(bundle.int8_path, seed=9)
    with pytest.raises(BundleError, match="golden probability"):
        Engine(bundle, precision="int8")


def test_int8_of_a_bundle_without_it_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match="no int8 graph"):
        Engine(bundle, precision="int8")
