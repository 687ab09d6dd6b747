"""The report of a search as one self-contained HTML file: no script, no network, light and dark, fit for print."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from markupsafe import Markup

from sentinode.evaluation.report_html import environment
from sentinode.search import charts
from sentinode.search.budget import spent_cost
from sentinode.search.config import COST_NAMES, QUALITY_NAMES
from sentinode.search.records import SweepRecord, SweepResult, TrialRecord, TrialState
from sentinode.search.space import Choice
from sentinode.search.sweep import result_of

REPORT_KEY = "report.html"


def render_sweep(record: SweepRecord) -> str:
    """The HTML text of ``report.html``, of a search that is over or under way."""
    result = record.result or result_of(record)
    winner = None if result.winner is None else record.trial(result.winner)
    drawings = {
        "pareto": charts.pareto(record, result),
        "curves": charts.learning_curves(record, record.trials, result.winner),
        "again": charts.learning_curves(record, record.again),
    }
    return (
        environment(Path(__file__).parent)
        .get_template("sweep.html.j2")
        .render(
            record=record,
            result=result,
            winner=winner,
            figures={name: Markup(svg) for name, svg in drawings.items() if svg is not None},
            families=charts.families(record),
            quality=QUALITY_NAMES[record.config.quality],
            cost_name=COST_NAMES[charts.drawn_cost(record)],
            counts={state.value: count for state, count in Counter(t.state for t in record.trials).items()},
            rows=rows(record, result),
            failed=[trial for trial in record.trials if trial.state is TrialState.FAILED],
            saved=saved_epochs(record),
            hours=record.seconds / 3600,
            worker_hours=spent_cost(
                record.budget.model_copy(update={"price": 1.0}), record.trials, record.workers
            ),
            cost=spent_cost(record.budget, record.trials, record.workers),
            words=words,
        )
    )


def rows(record: SweepRecord, result: SweepResult) -> list[TrialRecord]:
    """The trials as the table shows them: the front first, then the others, each by quality."""

    def rank(trial: TrialRecord) -> tuple[bool, float]:
        return trial.number not in result.front, -(trial.quality(record.config.quality) or 0.0)

    return sorted(record.trials, key=rank)


def saved_epochs(record: SweepRecord) -> tuple[int, int]:
    """Epochs that were trained, and those that training every drawn trial to its end would have taken."""
    counted = [trial for trial in record.trials if trial.state is not TrialState.FAILED]
    return sum(len(trial.epochs) for trial in counted), sum(trial.recipe.train.epochs for trial in counted)


def words(choices: dict[str, Choice]) -> str:
    """Choices in a line, without the family, which has a column of its own."""
    shown = {
        name.rpartition(".")[2].replace("_", " "): value
        for name, value in choices.items()
        if name != "family"
    }
    return ", ".join(
        f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {str(v).lower()}" for k, v in shown.items()
    )
