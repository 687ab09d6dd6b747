"""The dense graph of a bundle: whole tiles are scored as their patches are, by real ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dense_parts import TINY, detector, seal_detector
from serving_parts import make_parts, random_patches

from sentinode.bundle.bundle import DENSE_NAME, FILE_NAMES, open_bundle
from sentinode.bundle.dense_model import DENSE_TOLERANCE, DenseModel, patch_logits
from sentinode.bundle.golden import Golden
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.seal import seal
from sentinode.errors import BundleError
from sentinode.models.dense import dense_geometry, export_dense_onnx
from sentinode.models.dense_geometry import DenseGeometry
from sentinode.models.families import ModelConfig, P4mDensenetConfig, SeedCnnConfig, ValidCnnConfig
from sentinode.schema import PATCH_PX
from sentinode.storage import open_store

SYMMETRIC = ValidCnnConfig(input_px=64, widths=(2, 2), blocks=(1, 0), tail_width=3)
WHOLE = P4mDensenetConfig(stem_width=1, growth=1)


@pytest.mark.parametrize(
    ("config", "tta"), [(TINY, False), (TINY, True), (SYMMETRIC, False), (WHOLE, False)], ids=str
)
def test_a_tile_is_scored_as_its_patches(tmp_path: Path, config: ModelConfig, tta: bool) -> None:
    store = open_store(str(tmp_path / "registry"))
    made = detector(config, tta=tta)
    bundle = open_bundle(store, seal_detector(store, tmp_path / "parts", made), tmp_path / "cache")
    geometry = bundle.card.dense
    assert geometry == dense_geometry(made)
    assert bundle.dense_path is not None
    assert geometry is not None
    # A tile of another shape than was exported, and that the windows fill exactly, as scoring plans its tiles.
    height, width = PATCH_PX + 5 * geometry.stride_px, PATCH_PX + 3 * geometry.stride_px
    tile = random_patches(1)[0].repeat(3, 0).repeat(3, 1)[:height, :width]
    alone = patch_logits(OnnxModel(bundle.onnx_path), tile, geometry.stride_px)
    c = geometry.crop_px
    inner = np.ascontiguousarray(tile[None, c : height - c, c : width - c])
    dense = DenseModel(bundle.dense_path, geometry).logits(inner)
    assert dense.shape == (1, 6, 4)
    assert alone.std() > 20 * DENSE_TOLERANCE
    np.testing.assert_allclose(dense[0], alone, atol=DENSE_TOLERANCE, rtol=0)


def test_networks_that_resize_or_pad_have_no_dense_form(tmp_path: Path) -> None:
    made = detector(SeedCnnConfig())
    assert export_dense_onnx(made, tmp_path / "dense.onnx") is None
    assert not (tmp_path / "dense.onnx").exists()
    store = open_store(str(tmp_path / "registry"))
    bundle = open_bundle(store, seal_detector(store, tmp_path / "parts", made), tmp_path / "cache")
    assert bundle.card.dense is None
    assert bundle.dense_path is None
    assert set(bundle.card.files) == set(FILE_NAMES)


def test_dense_graph_of_other_weights_is_not_sealed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "registry"))
    seal_detector(store, tmp_path / "parts", detector())
    other = tmp_path / "other.onnx"
    geometry = export_dense_onnx(detector(seed=1), other)
    parts, images, onnx = make_parts(tmp_path / "tiny"), random_patches(6), tmp_path / "parts" / "model.onnx"
    with pytest.raises(BundleError, match="as the patch graph says"):
        seal(
            store,
            parts.card.model_copy(update={"dense": geometry}),
            onnx_path=onnx,
            safetensors_path=parts.safetensors_path,
            golden=Golden.of(images, OnnxModel(onnx).logits(images), parts.card.calibration),
            model_card="",
            dense_path=other,
        )


def test_wrong_geometry_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "dense.onnx"
    export_dense_onnx(detector(), path)
    model = DenseModel(path, DenseGeometry(window_px=48, stride_px=4, crop_px=24))
    with pytest.raises(BundleError, match=r"gives \[1, 9, 9\] logits"):
        model.logits(np.zeros((1, 96, 96, 3), np.uint8))


def test_a_patch_graph_is_no_dense_graph(tmp_path: Path) -> None:
    parts = make_parts(tmp_path)
    with pytest.raises(BundleError, match="to logits"):
        DenseModel(parts.onnx_path, DenseGeometry(window_px=64, stride_px=4, crop_px=16))


def test_card_without_its_dense_graph_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "registry"))
    digest = seal_detector(store, tmp_path / "parts", detector())
    Path(store.url, "bundles", digest, DENSE_NAME).unlink()
    with pytest.raises(BundleError, match=r"dense\.onnx is missing"):
        open_bundle(store, digest, tmp_path / "cache")
