from __future__ import annotations

from pathlib import Path

import numpy as np

from sentinode.commands.evaluate import EvaluateCommand, evaluate_file
from sentinode.commands.evaluate_keep import REPORT_HTML
from sentinode.commands.report_facts import facts_of
from sentinode.data.manifest import Dropped, Manifest, SplitSummary
from sentinode.evaluation.records import EvaluationConfig
from sentinode.experiment import Experiment, RunRecord
from sentinode.recipes import recipe
from sentinode.schema import Split

MANIFEST = Manifest(
    dataset="tiny",
    source="folder",
    slides_known=True,
    split_seed=0,
    splits={
        Split.TRAIN: SplitSummary(samples=300, class_counts=(200, 100), slides=12, origin="carved by slide"),
        Split.VALID: SplitSummary(samples=100, class_counts=(50, 50), slides=4, origin="source"),
        Split.UNLABELLED: SplitSummary(samples=7, class_counts=(0, 0), slides=None, origin="source"),
    },
    dropped=Dropped(duplicates=3, bad=1),
    shards=(),
)
RECORD = RunRecord(
    experiment=Experiment.of(recipe("seed-cnn"), data="s3://bucket/data", run="s3://bucket/runs/first"),
    dataset="tiny",
    manifest_digest="d" * 64,
    code_commit="abc",
    versions={"torch": "2.1"},
    started_at="2026-01-01T00:00:00+00:00",
)


def test_facts_tell_run_and_manifest_in_words() -> None:
    facts = facts_of(RECORD, MANIFEST, "s3://bucket/runs/first", "CC0")
    assert facts.name == "first on tiny"
    assert facts.architecture == "seed-cnn, 31,230 trained parameters"
    assert "resized to 46 pixels" in facts.input
    assert "adam" in facts.training
    assert facts.dropped == "Left out at ingest: 3 duplicates, 1 bad."
    assert facts.splits["train"].startswith("300 patches, 33.3")
    assert facts.splits["train"].endswith("12 slides, carved by slide")
    assert facts.splits["unlabelled"] == "7 patches, unlabelled, slides unknown, the source's own split"
    assert (facts.versions, facts.licence) == ("torch 2.1", "CC0")
    nothing = MANIFEST.model_copy(update={"dropped": Dropped()})
    assert facts_of(RECORD, nothing, "").dropped == "Nothing was left out at ingest."


def test_a_file_of_predictions_gets_a_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["id,probability,label,split"]
    for split in ("valid", "test"):
        lines += [f"{split}{i},{0.4 * (i % 2) + 0.6 * rng.random()},{i % 2},{split}" for i in range(200)]
    path = tmp_path / "theirs.csv"
    path.write_text("\n".join(lines) + "\n")
    config = EvaluateCommand(predictions=str(path), evaluation=EvaluationConfig(resamples=100))
    report, _ = evaluate_file(config, str(path))
    page = (tmp_path / REPORT_HTML).read_text()
    assert "Predictions of theirs.csv" in page
    assert report.summary in page
    assert "labels of the same file" in page
