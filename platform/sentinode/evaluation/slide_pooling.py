"""From the patches of a slide to one slide score: maximum, top-k mean, noisy-or, or a logistic model.

The first three need no fitting. The logistic model takes the features of the heat map (``heat_map.FEATURES``)
and is fitted on validation slides only.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import numpy as np
from pydantic import Field

from sentinode.config import Frozen, Record
from sentinode.errors import EvaluationError
from sentinode.evaluation.calibrator import sigmoid
from sentinode.evaluation.heat_map import CLUSTER_FEATURES, FEATURES, TOP_K, HeatMap, features_of, top_mean
from sentinode.evaluation.metrics import FloatArray
from sentinode.evaluation.predictions import Predictions
from sentinode.schema import Split


class Pooling(StrEnum):
    """How patches become a slide score."""

    MAX = "max"
    TOP_MEAN = "top-k mean"
    NOISY_OR = "noisy-or"
    """Minus the logarithm of the chance that no patch is tumour, were patches independent. It orders slides as
    the chance of any tumour does, but does not stand at 1 for all slides with many patches."""
    LOGISTIC = "logistic"


class PoolingConfig(Frozen):
    """How slides are scored."""

    method: Pooling = Pooling.TOP_MEAN
    top_k: int = Field(default=TOP_K, ge=1)
    """Patches of the top-k mean."""


class SlideLogistic(Record):
    """Logistic regression on standardised heat-map features."""

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    penalty: float
    """Of the squared weights (ridge)."""
    slides: int
    """Validation slides it was fitted on; figures of these slides flatter it."""

    def score(self, heat_map: HeatMap) -> float:
        """Probability of tumour. Raises EvaluationError when a feature is unknown for this slide."""
        found = features_of(heat_map)
        missing = [name for name in self.features if name not in found]
        if missing:
            raise EvaluationError(
                f"no {missing[0]} of a slide whose patches have no place",
                "places, as when the model was fitted",
            )
        values = np.array([found[name] for name in self.features])
        logit = (values - self.means) / self.scales @ np.array(self.weights) + self.bias
        return float(sigmoid(np.asarray(logit, np.float64)))


def heat_maps_of(predictions: Predictions) -> dict[str, HeatMap]:
    """The patches of each slide. Raises EvaluationError when a patch names no slide."""
    if not predictions.slides_known:
        raise EvaluationError(
            "patches without slide", "the slide of every patch", "ingest a set that knows slides"
        )
    names, codes = np.unique(predictions.slides.astype(str), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    parts = np.split(predictions.probabilities[order], np.cumsum(np.bincount(codes))[:-1])
    return {str(name): HeatMap.of(part) for name, part in zip(names, parts, strict=True)}


def slide_score(heat_map: HeatMap, config: PoolingConfig, logistic: SlideLogistic | None = None) -> float:
    """The score of one slide, higher with more suspicion. Raises EvaluationError without a fitted model."""
    p = heat_map.probabilities_N
    if config.method is Pooling.MAX:
        return float(p.max())
    if config.method is Pooling.TOP_MEAN:
        return top_mean(p, config.top_k)
    if config.method is Pooling.NOISY_OR:
        return float(-np.log1p(-np.minimum(p, 1 - np.finfo(np.float64).eps)).sum())
    if logistic is None:
        raise EvaluationError("no fitted slide model", "one fitted on validation slides")
    return logistic.score(heat_map)


def fit_slide_logistic(
    heat_maps: Mapping[str, HeatMap], labels: Mapping[str, bool], split: Split, penalty: float = 1.0
) -> SlideLogistic:
    """Fit on slides of ``split``, which must be validation, by Newton's method.

    Cluster features are used where the patches of every slide have places. A feature that is the same on all
    slides gets no weight.

    Raises EvaluationError on another split, a slide without label, or one class only.
    """
    if split is not Split.VALID:
        raise EvaluationError(f"slides of split {split}", "validation slides only", "never fit on test")
    unlabelled = sorted(heat_maps.keys() - labels.keys())
    if unlabelled:
        raise EvaluationError(f"slide {unlabelled[0]} has no label", "a label for each slide")
    y = np.array([labels[slide] for slide in heat_maps], np.float64)
    if not 0 < y.sum() < len(y):
        raise EvaluationError(f"{len(y)} slides of one class", "tumour slides and negative ones")
    placed = all(heat_map.cells_N2 is not None for heat_map in heat_maps.values())
    names = FEATURES + CLUSTER_FEATURES if placed else FEATURES
    x = np.array([[features_of(heat_map)[name] for name in names] for heat_map in heat_maps.values()])
    means, scales = x.mean(axis=0), x.std(axis=0)
    scales[scales < 1e-12] = 1.0
    weights, bias = _ridge_logistic((x - means) / scales, y, penalty)
    return SlideLogistic(
        features=names,
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        weights=tuple(weights.tolist()),
        bias=bias,
        penalty=penalty,
        slides=len(y),
    )


def scores_of(
    heat_maps: Mapping[str, HeatMap], config: PoolingConfig, logistic: SlideLogistic | None = None
) -> dict[str, float]:
    """The score of each slide."""
    return {slide: slide_score(heat_map, config, logistic) for slide, heat_map in heat_maps.items()}


def _ridge_logistic(x_NF: FloatArray, y_N: FloatArray, penalty: float) -> tuple[FloatArray, float]:
    """Weights [F] and bias that maximise the likelihood less penalty / 2 times the squared weights."""
    design = np.column_stack([x_NF, np.ones(len(x_NF))])
    ridge = np.diag([penalty] * x_NF.shape[1] + [0.0])
    theta = np.zeros(design.shape[1])
    theta[-1] = np.log(y_N.mean() / (1 - y_N.mean()))

    def loss(at: FloatArray) -> float:
        logits = design @ at
        return float(np.sum(np.logaddexp(0, logits) - y_N * logits) + at @ ridge @ at / 2)

    for _ in range(100):
        p = sigmoid(design @ theta)
        gradient = design.T @ (p - y_N) + ridge @ theta
        step = np.linalg.solve(
            (design.T * (p * (1 - p))) @ design + ridge + 1e-10 * np.eye(len(theta)), gradient
        )
        # Far from the optimum a whole step may go too far.
        while loss(theta - step) > loss(theta) + 1e-12 * abs(loss(theta)) and np.abs(step).max() > 1e-12:
            step = step / 2
        theta = theta - step
        if np.abs(step).max() < 1e-10:
            break
    return theta[:-1], float(theta[-1])
