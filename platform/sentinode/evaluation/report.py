"""The evaluation: thresholds from validation, and every measure of each split with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from sentinode.errors import EvaluationError, LeakError
from sentinode.evaluation import cautions
from sentinode.evaluation.calibration import reliability
from sentinode.evaluation.calibrator import Calibration, fit
from sentinode.evaluation.delong import delong
from sentinode.evaluation.intervals import bootstrap, clopper_pearson, percentile_interval, units_of
from sentinode.evaluation.metrics import Confusion, FloatArray, IntArray, RankedScores
from sentinode.evaluation.operating_point import OperatingPoint, choose_points
from sentinode.evaluation.panel import MeasurePanel
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import (
    Estimate,
    EvaluationConfig,
    EvaluationReport,
    IntervalMethod,
    PointResult,
    SplitResult,
)
from sentinode.evaluation.slide_level import (
    SlideLevelConfig,
    SlideLevelResult,
    evaluate_slides,
    labels_from_patches,
)
from sentinode.evaluation.slide_pooling import Pooling, fit_slide_logistic, heat_maps_of, scores_of
from sentinode.evaluation.strata import strata, worst_strata
from sentinode.evaluation.workload import workload
from sentinode.schema import Split

__all__ = ["EvaluationConfig", "EvaluationReport", "evaluate"]


def evaluate(
    valid: Predictions,
    test: Predictions | None,
    config: EvaluationConfig,
    *,
    lesion_sizes: Mapping[str, str] | None = None,
    test_uses: int = 0,
) -> EvaluationReport:
    """Calibrate and choose thresholds on ``valid``, measure both splits with intervals, say what to be careful about.

    ``lesion_sizes`` maps slides to size classes; ``test_uses`` counts the measurements of this test split.

    Unlabelled patches are left out and counted. Raises EvaluationError where validation lacks a class, where
    ``test`` holds no label, or where the two come from different models or data sets; LeakError where they
    share a patch.
    """
    if test is not None:
        _check_pair(valid, test)
    ranked = _ranked(valid, _told(valid))
    calibration = calibrate(valid, config)
    valid = valid.calibrated(calibration)
    points = choose_points(valid.labelled(), config.aims, config.guarantee, config.guarantee_confidence)
    valid_result = _measure(valid, points, config, lesion_sizes)
    test_result = None
    if test is not None:
        test = test.calibrated(calibration)
        test_result = _measure(test, points, config, lesion_sizes)
    verdict_point = next(p for p in points if p.name == config.operating_point)
    headline = test_result or valid_result
    return EvaluationReport(
        model_digest=valid.model_digest,
        manifest_digest=valid.manifest_digest,
        config=config,
        operating_points=points,
        calibration=calibration,
        calibration_at_prevalence=None
        if config.prevalence is None
        else calibration.at_prevalence(float(ranked.labels_N.mean()), config.prevalence),
        test_uses=test_uses,
        valid=valid_result,
        test=test_result,
        slide_level=_slide_level(valid, test, config),
        summary=cautions.summary(headline, verdict_point, config.level),
        warnings=cautions.warnings(valid, test, headline, points),
    )


def calibrate(valid: Predictions, config: EvaluationConfig) -> Calibration:
    """The calibration that ``config`` asks for, fitted on the labelled patches. Raises EvaluationError."""
    labelled = valid.labelled()
    if not 0 < int(labelled.labels.sum()) < len(labelled):
        raise EvaluationError(
            f"{_told(valid)} has {int(labelled.labels.sum())} tumour patches of {len(labelled)}",
            "both classes where thresholds and calibration are chosen",
            "give patches of both, or choose a larger valid fraction at ingest",
        )
    return fit(config.calibration, labelled.labels, labelled.logits)


def _measure(
    predictions: Predictions,
    points: tuple[OperatingPoint, ...],
    config: EvaluationConfig,
    lesion_sizes: Mapping[str, str] | None,
) -> SplitResult:
    split = str(predictions.splits[0]) if len(predictions) else "empty"
    _ranked(predictions, split)
    labelled = predictions.labelled()
    panel = MeasurePanel(
        labelled, points, config.workload_sensitivities, config.reliability_bins, config.prevalence
    )
    slides = [slide for slide in labelled.slides.tolist() if slide is not None]
    units, n_units = units_of(labelled.slides.tolist())
    values = panel(np.ones(len(labelled), np.int64))
    replicates = bootstrap(panel, units, n_units, config.resamples, config.seed)
    by_slide = bool(slides)
    estimates = {
        name: _estimate(values[i], replicates[:, i], by_slide, config.level)
        for i, name in enumerate(panel.names)
    }
    estimates["auroc_delong"] = _delong(labelled, units if by_slide else None, config.level)
    verdict = next(p for p in points if p.name == config.operating_point)
    by_stratum = strata(labelled, verdict.threshold, config.level, lesion_sizes)
    return SplitResult(
        split=split,
        patches=len(labelled),
        positives=panel.curve.positives,
        negatives=panel.curve.negatives,
        unlabelled=len(predictions) - len(labelled),
        slides=len(set(slides)) or None,
        interval_unit="slide" if by_slide else "patch",
        measures={name: e for name, e in estimates.items() if "/" not in name},
        points={p.name: _at_point(p.name, panel, estimates, by_slide, config.level) for p in points},
        reliability=reliability(labelled.labels, labelled.probabilities, config.reliability_bins),
        workload=workload(panel.curve, config.prevalence),
        strata=by_stratum,
        worst_strata=worst_strata(by_stratum),
    )


def _slide_level(
    valid: Predictions, test: Predictions | None, config: EvaluationConfig
) -> SlideLevelResult | None:
    """Slides by their sampled patches, where the slide of every labelled patch is known."""
    labelled = (valid if test is None else test).labelled()
    if not labelled.slides_known:
        return None
    logistic = None
    if config.slide_pooling.method is Pooling.LOGISTIC:
        if test is None:
            raise EvaluationError(
                "one split only for a logistic slide score",
                "validation slides to fit it on and other slides to measure",
                "choose max, top-k mean or noisy-or, or give both splits",
            )
        fitted = valid.labelled()
        logistic = fit_slide_logistic(heat_maps_of(fitted), labels_from_patches(fitted), Split.VALID)
    settings = SlideLevelConfig(
        pooling=config.slide_pooling,
        resamples=config.resamples,
        level=config.level,
        seed=config.seed,
        sensitivities=config.workload_sensitivities,
    )
    scores = scores_of(heat_maps_of(labelled), settings.pooling, logistic)
    return evaluate_slides(scores, labels_from_patches(labelled), settings, sampled=True)


def _delong(labelled: Predictions, units_N: IntArray | None, level: float) -> Estimate:
    """AUROC with DeLong's interval, over slides where ``units_N`` tells them."""
    areas = delong(labelled.labels, [labelled.probabilities], units_N)
    value, interval = float(areas.aurocs_K[0]), areas.interval(0, level)
    if math.isnan(value) or interval is None:
        return Estimate(value=None if math.isnan(value) else value)
    method: IntervalMethod = "DeLong over patches" if units_N is None else "DeLong over slides"
    return Estimate(value=value, low=interval[0], high=interval[1], method=method)


def _estimate(value: float, replicates_R: FloatArray, by_slide: bool, level: float) -> Estimate:
    if math.isnan(value):
        return Estimate(value=None)
    interval = percentile_interval(replicates_R, level)
    if interval is None:
        return Estimate(value=float(value))
    method: IntervalMethod = "bootstrap over slides" if by_slide else "bootstrap over patches"
    return Estimate(value=float(value), low=interval[0], high=interval[1], method=method)


def _at_point(
    point: str, panel: MeasurePanel, estimates: Mapping[str, Estimate], by_slide: bool, level: float
) -> PointResult:
    """Proportions get exact intervals where patches are the unit, or the bootstrap has no width to show."""
    found = panel.confusion(point)
    measures = {
        name.removeprefix(f"{point}/"): e for name, e in estimates.items() if name.startswith(f"{point}/")
    }
    for name, (successes, trials) in _proportions(found).items():
        if trials and (not by_slide or measures[name].method == "none"):
            low, high = clopper_pearson(successes, trials, level)
            measures[name] = Estimate(
                value=measures[name].value, low=low, high=high, method="exact over patches"
            )
    return PointResult(tp=found.tp, fp=found.fp, tn=found.tn, fn=found.fn, measures=measures)


def _proportions(c: Confusion) -> dict[str, tuple[int, int]]:
    """Measures that are counts out of counts."""
    return {
        "sensitivity": (c.tp, c.tp + c.fn),
        "specificity": (c.tn, c.tn + c.fp),
        "ppv": (c.tp, c.tp + c.fp),
        "npv": (c.tn, c.tn + c.fn),
        "accuracy": (c.tp + c.tn, c.tp + c.fp + c.tn + c.fn),
    }


def _ranked(predictions: Predictions, split: str) -> RankedScores:
    labelled = predictions.labelled()
    if not len(labelled):
        raise EvaluationError(
            f"none of the {len(predictions)} patches of {split} carries a label",
            "labelled patches",
            "give reference labels, or leave this split out",
        )
    return RankedScores.of(labelled.labels, labelled.probabilities)


def _told(predictions: Predictions) -> str:
    """The name of a split in errors."""
    name = str(predictions.splits[0]) if len(predictions) else "empty"
    return "validation" if name == Split.VALID.value else name


def _check_pair(valid: Predictions, test: Predictions) -> None:
    for name in ("model_digest", "manifest_digest"):
        ours, theirs = getattr(valid, name), getattr(test, name)
        if ours != theirs:
            raise EvaluationError(
                f"{name} {ours!r} in validation and {theirs!r} in test",
                "both splits of one data set, predicted by one model",
                "predict both splits again",
            )
    shared = np.intersect1d(valid.keys, test.keys)
    if len(shared):
        raise LeakError(
            f"{len(shared)} patches stand in validation and in test, e.g. {shared[0]}",
            "splits without a common patch",
            "ingest again: it removes duplicates over splits",
        )
