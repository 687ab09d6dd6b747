"""How the model scored validation, kept on the card: the reference against which a server measures drift."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from sentinode.config import Frozen
from sentinode.errors import BundleError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

BINS = 20


class ScoreReference(Frozen):
    """``card.scores``: a histogram of calibrated probabilities on validation, by class.

    Keeping the classes apart lets a server weigh them for the prevalence that it meets: validation of PCam is half
    tumour, tissue is not, and without it every slide would look like drift.
    """

    edges: tuple[float, ...] = Field(min_length=3)
    """[K + 1] rising from 0 to 1; bin k holds edges[k] <= p < edges[k + 1], the last one 1 as well."""
    negatives: tuple[int, ...]
    """[K] negative patches of validation."""
    positives: tuple[int, ...]
    """[K] tumour patches of validation."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (
            (np.diff(self.edges) <= 0).any()
            or self.edges[0] != 0
            or self.edges[-1] != 1
            or {len(self.negatives), len(self.positives)} != {len(self.edges) - 1}
            or min(self.negatives + self.positives) < 0
            or not sum(self.negatives + self.positives)
        ):
            raise ValueError("edges must rise from 0 to 1, with a count of patches between each two")
        return self

    @classmethod
    def of(cls, probabilities_N: ArrayLike, labels_N: ArrayLike) -> Self:
        """Of the labelled validation patches: calibrated probabilities [N], and labels [N], 0 or 1."""
        p, labels = np.asarray(probabilities_N, np.float64), np.asarray(labels_N)
        edges = tuple(k / BINS for k in range(BINS + 1))
        return cls(
            edges=edges,
            negatives=tuple(np.histogram(p[labels == 0], edges)[0].tolist()),
            positives=tuple(np.histogram(p[labels == 1], edges)[0].tolist()),
        )

    def histogram(self, probabilities_N: ArrayLike) -> IntArray:
        """Patches a bin, int64 [K], of served probabilities [N]; counts of several batches add up."""
        return np.histogram(np.asarray(probabilities_N, np.float64), self.edges)[0].astype(np.int64)

    def shares(self, prevalence: float | None = None) -> FloatArray:
        """The expected share of patches a bin, float64 [K], sum 1, where a share ``prevalence`` is tumour.

        None is as sampled in validation. Empty bins are counted as half a patch. Raises BundleError for a prevalence
        outside [0, 1] or of a class that validation lacks.
        """
        negatives, positives = (np.array(c) + 0.5 for c in (self.negatives, self.positives))
        if prevalence is None:
            both = negatives + positives
            return np.asarray(both / both.sum(), np.float64)
        lacks = (prevalence > 0 and not sum(self.positives)) or (prevalence < 1 and not sum(self.negatives))
        if not 0 <= prevalence <= 1 or lacks:
            raise BundleError(
                f"prevalence {prevalence} with {sum(self.negatives)} negative and {sum(self.positives)} tumour patches",
                "a share in [0, 1], of classes that validation holds",
            )
        mixed = prevalence * positives / positives.sum() + (1 - prevalence) * negatives / negatives.sum()
        return np.asarray(mixed, np.float64)

    def population_stability_index(self, counts_K: IntArray, prevalence: float | None = None) -> float:
        """How far served counts [K] have drifted from the reference: sum (q - p) ln(q / p), 0 for none.

        Above 0.1 is by custom worth a look, above 0.25 a shift (Siddiqi 2006, Credit Risk Scorecards). Small samples
        exceed these by chance: about (K - 1) / n is expected of n patches without drift. Raises BundleError where
        nothing was served.
        """
        if not counts_K.sum() > 0:
            raise BundleError("no served patch", "at least one, to measure drift")
        expected = self.shares(prevalence)
        served = (counts_K + 0.5) / (counts_K.sum() + 0.5 * len(counts_K))
        return float(((served - expected) * np.log(served / expected)).sum())
