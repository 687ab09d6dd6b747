"""The report in words: the headline as plain sentences, and what to know before trusting a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sentinode.evaluation.operating_point import OperatingPoint
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import Estimate, SplitResult
from sentinode.evaluation.resampled import Resampled

UNIT = "\N{NO-BREAK SPACE}%"

FEW_POSITIVES = 300
"""Below it even a faultless model cannot show 99 % sensitivity: with n of n found, it may be as low as 0.05^(1/n)
(one-sided, Clopper and Pearson)."""

FEW_SLIDES = 30
"""Below it a cluster bootstrap is known to be too narrow (Cameron, Gelbach and Miller 2008)."""


def percent(share: float | None, digits: int = 1) -> str:
    """``98.7 %``; never rounded up to 100 % nor down to 0 %."""
    if share is None:
        return "not estimable"
    text = f"{100 * share:.{digits}f}"
    if float(text) == 100 and share < 1:
        text = f"{100 - 10**-digits:.{digits}f}"
    if float(text) == 0 and share > 0:
        text = f"{10**-digits:.{digits}f}"
    return f"{text}{UNIT}"


def aim(share: float) -> str:
    """``98 %``, and ``97.5 %`` of what is not whole."""
    return percent(share, 0 if math.isclose(100 * share, round(100 * share)) else 1)


def interval(e: Estimate | Resampled, as_percent: bool = True) -> str:
    """``97.9–99.3 %`` or ``0.912–0.934``; words where there is none."""
    if e.low is None or e.high is None:
        return "not estimable"
    if as_percent:
        return f"{percent(e.low).removesuffix(UNIT)}–{percent(e.high)}"
    return f"{e.low:.3f}–{e.high:.3f}"


def _of_100(share: float) -> str:
    """A whole number, unless that would be all or none without being so."""
    whole = 0 < round(100 * share) < 100 or share in (0, 1)
    return f"{100 * share:.0f}" if whole else percent(share).removesuffix(UNIT)


def summary(result: SplitResult, point: OperatingPoint, level: float) -> str:
    """The headline figures of one split as sentences that need no statistics."""
    name = {"valid": "validation"}.get(result.split, result.split)
    at = result.points[point.name].measures
    auroc, found, spared = result.measures["auroc"], at["sensitivity"], at["specificity"]
    if auroc.value is None or found.value is None or spared.value is None:
        return (
            f"The {name} patches are of one class only ({result.positives} tumour, {result.negatives} "
            "negative), from which discrimination cannot be estimated."
        )
    return (
        f"Of 100 negative {name} patches, {_of_100(spared.value)} need not be read at the {point.name} "
        f"threshold ({percent(level, 0)} interval {interval(spared)}), and {percent(found.value)} of the "
        f"tumour patches are found ({interval(found)}). Shown one tumour and one negative patch, the model "
        f"ranks them rightly {percent(auroc.value)} of the time (AUROC {auroc.value:.3f}, "
        f"{interval(auroc, as_percent=False)})."
    )


def warnings(
    valid: Predictions, test: Predictions | None, headline: SplitResult, points: Sequence[OperatingPoint]
) -> tuple[str, ...]:
    """What limits the figures, most weighty first."""
    out = []
    if test is None and headline.split == "valid":
        out.append(
            "There is no test split: these are figures of validation, on which thresholds and best epoch "
            "were chosen. They flatter the model."
        )
    elif test is None:
        out.append(
            f"There is no validation split: the {headline.split} patches had to serve as validation, so thresholds "
            "and calibration were chosen on the very patches that they are measured on. They flatter the model."
        )
    out += _about_slides(valid, test, headline)
    if not headline.positives:
        out.append(f"No tumour patch in {headline.split}: how much of the tumour is found is not estimable.")
    elif headline.positives < FEW_POSITIVES:
        shown = percent(0.05 ** (1 / headline.positives))
        out.append(
            f"Tumour patches in {headline.split}: only {headline.positives}. Even a faultless result could not show "
            f"a sensitivity above {shown} with 95 % confidence."
        )
    if not headline.negatives:
        out.append(f"No negative patch in {headline.split}: how much need not be read is not estimable.")
    out += [
        f"The {p.name} threshold cannot reach its aim but by flagging every patch."
        for p in points
        if not p.reachable
    ]
    out += [f"{p.name}: {p.guarantee.words}" for p in points if p.guarantee and p.guarantee.kind == "none"]
    if any(p.guarantee and p.guarantee.kind != "none" and p.guarantee.unit == "patch" for p in points):
        out.append(
            "Guarantees count tumour patches as exchangeable. Those of one slide resemble each other, so on new "
            "slides a guarantee may fail more often than it says."
        )
    for p in (valid, test):
        missing = 0 if p is None else len(p) - len(p.labelled())
        if p is not None and missing:
            out.append(f"{missing} patches of {p.splits[0]} carry no label and enter no figure.")
    return tuple(out)


def _about_slides(valid: Predictions, test: Predictions | None, headline: SplitResult) -> list[str]:
    measured = (valid if test is None else test).labelled()
    out = []
    unknown = sum(slide is None for slide in measured.slides)
    if headline.interval_unit == "patch":
        out.append(
            "Slides are unknown: intervals are over patches, which are treated as independent. Patches of "
            "one slide resemble each other, so the true uncertainty is larger."
        )
    elif unknown:
        out.append(f"{unknown} of {len(measured)} patches name no slide and count as a slide each.")
    if headline.slides is not None and headline.slides < FEW_SLIDES:
        out.append(
            f"Only {headline.slides} slides in {headline.split}: intervals over slides are too narrow."
        )
    if test is not None:
        shared = {s for s in valid.slides if s is not None} & {s for s in test.slides if s is not None}
        if shared:
            out.append(
                f"{len(shared)} slides lie in validation and in test, e.g. {min(shared)}: the test figures "
                "flatter the model."
            )
    return out
