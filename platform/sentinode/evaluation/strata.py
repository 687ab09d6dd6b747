"""Where the model is weakest: the same figures by slide, centre and lesion size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sentinode.evaluation.delong import delong
from sentinode.evaluation.intervals import clopper_pearson
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import Estimate, Stratum, StratumKind, WorstStratum

ENOUGH_PATCHES = 10
"""Of a class, before its stratum may be named the worst: one patch alone is always 0 or 100 %."""


def strata(
    labelled: Predictions, threshold: float, level: float, lesion_sizes: Mapping[str, str] | None = None
) -> tuple[Stratum, ...]:
    """Every known slide, centre and lesion size, with figures at ``threshold``; one class gives no AUROC.

    ``lesion_sizes`` maps slides to the size class of their largest lesion (macro, micro, itc). A size whose
    slides have no patch here is kept, with nothing estimable.
    """
    sizes = lesion_sizes or {}
    columns: dict[StratumKind, Sequence[str | None]] = {
        "slide": labelled.slides.tolist(),
        "centre": labelled.centres.tolist(),
        "lesion size": [sizes.get(slide) if slide else None for slide in labelled.slides.tolist()],
    }
    out = []
    for kind, column in columns.items():
        names = {name for name in column if name is not None}
        if kind == "lesion size":
            names |= set(sizes.values())
        rows_of: dict[str, list[int]] = {name: [] for name in sorted(names)}
        for i, name in enumerate(column):
            if name is not None:
                rows_of[name].append(i)
        out += [
            _stratum(kind, name, labelled, np.array(rows, np.int64), threshold, level)
            for name, rows in rows_of.items()
        ]
    return tuple(out)


def worst_strata(found: Sequence[Stratum]) -> tuple[WorstStratum, ...]:
    """Of each kind, the stratum with the lowest sensitivity and the one with the lowest specificity."""
    out = []
    for kind in dict.fromkeys(s.kind for s in found):
        same = [s for s in found if s.kind == kind]
        sides = (
            ("sensitivity", [(s.sensitivity.value, s.positives, s.name) for s in same]),
            ("specificity", [(s.specificity.value, s.patches - s.positives, s.name) for s in same]),
        )
        for measure, rows in sides:
            told = [(v, n, name) for v, n, name in rows if v is not None and n >= ENOUGH_PATCHES]
            if len(told) > 1:
                value, patches, name = min(told)
                out.append(
                    WorstStratum.model_validate(
                        {"kind": kind, "name": name, "measure": measure, "value": value, "patches": patches}
                    )
                )
    return tuple(out)


def _stratum(
    kind: StratumKind,
    name: str,
    p: Predictions,
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    threshold: float,
    level: float,
) -> Stratum:
    labels, scores = p.labels[rows], p.probabilities[rows]
    flagged = scores >= threshold
    positives = int((labels == 1).sum())
    auroc = Estimate(value=None)
    if 0 < positives < len(rows):
        areas = delong(labels, [scores])
        interval = areas.interval(0, level)
        auroc = Estimate(value=float(areas.aurocs_K[0]))
        if interval is not None:
            auroc = Estimate(
                value=auroc.value, low=interval[0], high=interval[1], method="DeLong over patches"
            )
    return Stratum(
        kind=kind,
        name=name,
        patches=len(rows),
        positives=positives,
        auroc=auroc,
        sensitivity=_proportion(int((flagged & (labels == 1)).sum()), positives, level),
        specificity=_proportion(int((~flagged & (labels == 0)).sum()), len(rows) - positives, level),
    )


def _proportion(successes: int, trials: int, level: float) -> Estimate:
    if not trials:
        return Estimate(value=None)
    low, high = clopper_pearson(successes, trials, level)
    return Estimate(value=successes / trials, low=low, high=high, method="exact over patches")
