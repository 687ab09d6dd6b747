"""What the report says of its figures in plain words, and which rows its tables show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sentinode.evaluation.calibrator import Calibration
from sentinode.evaluation.cautions import percent
from sentinode.evaluation.panel import workload_name
from sentinode.evaluation.records import (
    Estimate,
    EvaluationConfig,
    EvaluationReport,
    SplitResult,
    Stratum,
    StratumKind,
)
from sentinode.evaluation.slide_pooling import Pooling, PoolingConfig

POOLINGS = {
    Pooling.MAX: "the highest probability of its patches",
    Pooling.NOISY_OR: "noisy-or of its patches (the more suspicious patches, the higher)",
    Pooling.LOGISTIC: "a logistic model of the heat map that its patches make, fitted on validation slides",
}
"""How a slide is scored, in words; the top-k mean names its k."""

LONGEST_TABLE = 12
"""Strata of one kind that are shown; all of them stand in report.json."""


def calibration(found: Calibration) -> str:
    """How the model's raw output became a probability."""
    how = {
        "identity": "The model's probabilities are shown as it gives them; they were not adjusted.",
        "temperature": "Probabilities were adjusted on validation by one factor for all patches (temperature "
        f"scaling, T = {1 / found.a:.3f}); the order of patches, and so the AUROC, stays as it was.",
        "platt": "Probabilities were adjusted on validation by a factor and a shift (Platt scaling, slope "
        f"{found.a:.3f}, shift {found.b:.3f}); the order of patches stays as it was.",
        "isotonic": "Probabilities were adjusted on validation by a rising curve (isotonic regression, "
        f"{len(found.knots)} knots).",
    }
    return how[found.kind]


def pooling(config: PoolingConfig) -> str:
    """How patches became a slide score."""
    if config.method is Pooling.TOP_MEAN:
        return f"the mean of its {config.top_k} highest probabilities"
    return POOLINGS[config.method]


def prevalence(report: EvaluationReport) -> str | None:
    """What a probability of these patches becomes at the stated prevalence; None where none is stated."""
    stated, shifted = report.config.prevalence, report.calibration_at_prevalence
    if stated is None or shifted is None:
        return None
    even = float(shifted.probabilities([-report.calibration.b / report.calibration.a])[0])
    if shifted.kind == "isotonic":
        return (
            f"For patches of which {percent(stated)} are tumour, probabilities are corrected by Bayes' rule."
        )
    return (
        f"Where {percent(stated)} of the patches are tumour, a probability of 50 % here means "
        f"{percent(even, 2)} (Bayes' rule); thresholds and verdicts stay the same."
    )


def test_uses(report: EvaluationReport) -> str:
    """How often the test split was looked at, and what that does to its figures."""
    if report.test is None and report.valid.split == "valid":
        return "There is no test split; thresholds and figures come from the same validation patches."
    if report.test is None:
        again = f" They were measured {report.test_uses} times." if report.test_uses > 1 else ""
        return (
            f"There is no validation split of its own: the {report.valid.split} patches served as validation too, so "
            f"thresholds and figures come from the same patches.{again}"
        )
    if report.test_uses == 0:
        return "How often this model was measured on the test split before is not recorded."
    if report.test_uses == 1:
        return "This is the first measurement of this model on this test split, as it should be."
    return (
        f"This model has been measured {report.test_uses} times on this test split. Whatever was chosen after "
        "the first time was chosen by test figures, which then flatter the model."
    )


@dataclass(frozen=True)
class StrataTable:
    """The strata of one kind, weakest first, cut to a readable length."""

    kind: StratumKind
    rows: tuple[Stratum, ...]
    total: int
    worst: tuple[str, ...]
    """Sentences that name the weakest."""


def strata_tables(result: SplitResult, longest: int = LONGEST_TABLE) -> list[StrataTable]:
    """A table for each known kind of stratum: lowest sensitivity first, then lowest specificity."""
    tables = []
    for kind in dict.fromkeys(s.kind for s in result.strata):
        same = sorted((s for s in result.strata if s.kind == kind), key=_weakest_first)
        worst = tuple(
            f"Lowest {w.measure}: {w.name}, {percent(w.value)} of {w.patches} "
            f"{'tumour' if w.measure == 'sensitivity' else 'negative'} patches."
            for w in result.worst_strata
            if w.kind == kind
        )
        tables.append(StrataTable(kind, tuple(same[:longest]), len(same), worst))
    return tables


def _weakest_first(s: Stratum) -> tuple[bool, float, bool, float, str]:
    found, spared = s.sensitivity.value, s.specificity.value
    return (found is None, found or 0.0, spared is None, spared or 0.0, s.name)


@dataclass(frozen=True)
class WorkloadRow:
    """One line of the table of saved reading; None where not known."""

    sensitivity: float
    negatives: Estimate
    reading_saved: float | None
    at_prevalence: float | None


def workload_rows(result: SplitResult, config: EvaluationConfig) -> list[WorkloadRow]:
    """The stated sensitivities, each with its share of negatives and of all reading."""
    points = {p.sensitivity: p for p in result.workload}
    rows = []
    for s in config.workload_sensitivities:
        point = points.get(s)
        rows.append(
            WorkloadRow(
                sensitivity=s,
                negatives=result.measures[workload_name(s)],
                reading_saved=point.reading_saved if point else None,
                at_prevalence=point.reading_saved_at_prevalence if point else None,
            )
        )
    return rows


GLOSSARY: Sequence[tuple[str, str]] = (
    ("Sensitivity", "Of the tumour patches, the share that the model flags. What is not flagged is missed."),
    ("Specificity", "Of the negative patches, the share that the model does not flag. These need not be read."),
    ("Positive predictive value", "Of the flagged patches, the share that is tumour. It falls where tumour is rare."),
    ("Negative predictive value", "Of the patches set aside, the share that is truly negative."),
    ("Threshold", "The probability from which on a patch is flagged. Lower: fewer misses, more false alarms."),
    ("AUROC", "Chance that a tumour patch scores above a negative one: 1 is perfect, 0.5 is tossing a coin."),
    ("Average precision", "Mean share of tumour among the flagged patches, over all thresholds. 1 is perfect."),
    ("Interval", "The range in which the figure would probably lie had other patches been drawn. Wide: uncertain."),
    ("Bootstrap, DeLong", "Two ways to compute an interval: by drawing patches again and again, and by a formula."),
    ("Validation, test", "Validation patches choose thresholds; test patches are kept aside to measure them."),
    ("Cohen's kappa, Matthews correlation", "Agreement with the reference beyond chance. 1 is perfect, 0 is chance."),
    ("Lesion size", "Of a slide's largest metastasis: macro from 2 mm, micro below, itc (single cells) up to 0.2 mm."),
    ("Guarantee", "What holds for new tissue if it is exchangeable with that of validation: no way to tell which is "
     "which, as with the same scanner, staining and way of sampling. For other tissue nothing is guaranteed."),
)  # fmt: skip
"""Terms of the report for readers who do not use them daily."""
