"""Stain normalisation against per-image references in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sentinode.data.stain_normalise import StainNormConfig, macenko, normalise_stain, reinhard


@pytest.fixture
def tissue() -> torch.Tensor:
    """float32 [4, 3, 32, 32]: two stains mixed by Beer and Lambert, another pair of stains for each image."""
    rng = np.random.default_rng(0)
    images = []
    for i in range(4):
        stains = np.array([[0.60 + 0.05 * i, 0.70, 0.35], [0.10 + 0.03 * i, 0.95, 0.25]])
        stains /= np.linalg.norm(stains, axis=1, keepdims=True)
        amounts = (rng.gamma(1.0, 0.5, (32 * 32, 2)) + 0.1) * (0.5 + 0.4 * i)
        images.append(np.exp(-amounts @ stains).T.reshape(3, 32, 32))
    return torch.from_numpy(np.stack(images).astype(np.float32))


def macenko_reference(image: np.ndarray, config: StainNormConfig) -> np.ndarray:
    density = -np.log(np.maximum(image.reshape(3, -1).astype(float), 1 / 255)).T
    kept = density[(density >= 0.15).all(axis=1)]
    _, axes = np.linalg.eigh(np.cov(kept.T))
    plane = axes[:, [2, 1]]
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)
    projected = kept @ plane
    angle = np.arctan2(projected[:, 1], projected[:, 0])
    low, high = np.quantile(angle, [0.01, 0.99])
    vectors = [plane @ (np.cos(a), np.sin(a)) for a in (low, high)]
    vectors.sort(key=lambda v: -v[0])
    amounts = np.linalg.lstsq(np.array(vectors).T, density.T, rcond=None)[0]
    amounts *= (np.array(config.target_amounts) / np.quantile(amounts, 0.99, axis=1))[:, None]
    return np.clip(np.exp(-np.array(config.target_stains).T @ amounts), 0, 1).reshape(image.shape)


def reinhard_reference(image: np.ndarray, config: StainNormConfig) -> np.ndarray:
    to_lms = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
    combine = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
    opponent = combine @ np.log10(np.maximum(to_lms @ image.reshape(3, -1).astype(float), 1 / 255))
    centred = (opponent - opponent.mean(axis=1, keepdims=True)) / opponent.std(axis=1, keepdims=True)
    matched = centred * np.array(config.target_std)[:, None] + np.array(config.target_mean)[:, None]
    return np.clip(np.linalg.inv(to_lms) @ 10 ** (np.linalg.inv(combine) @ matched), 0, 1).reshape(
        image.shape
    )


@pytest.mark.parametrize(
    ("method", "reference"), [(macenko, macenko_reference), (reinhard, reinhard_reference)]
)
def test_batches_equal_the_reference_image_by_image(tissue, method, reference) -> None:
    config = StainNormConfig()
    expected = np.stack([reference(image, config) for image in tissue.numpy()])
    assert np.allclose(method(tissue, config).numpy(), expected, atol=2e-3)


@pytest.mark.parametrize("kind", ["macenko", "reinhard"])
def test_images_of_different_stains_come_closer(tissue: torch.Tensor, kind: str) -> None:
    def spread(images: torch.Tensor) -> float:
        return float(images.mean(dim=(2, 3)).std(dim=0).sum())

    normalised = normalise_stain(tissue, StainNormConfig.model_validate({"kind": kind}))
    assert spread(normalised) < 0.5 * spread(tissue)


def test_images_without_tissue_are_left_alone_by_macenko() -> None:
    white = torch.full((2, 3, 32, 32), 0.97)
    assert torch.equal(macenko(white, StainNormConfig()), white)


def test_none_is_the_images_themselves(tissue: torch.Tensor) -> None:
    assert normalise_stain(tissue, StainNormConfig()) is tissue
