"""The engine starts only where golden patches are reproduced, and its scores do not depend on the batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serving_parts import random_patches, sealed_registry, write_onnx

from sentinode.bundle.bundle import Bundle, open_bundle
from sentinode.errors import BundleError, ConfigError
from sentinode.serving.engine import Engine


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
