"""How training patches were stained, kept on the card, so that a server knows a patch it should not judge.

``stain_features`` is the one function of pixels that sealing and serving share; ``StainStatistics`` holds its
mean and covariance over training patches. A patch's Mahalanobis distance to them says how unlike training its
colours are (Lee et al. 2018, arXiv:1807.03888, with colours in place of a network's features). NumPy only.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from sentinode.config import Frozen
from sentinode.data.stain_vectors import RUIFROK_HED
from sentinode.errors import BundleError

FloatArray = NDArray[np.float64]

FEATURE_NAMES: Final = (
    "haematoxylin_mean",
    "eosin_mean",
    "residual_mean",
    "haematoxylin_sd",
    "eosin_sd",
    "residual_sd",
    "haematoxylin_eosin_correlation",
    "haematoxylin_residual_correlation",
    "eosin_residual_correlation",
)
"""Of the amounts of haematoxylin, eosin and the third vector of Ruifrok and Johnston over a patch's pixels.

The correlations follow the direction of the stains' own vectors, which means and deviations alone miss."""

_STEP_PX: Final = 4
"""Every fourth pixel of every fourth row, 576 of 96x96: a server must not spend more on colours than on the model."""
_UNMIX: Final = np.linalg.inv(np.array(RUIFROK_HED)).astype(np.float32)
_DENSITY_OF_GREY: Final = -np.log(np.maximum(np.arange(256), 1) / 255).astype(np.float32)
_QUANTILES: Final = (0.5, 0.9, 0.99, 0.999, 1.0)
_LEAST_SPREAD: Final = 1e-3
"""Squared optical density beside which a product of deviations is noise: flat patches get correlations of 0."""
_LEAST_VARIANCE: Final = 1e-6
"""Of any direction, in squared optical density: a set of equal patches still has an inverse."""
_DIGITS: Final = 6


def stain_features(images_BHWC: NDArray[np.uint8]) -> FloatArray:
    """The features of patches uint8 [B, H, W, 3] (red, green, blue): float64 [B, 9], as ``FEATURE_NAMES``.

    Optical density is -ln(max(grey, 1) / 255) (Beer and Lambert); amounts are its coordinates in the stain
    vectors of Ruifrok and Johnston 2001. Means, standard deviations and correlations are over every fourth pixel
    of every fourth row. Each patch is treated alone. Raises BundleError for other shapes or dtypes.
    """
    if images_BHWC.dtype != np.uint8 or images_BHWC.ndim != 4 or images_BHWC.shape[3] != 3:
        raise BundleError(
            f"patches are {images_BHWC.dtype} {list(images_BHWC.shape)}", "uint8 [B, height, width, 3]"
        )
    sample_BCHW = np.ascontiguousarray(images_BHWC[:, ::_STEP_PX, ::_STEP_PX].transpose(0, 3, 1, 2))
    pixels = max(sample_BCHW.shape[2] * sample_BCHW.shape[3], 1)
    # take, einsum and small products of matrices: each is two to five times quicker here than its usual spelling.
    density_BCP = _DENSITY_OF_GREY.take(sample_BCHW).reshape(len(images_BHWC), 3, pixels)
    mean_BC = density_BCP.mean(axis=2)
    centred = density_BCP - mean_BC[:, :, None]
    covariance_BCC = np.einsum("bcp,bdp->bcd", centred, centred) / pixels
    # Amounts are linear in density: their moments follow from those of density, without unmixing each pixel.
    moments_BSS = _UNMIX.T @ covariance_BCC.astype(np.float64) @ _UNMIX
    sd_BS = np.sqrt(np.maximum(np.einsum("bss->bs", moments_BSS), 0))
    first, second = np.triu_indices(3, 1)
    spread = sd_BS[:, first] * sd_BS[:, second] + _LEAST_SPREAD
    return np.concatenate([mean_BC @ _UNMIX, sd_BS, moments_BSS[:, first, second] / spread], axis=1)


class DistanceQuantile(Frozen):
    """``share`` of the training patches lie within ``distance``."""

    share: float = Field(gt=0, le=1)
    distance: float = Field(ge=0)


class StainStatistics(Frozen):
    """``card.stain``: mean and covariance of ``stain_features`` over patches of the train split."""

    features: tuple[str, ...] = FEATURE_NAMES
    """What the columns are; a server must refuse names that are not its own ``FEATURE_NAMES``."""
    mean: tuple[float, ...]
    """[F], in optical density (natural logarithm)."""
    covariance: tuple[tuple[float, ...], ...]
    """[F, F], positive definite: no direction has a variance below 1e-6."""
    patches: int = Field(gt=0)
    """Training patches it was taken from, evenly over their shards."""
    distance_quantiles: tuple[DistanceQuantile, ...]
    """Mahalanobis distances of these patches, by rising share: tails are heavier than a normal's, so limits
    are read from here and not from a chi-squared table."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        count = len(self.features)
        if len(self.mean) != count or [len(row) for row in self.covariance] != [count] * count:
            raise ValueError(f"mean and covariance do not fit {count} features")
        matrix = np.array(self.covariance)
        if not np.allclose(matrix, matrix.T) or not np.linalg.eigvalsh(matrix)[0] > 0:
            raise ValueError("covariance is not symmetric and positive definite")
        return self

    @classmethod
    def of(cls, images_BHWC: NDArray[np.uint8]) -> Self:
        """The statistics of training patches uint8 [B, H, W, 3]. Raises BundleError on fewer than two."""
        features_BF = stain_features(images_BHWC)
        if len(features_BF) < 2:
            raise BundleError(f"{len(features_BF)} training patches", "at least two, for a covariance")
        values, axes = np.linalg.eigh(np.cov(features_BF, rowvar=False))
        covariance = (axes * np.maximum(values, 2 * _LEAST_VARIANCE)) @ axes.T
        # Rounded, so that another machine's last bits do not make another bundle.
        mean = tuple(_rounded(v) for v in features_BF.mean(axis=0))
        rows = tuple(tuple(_rounded(v) for v in row) for row in (covariance + covariance.T) / 2)
        bare = cls(mean=mean, covariance=rows, patches=len(features_BF), distance_quantiles=())
        limits = np.quantile(bare.distances(features_BF), _QUANTILES)
        quantiles = tuple(
            DistanceQuantile(share=share, distance=_rounded(at))
            for share, at in zip(_QUANTILES, limits, strict=True)
        )
        return bare.model_copy(update={"distance_quantiles": quantiles})

    def distances(self, features_BF: FloatArray) -> FloatArray:
        """Mahalanobis distances, float64 [B], of patches whose ``stain_features`` are ``features_BF``."""
        white = (features_BF - np.array(self.mean)) @ self._whitening
        return np.asarray(np.sqrt((white**2).sum(axis=1)), np.float64)

    def limit(self, share: float) -> float | None:
        """The distance within which at least ``share`` of the training patches lie; None where none is kept."""
        return next((q.distance for q in self.distance_quantiles if q.share >= share), None)

    @cached_property
    def _whitening(self) -> FloatArray:
        return np.asarray(np.linalg.inv(np.linalg.cholesky(np.array(self.covariance))).T, np.float64)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
