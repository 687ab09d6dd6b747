"""Stain statistics: features are what they are called, and distances tell odd stains from trained ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from serving_parts import make_card, random_patches

from sentinode.bundle.card import Card
from sentinode.bundle.stain import FEATURE_NAMES, StainStatistics, stain_features
from sentinode.data.stain_vectors import RUIFROK_HED
from sentinode.data.synthetic import SyntheticConfig, synthetic_patches
from sentinode.errors import BundleError


def _tissue(count: int) -> NDArray[np.uint8]:
    return np.stack([p.pixels for p in synthetic_patches(SyntheticConfig(patches=count), range(count))])


def test_pixels_of_known_amounts_give_these_amounts() -> None:
    amounts = np.array([0.8, 0.5, 0.1])
    grey = 255 * np.exp(-amounts @ np.array(RUIFROK_HED))
    images = np.broadcast_to(grey.round().astype(np.uint8), (1, 96, 96, 3))
    (found,) = stain_features(images)
    np.testing.assert_allclose(found[:3], amounts, atol=0.02)
    np.testing.assert_allclose(found[3:], 0, atol=1e-6)


def test_features_are_mean_and_deviation_of_each_unmixed_pixel() -> None:
    images = random_patches(3)
    pixels = np.maximum(images[:, ::4, ::4].reshape(3, -1, 3), 1) / 255
    amounts = -np.log(pixels) @ np.linalg.inv(np.array(RUIFROK_HED))
    expected = np.concatenate([amounts.mean(axis=1), amounts.std(axis=1)], axis=1)
    found = stain_features(images)
    np.testing.assert_allclose(found[:, :6], expected, atol=1e-4)
    correlations = [np.corrcoef(patch.T)[np.triu_indices(3, 1)] for patch in amounts]
    np.testing.assert_allclose(found[:, 6:], correlations, atol=0.01)


def test_a_patch_has_the_same_features_in_any_batch() -> None:
    images = random_patches(4)
    alone = np.concatenate([stain_features(image[None]) for image in images])
    np.testing.assert_allclose(stain_features(images), alone, atol=1e-6)


@pytest.mark.parametrize(
    "images", [np.zeros((1, 96, 96, 3)), np.zeros((96, 96, 3), np.uint8), np.zeros((1, 96, 96, 4), np.uint8)]
)
def test_other_shapes_and_types_are_refused(images: np.ndarray) -> None:
    with pytest.raises(BundleError, match="patches are"):
        stain_features(images)


def test_distances_are_small_on_training_and_large_on_other_colours() -> None:
    images = _tissue(80)
    statistics = StainStatistics.of(images)
    own = statistics.distances(stain_features(images))
    assert np.median(own) == pytest.approx(statistics.distance_quantiles[0].distance, rel=1e-4)
    assert own.max() <= (statistics.limit(1.0) or 0) * (1 + 1e-4)
    grey = np.repeat(images.mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3)
    for odd in (grey, 255 - images):
        assert np.median(statistics.distances(stain_features(odd))) > own.max()


def test_real_patches_of_training_are_near_and_discoloured_ones_far(real_data: Path) -> None:
    paths = sorted((real_data / "kaggle" / "train").glob("*.tif"))[:200]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    statistics = StainStatistics.of(images[::2])
    limit = statistics.limit(0.99)
    assert limit is not None
    assert (statistics.distances(stain_features(images[1::2])) <= 1.5 * limit).mean() > 0.9
    grey = np.repeat(images.mean(axis=3, keepdims=True).astype(np.uint8), 3, axis=3)
    assert (statistics.distances(stain_features(grey)) > limit).mean() > 0.9


def test_statistics_survive_the_card_and_old_cards_open() -> None:
    statistics = StainStatistics.of(random_patches(16))
    card = make_card(stain=statistics)
    assert Card.from_json(card.canonical_json(), "card.json").stain == statistics
    old = make_card().model_dump(mode="json", exclude={"stain", "scores"})
    assert Card.model_validate(old).stain is None


def test_equal_patches_give_statistics_with_an_inverse() -> None:
    images = np.repeat(random_patches(1), 5, axis=0)
    statistics = StainStatistics.of(images)
    assert statistics.distances(stain_features(images)).max() < 0.1
    with pytest.raises(BundleError, match="at least two"):
        StainStatistics.of(images[:1])


def test_what_is_no_covariance_is_refused() -> None:
    good = StainStatistics.of(random_patches(16)).model_dump()
    rows = np.array(good["covariance"])
    rows[0, 0] = -1
    with pytest.raises(ValidationError, match="positive definite"):
        StainStatistics.model_validate(good | {"covariance": rows.tolist()})
    with pytest.raises(ValidationError, match=f"fit {len(FEATURE_NAMES)} features"):
        StainStatistics.model_validate(good | {"mean": (0.0,)})
