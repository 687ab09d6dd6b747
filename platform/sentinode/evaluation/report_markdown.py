"""The texts beside the report: the model card (Mitchell et al. 2019, arXiv:1810.03993) and the checklists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sentinode.evaluation.cautions import interval, percent
from sentinode.evaluation.checklist import NOT_REPORTED, Answer, Checklist, answers
from sentinode.evaluation.checklist_claim import CLAIM_2024
from sentinode.evaluation.checklist_stard import STARD_AI
from sentinode.evaluation.checklist_tripod import TRIPOD_AI
from sentinode.evaluation.model_facts import ModelFacts
from sentinode.evaluation.panel import workload_name
from sentinode.evaluation.records import Estimate, EvaluationReport, SplitResult
from sentinode.evaluation.report_html import AS_PERCENT, MEASURE_NAMES
from sentinode.evaluation.report_words import calibration, prevalence, test_uses

CHECKLISTS = (STARD_AI, TRIPOD_AI, CLAIM_2024)


def model_card(report: EvaluationReport, facts: ModelFacts) -> str:
    """``model_card.md``: what the model is for, what it was made from, how good it is, where it ends."""
    shifted = prevalence(report)
    limits = [
        *report.warnings,
        "Measured on patches like those of this data set; another scanner, laboratory or staining may differ.",
        "It says nothing of tissue it was not trained on, and finds tumour in lymph nodes only.",
    ]
    parts = [
        f"# Model card: {_plain(facts.name)}",
        f"**{report.notice}**",
        report.summary,
        "## Intended use",
        "Research on how much of a pathologist's reading could be saved: the model gives each patch a probability "
        "of tumour and, at an operating point, a verdict. It is no medical device and must not decide on patients.",
        "## Model",
        _table(
            ("", ""),
            [
                ("Architecture", facts.architecture or NOT_REPORTED),
                ("Input", facts.input or NOT_REPORTED),
                ("Training", facts.training or NOT_REPORTED),
                ("Final weights", facts.selection or NOT_REPORTED),
                ("Digest", report.model_digest),
                ("Licence of the weights", facts.licence or NOT_REPORTED),
                ("Code", facts.code or NOT_REPORTED),
                ("Versions", facts.versions or NOT_REPORTED),
                ("From", facts.run),
            ],
        ),
        "## Data",
        f"{facts.dataset or 'Data set not reported'}, manifest `{facts.manifest_digest}`. Compared with "
        f"{_plain(facts.reference)}. {facts.dropped}",
        _table(("Split", "Patches"), list(facts.splits.items())),
        f"## Figures, with {percent(report.config.level, 0)} intervals",
        test_uses(report),
        *(_figures(report, result) for result in (report.valid, report.test) if result is not None),
        "## Operating points",
        _table(
            ("Name", "Threshold", "Sensitivity", "Specificity", "Chosen as, and what is promised"),
            [_point_row(report, i) for i in range(len(report.operating_points))],
        ),
        "## Probabilities",
        " ".join(filter(None, (calibration(report.calibration), shifted))),
        "## Limits",
        "\n".join(f"- {_plain(limit)}" for limit in limits),
    ]
    return "\n\n".join(parts) + "\n"


def checklists(report: EvaluationReport, facts: ModelFacts) -> str:
    """``checklists.md``: STARD-AI, TRIPOD+AI and CLAIM, filled with what is known."""
    known = answers(report, facts)
    parts = [
        f"# Reporting checklists: {_plain(facts.name)}",
        f"**{report.notice}**",
        "Filled from the records of run, data set and report; an answer may be part of what an item asks. "
        f"Items are given in short in our own words: the guidelines themselves say more. What no record knows is "
        f"“{NOT_REPORTED}” and left to the authors of a study.",
    ]
    for checklist in CHECKLISTS:
        parts += _checklist(checklist, known)
    return "\n\n".join(parts) + "\n"


def _checklist(checklist: Checklist, known: Mapping[Answer, str]) -> list[str]:
    rows = [
        (i.number, i.matter, NOT_REPORTED if i.answer is None else known.get(i.answer, NOT_REPORTED))
        for i in checklist.items
    ]
    filled = sum(row[2] != NOT_REPORTED for row in rows)
    head = f"{checklist.source}. {filled} of {len(rows)} items have an answer here. {checklist.note}".strip()
    return [f"## {checklist.name}", head, _table(("Item", "Matter", "Known here"), rows)]


def _figures(report: EvaluationReport, result: SplitResult) -> str:
    point = report.config.operating_point
    rows = [
        (f"Negatives not to be read, {percent(s)} of tumour found", *_cells("specificity", e))
        for s in report.config.workload_sensitivities
        for e in (result.measures[workload_name(s)],)
    ]
    rows += [(w, *_cells(n, result.measures[n])) for n, w in MEASURE_NAMES.items() if n in result.measures]
    rows += [
        (f"{MEASURE_NAMES[n]}, {point}", *_cells(n, e)) for n, e in result.points[point].measures.items()
    ]
    head = f"**{result.split}**: {result.patches} patches, {result.positives} tumour"
    return f"{head}\n\n{_table(('Measure', 'Value', 'Interval'), rows)}"


def _cells(name: str, e: Estimate) -> tuple[str, str]:
    as_percent = name in AS_PERCENT
    if e.value is None:
        return "not estimable", ""
    return percent(e.value) if as_percent else f"{e.value:.3f}", interval(e, as_percent)


def _point_row(report: EvaluationReport, index: int) -> tuple[str, ...]:
    point = report.operating_points[index]
    measured = report.headline.points[point.name].measures
    promise = (
        point.guarantee.words if point.guarantee else "Nothing is promised of its sensitivity on new tissue."
    )
    return (
        point.name,
        f"{point.threshold:.4f}",
        *("{} ({})".format(*_cells(name, measured[name])) for name in ("sensitivity", "specificity")),
        f"{point.chosen_by}. {promise}",
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """One line, with what a table of Markdown or a browser would take for markup made harmless."""
    return " ".join(text.splitlines()).replace("|", "\\|").replace("<", "&lt;")
