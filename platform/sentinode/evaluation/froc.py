"""FROC: the share of lesions found against false positives per slide, by Camelyon16's rules.

As in the contest's ``Evaluation_FROC.py`` (Ehteshami Bejnordi et al. 2017, JAMA 318:2199):

* Pieces of tumour closer than 75 um are one lesion, and a detection within half of that has found it.
* A lesion has the highest confidence of the detections in it; further ones in it count for nothing.
* Detections outside all lesions are false positives.
* A lesion of isolated tumour cells is not sought, and detections in it are no false positives.
* The score is the mean sensitivity at 1/4, 1/2, 1, 2, 4 and 8 false positives per slide, interpolated linearly.

The script works on a mask at level 5 (7.8 um a pixel); here the polygons themselves are used. It leaves out
the lowest confidence of all when every lesion was found; here each counts. A confidence of 0 finds nothing, there
and here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sentinode.config import Frozen, Record
from sentinode.errors import EvaluationError
from sentinode.evaluation.detections import Detections
from sentinode.evaluation.metrics import FloatArray, IntArray
from sentinode.evaluation.resampled import Resampled, ResamplingConfig, resampled
from sentinode.schema import NodeClass
from sentinode.slides.lesions import Lesion, ellipse_axis, lesion_at, longest_diameter


class FrocConfig(ResamplingConfig):
    """The rules of an FROC analysis; the defaults are Camelyon16's."""

    itc: Literal["ignored", "counted"] = "ignored"
    """Lesions of isolated tumour cells: neither lesion nor false positive, or lesions like all others."""
    itc_measure: Literal["ellipse axis", "longest diameter"] = "ellipse axis"
    """What tells them, on the widened lesion: the major axis of the ellipse with the same second moments, as
    the contest's script does, or the longest diameter, as its text says."""
    itc_below_um: float = Field(default=275.0, ge=0)
    """Lesions below are isolated tumour cells: 200 um, and 75 um by which the outline is widened."""
    rates: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    """False positives per slide at which sensitivity is stated."""
    left_out: tuple[str, ...] = ("test_114",)
    """Slides that are not exhaustively annotated, so that a find might be no false positive."""


@dataclass(frozen=True, eq=False)
class FrocSlide:
    """One slide: the lesions that pathologists outlined (none on a normal slide), and what a system detected."""

    slide: str
    lesions: tuple[Lesion, ...]
    detections: Detections


class LesionOutcome(Frozen):
    """One lesion and the confidence with which it was found."""

    slide: str
    x: float
    y: float
    """A point inside, level-0 pixels."""
    longest_diameter_um: float
    size: NodeClass
    counted: bool
    """False where it is ignored as isolated tumour cells."""
    confidence: float | None
    """Of the best detection in it; None where there is none."""


class FrocPoint(Frozen):
    """A point of the curve."""

    fp_per_slide: float
    sensitivity: Resampled


class FrocResult(Record):
    """The FROC analysis of one system."""

    config: FrocConfig
    slides: int
    lesions: int
    """Lesions to be found."""
    ignored_lesions: int
    """Lesions of isolated tumour cells that are ignored."""
    false_positives: int
    """At any confidence above 0."""
    left_out: tuple[str, ...]
    """Slides given, but left out by the rules."""
    score: Resampled
    """Mean sensitivity at the rates; intervals by bootstrap over slides."""
    points: tuple[FrocPoint, ...]
    """Sensitivity at each rate."""
    curve: tuple[tuple[float, float], ...]
    """False positives per slide and sensitivity, where sensitivity rises, and at the end."""
    outcomes: tuple[LesionOutcome, ...]


def froc(slides: Sequence[FrocSlide], config: FrocConfig | None = None) -> FrocResult:
    """The FROC analysis. Raises EvaluationError without a lesion to be found, or when a slide comes twice."""
    config = config or FrocConfig()
    twice = [name for name, times in Counter(s.slide for s in slides).items() if times > 1]
    if twice:
        raise EvaluationError(f"slide {twice[0]} appears more than once", "each slide once")
    apart = {name.lower() for name in config.left_out}
    kept = [s for s in slides if s.slide.lower() not in apart]
    scored = [_score(slide, config) for slide in kept]
    outcomes = [outcome for found, _ in scored for outcome in found]
    events = _Events.of(scored)
    if not events.lesions_S.sum():
        raise EvaluationError(
            f"none of {len(kept)} slides has a lesion to be found", "a slide with an annotated lesion"
        )

    def statistic(weights_S: IntArray) -> FloatArray:
        at_rates = events.sensitivities(weights_S, config.rates)
        return np.append(at_rates, at_rates.mean())

    *at_rates, score = resampled(statistic, [None] * len(kept), config)
    fp, tp = events.curve(np.ones(len(kept), np.int64))
    shown = np.diff(tp) > 0
    shown[-1:] = True
    return FrocResult(
        config=config,
        slides=len(kept),
        lesions=int(events.lesions_S.sum()),
        ignored_lesions=sum(not o.counted for o in outcomes),
        false_positives=sum(len(false) for _, false in scored),
        left_out=tuple(s.slide for s in slides if s.slide.lower() in apart),
        score=score,
        points=tuple(
            FrocPoint(fp_per_slide=rate, sensitivity=sensitivity)
            for rate, sensitivity in zip(config.rates, at_rates, strict=True)
        ),
        curve=tuple(zip(fp[1:][shown].tolist(), tp[1:][shown].tolist(), strict=True)),
        outcomes=tuple(outcomes),
    )


def _score(slide: FrocSlide, config: FrocConfig) -> tuple[list[LesionOutcome], FloatArray]:
    """What became of each lesion, and the confidences of the false positives."""
    found = slide.detections.confidences_D > 0
    confidences, xy = slide.detections.confidences_D[found], slide.detections.xy_D2[found]
    hit = lesion_at(slide.lesions, xy)
    outcomes = []
    for index, lesion in enumerate(slide.lesions):
        best = confidences[hit == index].max(initial=0)
        outcomes.append(
            LesionOutcome(
                slide=slide.slide,
                x=lesion.centre[0],
                y=lesion.centre[1],
                longest_diameter_um=lesion.longest_diameter_um,
                size=lesion.size,
                counted=config.itc == "counted" or not _is_itc(lesion, config),
                confidence=float(best) or None,
            )
        )
    return outcomes, confidences[hit < 0]


def _is_itc(lesion: Lesion, config: FrocConfig) -> bool:
    measure = ellipse_axis if config.itc_measure == "ellipse axis" else longest_diameter
    return measure(lesion.reach) * lesion.um_px < config.itc_below_um


@dataclass(frozen=True, eq=False)
class _Events:
    """Lesions found and false positives of S slides, E in all, by falling confidence."""

    slide_E: IntArray
    hit_E: NDArray[np.bool_]
    ends: IntArray
    """Position of the last event of each distinct confidence."""
    lesions_S: IntArray

    @classmethod
    def of(cls, scored: Sequence[tuple[list[LesionOutcome], FloatArray]]) -> _Events:
        rows = [
            (confidence, index, is_hit)
            for index, (outcomes, false) in enumerate(scored)
            for is_hit, confidences in (
                (True, [o.confidence for o in outcomes if o.counted and o.confidence]),
                (False, false.tolist()),
            )
            for confidence in confidences
        ]
        rows.sort(key=lambda row: -row[0])
        confidences = np.array([row[0] for row in rows], np.float64)
        return cls(
            np.array([row[1] for row in rows], np.int64),
            np.array([row[2] for row in rows], np.bool_),
            np.flatnonzero(np.diff(confidences, append=-1.0)),
            np.array([sum(o.counted for o in outcomes) for outcomes, _ in scored], np.int64),
        )

    def curve(self, weights_S: IntArray) -> tuple[FloatArray, FloatArray]:
        """False positives per slide and sensitivity, from (0, 0); slide s counts ``weights_S[s]`` times."""
        weights = weights_S[self.slide_E]
        hits = np.cumsum(weights * self.hit_E)[self.ends]
        false = np.cumsum(weights * ~self.hit_E)[self.ends]
        lesions = int(np.sum(weights_S * self.lesions_S))
        with np.errstate(invalid="ignore"):
            return np.append(0.0, false / weights_S.sum()), np.append(0.0, hits) / lesions

    def sensitivities(self, weights_S: IntArray, rates: Sequence[float]) -> FloatArray:
        """Sensitivity at each rate, between points of the curve on a line; NaN without lesions."""
        fp, tp = self.curve(weights_S)
        # The last point at or below each rate: where the curve rises upright, its upper end.
        left = np.searchsorted(fp, rates, side="right") - 1
        right = np.minimum(left + 1, len(fp) - 1)
        width = fp[right] - fp[left]
        part = np.where(width > 0, np.asarray(rates) - fp[left], 0.0) / np.where(width > 0, width, 1.0)
        return np.asarray(tp[left] + part * (tp[right] - tp[left]), np.float64)
