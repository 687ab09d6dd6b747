"""``sentinode compare``: two runs, or two files of predictions, on the same patches."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import tyro
from pydantic import field_validator

from sentinode.commands.predictions_input import read_predictions
from sentinode.config import Frozen
from sentinode.data.manifest import load_manifest
from sentinode.data.pixels import read_pixels
from sentinode.errors import ConfigError, ObjectNotFoundError, SentinodeError
from sentinode.evaluation.compare import compare
from sentinode.evaluation.comparison import ComparisonConfig, ComparisonReport, Difference, Disagreement
from sentinode.evaluation.comparison_html import render_comparison
from sentinode.evaluation.gallery import GalleryPatch, gallery_patches
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationReport
from sentinode.experiment import read_run
from sentinode.schema import Split
from sentinode.storage import Store, StoreUrl, open_parent, open_store

log = logging.getLogger(__name__)
TOLD = 5
"""Patches of differing verdicts that are named in the terminal."""
PICTURES = 12
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
    """Where comparison.json is written (a file's URL), with a page .html beside it; by default nowhere."""

    @field_validator("out")
    @classmethod
    def _names_a_json_file(cls, out: str | None) -> str | None:
        if out is not None and not out.endswith(".json"):
            raise ValueError(f"out names the file of figures, such as {out.rstrip('/')}/comparison.json")
        return out


@dataclass(frozen=True)
class Side:
    """One of the two models: calibrated predictions of one split, and where they come from."""

    url: str
    predictions: Predictions
    threshold: float
    run: Store | None = None
    """The run, whose data set may be at hand for pictures; None for files."""


FLAGS = CompareCommand


def run(config: CompareCommand) -> int:
    """Compare, say the differences, and keep ``comparison.json`` and its page where asked."""
    a = _side(config.a, config, config.threshold_a)
    b = _side(config.b, config, config.threshold_b)
    report = compare(a.predictions, b.predictions, config.comparison, a.threshold, b.threshold)
    for line in describe(report):
        log.info("%s", line)
    if config.out is not None:
        store, key = open_parent(config.out)
        page = f"{key.removesuffix('.json')}.html"
        store.put(page, _page(config, report, a, b).encode())
        store.put(key, report.to_json())
        log.info("comparison: %s", store.locate(page))
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
    lines += [
        f"  {d.key[:16]} ({'tumour' if d.label == 1 else 'negative'}): A {d.probability_a:.3f}, B {d.probability_b:.3f}"
        for d in report.disagreements[:TOLD]
    ]
    return lines + [f"careful: {warning}" for warning in report.warnings]


def _line(found: Difference) -> str:
    if found.difference is None:
        return "not estimable"
    text = f"{found.a:.4f} - {found.b:.4f} = {found.difference:+.4f}"
    if found.low is None or found.high is None or found.p_value is None:
        return f"{text} (interval not estimable)"
    return f"{text} ({found.low:+.4f} to {found.high:+.4f}, p {found.p_value:.2g}; {found.method})"


def _page(config: CompareCommand, report: ComparisonReport, a: Side, b: Side) -> str:
    provenance = {"A": config.a, "B": config.b, "Split": config.split}
    if config.reference is not None:
        provenance["Reference"] = config.reference
    names = (config.a.rstrip("/").rpartition("/")[2], config.b.rstrip("/").rpartition("/")[2])
    return render_comparison(
        report, a.predictions, b.predictions, names, provenance, _gallery(config, report, a if a.run else b)
    )


def _gallery(
    config: CompareCommand, report: ComparisonReport, side: Side
) -> list[tuple[Disagreement, GalleryPatch]]:
    """Pictures of the patches with the widest gap, from the data set of a run; none where it is not at hand."""
    shown = report.disagreements[:PICTURES]
    if side.run is None or not shown:
        return []
    place = {key: i for i, key in enumerate(side.predictions.keys.tolist())}
    rows = np.array([place[d.key] for d in shown])
    try:
        record = read_run(side.run)
        manifest, data = load_manifest(record.experiment.data)
        record.check_data(manifest)
        pixels = read_pixels(manifest, data, Split(config.split), rows)
    except SentinodeError as error:
        log.info("no pictures of patches: %s", error)
        return []
    return list(zip(shown, gallery_patches(side.predictions, rows, pixels), strict=True))


def _side(url: str, config: CompareCommand, threshold: float | None) -> Side:
    if url.endswith(PREDICTION_FILES):
        found = read_predictions(url, config.reference if url.endswith(".csv") else None)
        if len(set(found.splits.tolist())) > 1:
            found = found.select(found.splits == config.split)
            if not len(found):
                raise ConfigError(
                    f"{url} has no patch in {config.split}", "a split of the file", "choose it by --split"
                )
        return Side(url, found, 0.5 if threshold is None else threshold)
    store = open_store(url)
    try:
        report = EvaluationReport.from_json(store.get("report.json"), store.locate("report.json"))
        found = Predictions.read(store, f"predictions/{config.split}.parquet").calibrated(report.calibration)
    except ObjectNotFoundError as error:
        raise ConfigError(
            f"{store.url} holds no evaluation of {config.split} ({error.found})",
            f"a run with report.json and predictions/{config.split}.parquet, or a file .parquet or .csv",
            f"run sentinode evaluate --run {url} first, or choose another split by --split",
        ) from error
    if not len(found):
        raise ConfigError(
            f"{store.url} has no patch in {config.split}", "a split with predictions", "see --split"
        )
    return Side(url, found, report.verdict_point.threshold if threshold is None else threshold, store)
