"""What is fitted on scored validation slides: how cells become the slide score, and below which it is set aside.

The threshold carries a conformal guarantee about *slides* (``guarantee``), which a card's operating points, chosen
on patches, do not. A unit is a patient where slides name one, else a slide; its risk is the share of its tumour
slides that would be set aside. The logistic pooling is fitted on one half of the units and the threshold chosen on
the other, or the promise would be made on slides that the model has seen. Kept as JSON: nothing in it is executed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Self

import numpy as np
from pydantic import Field, model_validator

from sentinode.config import Frozen, Record
from sentinode.errors import ConfigError, EvaluationError
from sentinode.evaluation.guarantee import Guarantee, GuaranteeKind, guaranteed_threshold
from sentinode.evaluation.heat_map import HeatMap
from sentinode.evaluation.intervals import units_of
from sentinode.evaluation.metrics import RankedScores, first_reaching
from sentinode.evaluation.slide_pooling import (
    Pooling,
    PoolingConfig,
    SlideLogistic,
    fit_slide_logistic,
    slide_score,
)
from sentinode.schema import RESEARCH_USE_ONLY, Split

CELL_TOLERANCE: Final = 0.05
"""Relative difference of cells; slides of one model differ by the 3 % up to which a level is read as it is."""


class ScreeningConfig(Frozen):
    """What a slide model is fitted for."""

    pooling: PoolingConfig = PoolingConfig()
    """How cells become the slide score."""
    sensitivity: float = Field(default=0.95, gt=0, le=1)
    """Share of tumour slides that must not be set aside."""
    guarantee: GuaranteeKind = "expectation"
    """How it holds on new slides (conformal risk control): in expectation, with confidence, or none."""
    guarantee_confidence: float = Field(default=0.95, gt=0, lt=1)
    """Of the guarantee with confidence."""
    penalty: float = Field(default=1.0, gt=0)
    """Ridge of the logistic pooling."""


class SlideScreening(Frozen):
    """A slide whose score is below ``threshold`` may be set aside."""

    threshold: float
    guarantee: Guarantee
    tumour: int
    """Tumour slides on which the threshold was chosen."""
    kept: int
    """Of them, those that are not set aside."""
    negative: int
    set_aside: int
    """Of the negative slides beside them, those that are."""

    @property
    def promise(self) -> str:
        """What is promised on new slides, and what was found on those of validation."""
        found = f"On the {self.tumour + self.negative} validation slides that chose the threshold it keeps"
        found += f" {self.kept} of {self.tumour} tumour slides"
        if self.negative:
            found += f" and sets {self.set_aside} of {self.negative} negative ones aside"
        return f"{self.guarantee.words} {found}."


class SlideModel(Record):
    """Pooling and screening threshold for the slides that one bundle scores."""

    bundle: str
    """Digest of the bundle whose heat maps it was fitted on; those of another are not scored by it."""
    cell_um: float = Field(gt=0)
    """Side of a cell of these heat maps."""
    pooling: PoolingConfig
    logistic: SlideLogistic | None = None
    """Of the logistic pooling."""
    screening: SlideScreening
    fitted_on: tuple[str, ...] = ()
    """Slides that the logistic pooling was fitted on."""
    chosen_on: tuple[str, ...]
    """Slides that the threshold was chosen on."""
    notice: str = RESEARCH_USE_ONLY

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.pooling.method is Pooling.LOGISTIC) != (self.logistic is not None):
            raise ValueError(f"pooling by {self.pooling.method.value} with logistic {self.logistic}")
        return self

    def score(self, heat_map: HeatMap) -> float:
        """The score of one slide. Raises EvaluationError where a feature is not known of it."""
        return slide_score(heat_map, self.pooling, self.logistic)

    def check_fits(self, bundle: str, cell_um: float) -> None:
        """Raises ConfigError for heat maps of another bundle or of other cells."""
        if bundle != self.bundle:
            raise ConfigError(
                f"the slide model was fitted on heat maps of bundle {self.bundle[:12]}, not {bundle[:12]}",
                "slides scored by the same bundle",
                "fit one for this bundle: sentinode screen",
            )
        if abs(cell_um - self.cell_um) > CELL_TOLERANCE * self.cell_um:
            raise ConfigError(
                f"the slide model was fitted on cells of {self.cell_um:.4g} um, these have {cell_um:.4g} um",
                "the same --stride-px",
                "score at the stride that it was fitted at, or fit one for this stride",
            )


def fit_slide_model(
    heat_maps: Mapping[str, HeatMap],
    labels: Mapping[str, bool],
    patients: Mapping[str, str],
    bundle: str,
    config: ScreeningConfig,
) -> SlideModel:
    """Fit on validation slides: ``labels`` of all ``heat_maps``, ``patients`` of those that are known.

    Raises EvaluationError on slides without label or place, or where either half lacks a class that it needs.
    """
    units = {slide: patients.get(slide, slide) for slide in heat_maps}
    logistic: SlideLogistic | None = None
    fitted_on: tuple[str, ...] = ()
    if config.pooling.method is Pooling.LOGISTIC:
        fitted_on = _half(units, labels)
        part = {slide: heat_maps[slide] for slide in fitted_on}
        known = {slide: labels[slide] for slide in part if slide in labels}
        logistic = fit_slide_logistic(part, known, Split.VALID, config.penalty)
    chosen_on = tuple(sorted(heat_maps.keys() - set(fitted_on)))
    scores = {slide: slide_score(heat_maps[slide], config.pooling, logistic) for slide in chosen_on}
    return SlideModel(
        bundle=bundle,
        cell_um=float(np.median([heat_map.cell_um for heat_map in heat_maps.values()])),
        pooling=config.pooling,
        logistic=logistic,
        screening=choose_screening(scores, labels, units, config),
        fitted_on=fitted_on,
        chosen_on=chosen_on,
    )


def choose_screening(
    scores: Mapping[str, float],
    labels: Mapping[str, bool],
    units: Mapping[str, str],
    config: ScreeningConfig,
) -> SlideScreening:
    """The highest threshold that keeps the promise, or, where validation is too small for one, that reaches the
    sensitivity on validation; the guarantee says which.

    Raises EvaluationError without a tumour slide, or where a slide has no label.
    """
    slides = sorted(scores)
    unlabelled = [slide for slide in slides if slide not in labels]
    if unlabelled:
        raise EvaluationError(f"slide {unlabelled[0]} has no label", "a label for each slide")
    tumour = [slide for slide in slides if labels[slide]]
    if not tumour:
        raise EvaluationError(
            f"no tumour slide among the {len(slides)} that choose the threshold",
            "tumour slides of several patients; the logistic pooling takes every other one for itself",
        )
    values = np.array([scores[slide] for slide in tumour])
    units_P, _ = units_of([units[slide] for slide in tumour])
    by_patient = len(set(units_P.tolist())) < len(tumour)
    found, promise = guaranteed_threshold(
        values, units_P, config.sensitivity, config.guarantee, config.guarantee_confidence
    )
    if found is None:
        curve = RankedScores.of(np.ones(len(values), np.int64), values).curve()
        found = float(curve.thresholds_T[first_reaching(curve, config.sensitivity)])
    threshold = _below(found, list(scores.values()))
    negative = [slide for slide in slides if not labels[slide]]
    return SlideScreening(
        threshold=threshold,
        guarantee=promise.model_copy(
            update={"unit": "slide", "words": _words(promise, config.guarantee, by_patient)}
        ),
        tumour=len(tumour),
        kept=int((values >= threshold).sum()),
        negative=len(negative),
        set_aside=sum(scores[slide] < threshold for slide in negative),
    )


def _half(units: Mapping[str, str], labels: Mapping[str, bool]) -> tuple[str, ...]:
    """The slides of every other unit, among those with tumour and among those without; the same in each run."""
    with_tumour = {units[slide] for slide in units if labels.get(slide)}
    taken: set[str] = set()
    for kind in (with_tumour, set(units.values()) - with_tumour):
        taken.update(sorted(kind, key=lambda unit: hashlib.sha256(unit.encode()).digest())[::2])
    return tuple(sorted(slide for slide, unit in units.items() if unit in taken))


def _below(threshold: float, scores: Sequence[float]) -> float:
    """Half way to the next lower score, so that another runtime's rounding sets no slide aside."""
    lower = [score for score in scores if score < threshold]
    return (threshold + max(lower)) / 2 if lower else threshold


def _words(promise: Guarantee, asked: GuaranteeKind, by_patient: bool) -> str:
    units = "patients with tumour" if by_patient else "tumour slides"
    if promise.kind == "none":
        if asked == "none":
            return "No guarantee was asked for: the sensitivity is that of the validation slides."
        needed = promise.units_needed
        why = "no number of them shows it" if needed is None else f"at least {needed} are needed"
        return (
            f"No guarantee: the {units} that chose the threshold number {promise.units}, and {why} for a "
            f"sensitivity of {promise.sensitivity:g} over slides."
        )
    of = "a new patient's tumour slides" if by_patient else "new tumour slides"
    sure = (
        "on average over such draws of validation and new slides"
        if promise.kind == "expectation"
        else f"with {promise.confidence:g} confidence over the draw of validation"
    )
    return (
        f"At least {promise.sensitivity:g} of {of} are not set aside, {sure}, provided that new {units} are "
        f"exchangeable with the {promise.units} of validation (same scanners, laboratories and referrals)."
    )
