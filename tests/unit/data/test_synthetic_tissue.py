"""The parts of the synthetic tissue: noise, cells, tumour, stain and compression."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sentinode.data.synthetic import SyntheticConfig, synthetic_patches
from sentinode.data.tissue.cells import CellType, draw_cells, lattice, scatter
from sentinode.data.tissue.jpeg import compress
from sentinode.data.tissue.noise import blur, ramp, smooth_noise
from sentinode.data.tissue.scene import Tissue
from sentinode.data.tissue.stain import Scanner, digitise
from sentinode.data.tissue.tumour import draw_tumour_style, grow_tumour
from sentinode.schema import CENTRE_PX, PATCH_PX

MIDDLE = slice((PATCH_PX - CENTRE_PX) // 2, (PATCH_PX + CENTRE_PX) // 2)
CELL = CellType(
    radius=6.0,
    axis=4.0,
    spread=0.1,
    elongation=0.2,
    chromatin=2.0,
    vesicular=0.2,
    haematoxylin=0.1,
    eosin=0.4,
)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


@pytest.mark.parametrize("grain_px", [1.5, 5.0, 14.0])
def test_smooth_noise_is_standardised_and_coarser_with_its_grain(grain_px: float) -> None:
    fields = np.stack([smooth_noise(generator(i), grain_px) for i in range(24)])
    assert fields.dtype == np.float32
    assert abs(float(fields.mean())) < 0.25
    assert 0.85 < float(fields.std()) < 1.15
    step = float(np.abs(np.diff(fields, axis=2)).mean())
    assert step < 2.0 / grain_px


def test_ramp_rises_or_falls() -> None:
    values = np.array([-1, 0, 0.5, 1, 2], np.float32)
    assert ramp(values, 0, 1).tolist() == [0, 0, 0.5, 1, 1]
    assert ramp(values, 1, 0).tolist() == [1, 1, 0.5, 0, 0]


def test_blur_keeps_the_sum_and_smooths() -> None:
    image = np.zeros((PATCH_PX, PATCH_PX), np.float32)
    image[40, 40] = 1
    out = blur(image, 0.25)
    assert float(out.sum()) == pytest.approx(1, abs=1e-6)
    assert float(out[40, 40]) == pytest.approx(0.25)
    flat = np.full((PATCH_PX, PATCH_PX, 3), 7, np.float32)
    assert np.allclose(blur(flat, -0.1), 7, atol=1e-5)


def test_lattice_begins_at_its_origin_and_keeps_its_spacing() -> None:
    y, x = lattice(generator(1), 8.0, 0.0, 5.0, (20.0, 30.0))
    assert (float(y[0]), float(x[0])) == (20, 30)
    square = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 + 1e6 * np.eye(len(y))
    assert float(np.sqrt(square.min())) == pytest.approx(8, abs=0.01)
    area = (PATCH_PX + 10) ** 2
    assert len(y) == pytest.approx(area / (64 * 0.866), rel=0.1)


def test_cells_lie_where_they_are_put() -> None:
    rng = generator(2)
    y, x = np.array([20, 70], np.float32), np.array([30, 60], np.float32)
    layer = draw_cells(rng, scatter(rng, CELL, y, x))
    nucleus = layer.spread(layer.nucleus)
    assert nucleus[20, 30] == 1
    assert nucleus[70, 60] == 1
    far = (np.hypot(*np.meshgrid(np.arange(96) - 20, np.arange(96) - 30, indexing="ij")) > 9) & (
        np.hypot(*np.meshgrid(np.arange(96) - 70, np.arange(96) - 60, indexing="ij")) > 9
    )
    assert not nucleus[far].any()
    # Two nuclei of semi-axis 4 px.
    assert float(nucleus.sum()) == pytest.approx(2 * np.pi * 16, rel=0.35)


@pytest.mark.parametrize("hard", [False, True])
def test_tumour_reaches_the_centre_or_keeps_off_it(hard: bool) -> None:
    reached = kept_off = 0
    for seed in range(40):
        rng = generator(seed)
        style = draw_tumour_style(rng)
        for central in (True, False):
            layer = grow_tumour(rng, style, central, hard)
            if layer is None:
                continue
            mask = layer.spread(np.ones_like(layer.body)) > 0
            if central:
                reached += bool(mask[MIDDLE, MIDDLE].any())
            else:
                assert not mask[MIDDLE, MIDDLE].any()
                kept_off += bool(mask.any())
    assert reached >= 38
    assert kept_off >= 20


def test_light_follows_beer_and_lambert() -> None:
    shape = (PATCH_PX, PATCH_PX)
    zero = np.zeros(shape, np.float32)
    tissue = Tissue(np.full(shape, 0.5, np.float32), zero, zero, np.zeros(shape, bool))
    vectors = np.array([[0.6, 0.7, 0.3], [0.2, 0.9, 0.3], [0.1, 0.8, 0.5]], np.float32)
    scanner = Scanner(vectors, np.full(3, 240, np.float32), blur=0.0, noise=0.0, jpeg=0.0)
    # Seed 1 draws a patch in focus; a flat one looks the same out of focus anyway.
    image = digitise(generator(1), tissue, scanner)
    assert image[50, 50].tolist() == pytest.approx(240 * np.exp(-0.5 * vectors[0]), abs=0.51)


def test_compression_loses_about_what_a_real_jpeg_encoder_loses() -> None:
    patch = next(synthetic_patches(SyntheticConfig(seed=3), [5])).pixels
    ours = np.clip(np.rint(compress(patch.astype(np.float32), 1.0)), 0, 255)
    buffer = io.BytesIO()
    Image.fromarray(patch).save(buffer, "JPEG", quality=80, subsampling=0)
    theirs = np.asarray(Image.open(buffer), np.float64)
    error, reference = np.std(ours - patch), np.std(theirs - patch)
    assert error == pytest.approx(reference, rel=0.5)
    assert np.abs(compress(patch.astype(np.float32), 1e-3) - patch).max() < 5
