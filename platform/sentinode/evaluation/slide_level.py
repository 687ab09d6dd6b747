"""Whole slides as the pathologist signs them out: slide AUROC and the negative slides that need not be read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sentinode.config import Frozen, Record
from sentinode.errors import EvaluationError
from sentinode.evaluation.metrics import (
    FloatArray,
    IntArray,
    RankedScores,
    auroc,
    first_reaching,
    specificity_at_sensitivity,
)
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.resampled import Resampled, ResamplingConfig, resampled
from sentinode.evaluation.slide_pooling import PoolingConfig

SAMPLED = (
    "An estimate: each slide is judged by a sample of its patches, not by all of its tissue, and samples of tumour "
    "slides hold more tumour than the slides do."
)


class SlideLevelConfig(ResamplingConfig):
    """How slide scores are evaluated."""

    pooling: PoolingConfig = PoolingConfig()
    sensitivities: tuple[float, ...] = (0.95, 0.99, 1.0)
    """Slide sensitivities at which the share of negative slides set aside is stated; each in (0, 1]."""


class SlideWorkload(Frozen):
    """What need not be read at a slide sensitivity. The threshold is taken on these very slides."""

    sensitivity: float
    threshold: float | None
    """Slides with a score below are set aside; None with one class only."""
    set_aside: Resampled
    """Share of negative slides set aside, which is the specificity."""


class SlideLevelResult(Record):
    """Slide scores beside the pathologists' slide labels."""

    config: SlideLevelConfig
    slides: int
    positives: int
    negatives: int
    unlabelled: int
    """Scored slides without label, or left out for isolated tumour cells, which no figure includes."""
    sampled: bool
    """Whether slides were judged by a sample of their patches."""
    auroc: Resampled
    """Interval by bootstrap over patients where they are known, else over slides."""
    workload: tuple[SlideWorkload, ...]
    cautions: tuple[str, ...]


def labels_from_patches(predictions: Predictions) -> dict[str, bool]:
    """Tumour slides by their patches: those with a tumour patch among the labelled ones.

    Second best to the pathologists' slide labels: a tumour slide may have no tumour patch in the sample.
    """
    labelled = predictions.labelled()
    found = dict.fromkeys((str(slide) for slide in labelled.slides if slide is not None), False)
    found.update((str(s), True) for s in labelled.slides[labelled.labels == 1] if s is not None)
    return found


def evaluate_slides(
    scores: Mapping[str, float],
    labels: Mapping[str, bool],
    config: SlideLevelConfig | None = None,
    *,
    sampled: bool,
    patients: Mapping[str, str] | None = None,
) -> SlideLevelResult:
    """Figures of slide scores. ``sampled`` says that patches were sampled rather than taken of all tissue.

    ``patients`` names the patient of slides, whose nodes are then resampled together.

    Raises EvaluationError without a labelled slide, or when a labelled slide has no score.
    """
    config = config or SlideLevelConfig()
    if not labels:
        raise EvaluationError("no labelled slide", "the pathologists' label of each slide")
    unscored = sorted(labels.keys() - scores.keys())
    if unscored:
        raise EvaluationError(
            f"{len(unscored)} labelled slides have no score ({', '.join(unscored[:3])})",
            "a score for each labelled slide",
            "score them, or take them out of the labels",
        )
    slides = sorted(labels)
    ranked = RankedScores.of(
        np.array([labels[slide] for slide in slides], np.int64), np.array([scores[slide] for slide in slides])
    )
    whole = ranked.curve()

    def statistic(weights_S: IntArray) -> FloatArray:
        curve = ranked.curve(weights_S)
        shares = [specificity_at_sensitivity(curve, s) for s in config.sensitivities]
        return np.array([auroc(curve), *shares])

    area, *shares = resampled(statistic, [(patients or {}).get(slide) for slide in slides], config)
    both = whole.positives > 0 and whole.negatives > 0
    return SlideLevelResult(
        config=config,
        slides=len(slides),
        positives=whole.positives,
        negatives=whole.negatives,
        unlabelled=len(scores) - len(slides),
        sampled=sampled,
        auroc=area,
        workload=tuple(
            SlideWorkload(
                sensitivity=sensitivity,
                threshold=float(whole.thresholds_T[first_reaching(whole, sensitivity)]) if both else None,
                set_aside=share,
            )
            for sensitivity, share in zip(config.sensitivities, shares, strict=True)
        ),
        cautions=_cautions(config, whole.positives, whole.negatives, sampled),
    )


def _cautions(config: SlideLevelConfig, positives: int, negatives: int, sampled: bool) -> tuple[str, ...]:
    found = [SAMPLED] if sampled else []
    if not (positives and negatives):
        found.append("Not estimable: the slides are of one class.")
    # Below this number of tumour slides a sensitivity is reached only by finding them all.
    needed = max((math.ceil(1 / (1 - s)) for s in config.sensitivities if s < 1), default=0)
    if 0 < positives < needed:
        found.append(
            f"Tumour slides: only {positives}. High sensitivities can be told apart by {needed} or more."
        )
    return tuple(found)
