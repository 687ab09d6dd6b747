"""What ``sentinode evaluate`` measures once, and the files that it keeps."""

from __future__ import annotations

from typing import Final

from sentinode.commands.predictions_input import read_lesion_sizes
from sentinode.errors import ConfigError, EvaluationError, ObjectNotFoundError
from sentinode.evaluation.model_facts import ModelFacts
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationConfig, EvaluationReport
from sentinode.evaluation.report import evaluate
from sentinode.evaluation.report_markdown import checklists, model_card
from sentinode.evaluation.split_use import check_test_use, keep_test_use
from sentinode.experiment import RUN_KEY
from sentinode.schema import Split
from sentinode.storage import Store, open_parent, open_store

REPORT_JSON: Final = "report.json"
REPORT_HTML: Final = "report.html"
MODEL_CARD: Final = "model_card.md"
CHECKLISTS: Final = "checklists.md"


def measure(
    config: EvaluationConfig,
    valid: Predictions,
    test: Predictions | None,
    out: Store,
    counted: Store,
    again: bool,
    lesion_sizes_url: str | None,
) -> EvaluationReport:
    """Measure, count the use of the test split in ``counted``, and only then keep ``report.json`` in ``out``.

    A lone split named test counts as well, though its thresholds are its own. Raises ConfigError where it was
    measured before and ``again`` is not set, EvaluationError.
    """
    alone = test is None and set(valid.splits.tolist()) == {Split.TEST.value}
    measured = valid if alone else test
    uses = None if measured is None else check_test_use(counted, measured, again)
    report = evaluate(
        valid,
        test,
        config,
        lesion_sizes=None if lesion_sizes_url is None else read_lesion_sizes(lesion_sizes_url),
        test_uses=0 if uses is None or measured is None else uses.of(measured),
    )
    if uses is not None:
        keep_test_use(counted, uses)
    out.put(REPORT_JSON, report.to_json())
    return report


def refuse_early(run: Store, model_digest: str, manifest_digest: str, again: bool) -> None:
    """Refuse a second measurement before minutes are spent on predicting, where the run keeps those it was made of.

    Raises ConfigError as ``measure`` would.
    """
    try:
        kept = Predictions.read(run, f"predictions/{Split.TEST.value}.parquet")
    except (ObjectNotFoundError, EvaluationError):
        return
    if (kept.model_digest, kept.manifest_digest) == (model_digest, manifest_digest):
        check_test_use(run, kept, again)


def places(url: str, out_url: str | None) -> tuple[Store, Store]:
    """Where the report on the file of predictions at ``url`` goes, and where its measurements are counted.

    Both are the file's folder, unless ``out_url`` names another for the report; those of a run's own file are counted
    in the run. Raises ConfigError where the report would take the place of a run's own, which promote seals.
    """
    counted = open_parent(url)[0]
    out = counted if out_url is None else open_store(out_url)
    if out.stat(RUN_KEY) is not None:
        raise ConfigError(
            f"{out.url} holds a run, whose report this one would overwrite",
            "a folder of its own for the report on a file of predictions",
            "give --out another folder",
        )
    if counted.url.endswith("/predictions"):
        run = open_parent(counted.url)[0]
        counted = run if run.stat(RUN_KEY) is not None else counted
    return out, counted


def keep_texts(store: Store, report: EvaluationReport, facts: ModelFacts) -> None:
    """Keep ``model_card.md`` and ``checklists.md``. Raises StoreError."""
    store.put(MODEL_CARD, model_card(report, facts).encode())
    store.put(CHECKLISTS, checklists(report, facts).encode())
