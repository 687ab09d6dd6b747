"""What a promotion is decided on, measured: both bundles on the candidate's validation split, on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.bundle import Bundle
from sentinode.bundle.gate_facts import (
    AurocFacts,
    CalibrationFacts,
    DataFacts,
    GateFacts,
    GatePolicy,
    LatencyFacts,
    StratumChange,
)
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.verify import golden_difference
from sentinode.errors import EvaluationError
from sentinode.evaluation.calibration import CalibrationSums
from sentinode.evaluation.delong import delong, student_reach
from sentinode.evaluation.intervals import units_of
from sentinode.evaluation.metrics import IntArray
from sentinode.evaluation.paired_change import paired_change
from sentinode.evaluation.predictions import Predictions

ECE_BINS: Final = 15
_DRAWS: Final = 200
_RUNS: Final = 30
_LATENCY_S: Final = 3.0
"""Time for the measurement of latency; at least three runs are made whatever they take."""


def measure(
    alias: str,
    candidate: tuple[Bundle, Predictions],
    current: tuple[Bundle, Predictions] | None,
    policy: GatePolicy,
    data: DataFacts,
    lesion_sizes: Mapping[str, str] | None = None,
) -> GateFacts:
    """The facts for ``decide``. Predictions are those of each bundle on the same validation split; ``data`` says what
    their trainings have seen of it.

    ``lesion_sizes`` maps slides to the size of their largest lesion. Raises EvaluationError where the split lacks
    a class.
    """
    bundle, predicted = candidate[0], candidate[1].labelled()
    old = None if current is None else (current[0], current[1].labelled())
    positives = int((predicted.labels == 1).sum())
    if not 0 < positives < len(predicted):
        raise EvaluationError(f"{positives} tumour patches of {len(predicted)} in validation", "both classes")
    return GateFacts(
        alias=alias,
        candidate=bundle.digest,
        current=old[0].digest if old else None,
        manifest_digest=predicted.manifest_digest,
        patches=len(predicted),
        positives=positives,
        data=data,
        auroc=_auroc(predicted, old[1] if old else None, policy.level),
        sensitivity=_strata((bundle, predicted), old, policy.level, lesion_sizes or {}) if old else (),
        calibration=_calibration(predicted, policy.level),
        latency=_latency([bundle, *([old[0]] if old else [])]),
        golden_difference=golden_difference(
            OnnxModel(bundle.onnx_path), bundle.golden, bundle.card.calibration
        ),
        licence=bundle.card.licence,
        start_licence=bundle.card.start_licence,
        cautions=_cautions(predicted, old is not None),
    )


def _auroc(new: Predictions, old: Predictions | None, level: float) -> AurocFacts:
    units_N = _slides(new.slides.tolist())
    unit: Literal["slide", "patch"] = "patch" if units_N is None else "slide"
    columns = [new.probabilities, *([old.probabilities] if old else [])]
    areas = delong(new.labels, columns, units_N)
    facts = AurocFacts(candidate=float(areas.aurocs_K[0]), unit=unit)
    if old is None:
        return facts
    difference, error = areas.difference(0, 1)
    known = {"current": float(areas.aurocs_K[1]), "difference": difference}
    if np.isnan(error):
        return facts.model_copy(update=known)
    reach = student_reach(level, areas.freedom) * error
    return facts.model_copy(update=known | {"low": difference - reach, "high": difference + reach})


def _strata(
    new: tuple[Bundle, Predictions],
    old: tuple[Bundle, Predictions],
    level: float,
    lesion_sizes: Mapping[str, str],
) -> tuple[StratumChange, ...]:
    tumour = np.flatnonzero(new[1].labels == 1)
    slides = new[1].slides[tumour].tolist()
    units_P = _slides(slides)
    flagged = [p.probabilities[tumour] >= _threshold(b) for b, p in (old, new)]
    columns: dict[Literal["slide", "centre", "lesion size"], Sequence[str | None]] = {
        "slide": slides,
        "centre": new[1].centres[tumour].tolist(),
        "lesion size": [lesion_sizes.get(slide) if slide else None for slide in slides],
    }
    groups = [
        (kind, name, np.flatnonzero([other == name for other in column]))
        for kind, column in columns.items()
        for name in sorted({name for name in column if name is not None})
    ]

    def change(rows: NDArray[np.int64] | slice, at: float) -> StratumChange:
        units = None if units_P is None else np.unique(units_P[rows], return_inverse=True)[1]
        found = paired_change(flagged[0][rows], flagged[1][rows], at, units)
        return StratumChange(kind="all", name="", found=found)

    shared = 1 - (1 - level) / max(len(groups), 1)
    return (
        change(slice(None), level),
        *(
            change(rows, shared).model_copy(update={"kind": kind, "name": name})
            for kind, name, rows in groups
        ),
    )


def _slides(slides: Sequence[str | None]) -> IntArray | None:
    """The slide of each patch, one without name counting as a slide of its own; None where no patch names its slide."""
    return units_of(slides)[0] if any(slide is not None for slide in slides) else None


def _calibration(p: Predictions, level: float) -> CalibrationFacts:
    even = np.ones(len(p), np.int64)
    rng = np.random.default_rng(0)

    def ece(labels_N: NDArray[np.int8]) -> float:
        return CalibrationSums.of(labels_N, p.probabilities, ECE_BINS).ece(even)

    drawn = [ece((rng.random(len(p)) < p.probabilities).astype(np.int8)) for _ in range(_DRAWS)]
    return CalibrationFacts(ece=ece(p.labels), ece_by_chance=float(np.quantile(drawn, level)), bins=ECE_BINS)


def _latency(bundles: Sequence[Bundle]) -> LatencyFacts:
    models = [OnnxModel(bundle.onnx_path) for bundle in bundles]
    patch_1HWC = np.ascontiguousarray(bundles[0].golden.images_BHWC[:1])
    for model in models:
        model.logits(patch_1HWC)
    times_ms: list[list[float]] = [[] for _ in models]
    began = time.perf_counter()
    while len(times_ms[0]) < 3 or (
        len(times_ms[0]) < _RUNS and time.perf_counter() - began < _LATENCY_S * len(models)
    ):
        for mine, model in zip(times_ms, models, strict=True):
            start = time.perf_counter()
            model.logits(patch_1HWC)
            mine.append(1e3 * (time.perf_counter() - start))
    medians = [statistics.median(mine) for mine in times_ms]
    return LatencyFacts(
        candidate_ms=medians[0],
        current_ms=medians[1] if len(medians) > 1 else None,
        runs=len(times_ms[0]),
        runtime=f"ONNX Runtime ({models[0].providers[0]}), one thread",
    )


def _cautions(predicted: Predictions, compared: bool) -> tuple[str, ...]:
    found = []
    unknown = sum(slide is None for slide in predicted.slides)
    if unknown == len(predicted):
        found.append("Slides are unknown: intervals are over patches, the true uncertainty is larger.")
    elif unknown:
        found.append(f"{unknown} of {len(predicted)} patches name no slide and count as a slide each.")
    if not compared:
        found.append("The alias named no bundle before: nothing was compared.")
    return tuple(found)


def _threshold(bundle: Bundle) -> float:
    point = bundle.card.operating_point()
    assert point is not None, "the card's validator guarantees it"
    return point.threshold
