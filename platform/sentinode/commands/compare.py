"""``sentinode compare``: two runs, or two files of predictions, on the same patches."""

from __future__ import annotations

import logging
from typing import Annotated

import tyro

from sentinode.commands.predictions_input import read_predictions
from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.evaluation.compare import compare
from sentinode.evaluation.comparison import ComparisonConfig, ComparisonReport, Difference
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationReport
from sentinode.storage import StoreUrl, open_parent, open_store

log = logging.getLogger(__name__)
PREDICTION_FILES = (".parquet", ".csv")


class CompareCommand(Frozen):
    """Paired differences of two models on the same patches, with intervals and p-values."""

    a: Annotated[StoreUrl, tyro.conf.Positional]
    """URL of an evaluated run, or of a file of predictions (.parquet, .csv)."""
    b: Annotated[StoreUrl, tyro.conf.Positional]
    """The same for the other model."""
    reference: StoreUrl | None = None
    """Labels for CSV files: a table id,label, or the URL of a data set."""
    split: str = "test"
    """Split of a run, or of files that hold several."""
    threshold_a: float | None = None
    """Threshold of A; by default the run's operating point, 0.5 for files."""
    threshold_b: float | None = None
    """Threshold of B, likewise."""
    comparison: ComparisonConfig = ComparisonConfig()
    """Resamples and level."""
    out: StoreUrl | None = None
    """Where comparison.json is written (a file's URL); by default nowhere."""


FLAGS = CompareCommand


def run(config: CompareCommand) -> int:
    """Compare, say the differences, and keep ``comparison.json`` where asked."""
    a, at_a = _side(config.a, config, config.threshold_a)
    b, at_b = _side(config.b, config, config.threshold_b)
    report = compare(a, b, config.comparison, at_a, at_b)
    for line in describe(report):
        log.info("%s", line)
    if config.out is not None:
        store, key = open_parent(config.out)
        store.put(key, report.to_json())
    return 0


def describe(report: ComparisonReport) -> list[str]:
    """The differences in plain lines, A minus B."""
    lines = [f"{report.patches} patches, {report.positives} tumour; A minus B:"]
    lines += [f"{name}: {_line(found)}" for name, found in report.differences.items()]
    test = report.mcnemar
    lines.append(
        f"McNemar: only A right {test.only_a_right}, only B right {test.only_b_right}, p {test.p_value:.2g}"
    )
    lines.append(f"verdicts differ on {len(report.disagreements)} patches")
    return lines + [f"careful: {warning}" for warning in report.warnings]


def _line(found: Difference) -> str:
    if found.difference is None:
        return "not estimable"
    text = f"{found.a:.4f} - {found.b:.4f} = {found.difference:+.4f}"
    if found.low is None or found.high is None or found.p_value is None:
        return f"{text} (interval not estimable)"
    return f"{text} ({found.low:+.4f} to {found.high:+.4f}, p {found.p_value:.2g}; {found.method})"


def _side(url: str, config: CompareCommand, threshold: float | None) -> tuple[Predictions, float]:
    if url.endswith(PREDICTION_FILES):
        found = read_predictions(url, config.reference if url.endswith(".csv") else None)
        if len(set(found.splits.tolist())) > 1:
            found = found.select(found.splits == config.split)
        return found, 0.5 if threshold is None else threshold
    store = open_store(url)
    report = EvaluationReport.from_json(store.get("report.json"), store.locate("report.json"))
    found = Predictions.read(store, f"predictions/{config.split}.parquet").calibrated(report.calibration)
    if not len(found):
        raise ConfigError(f"{store.url} has no patch in {config.split}", "a split with predictions")
    return found, report.verdict_point.threshold if threshold is None else threshold
