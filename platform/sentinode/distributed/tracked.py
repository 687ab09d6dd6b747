"""What is tracked of a training run: curves, charts and worst errors of the best epochs, lineage."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sentinode.data.cache import ShardCache
from sentinode.data.columns import read_keys
from sentinode.data.manifest import MANIFEST_NAME, Manifest
from sentinode.data.pixels import read_pixels
from sentinode.distributed.tracked_files import kept_files, last_epoch_told
from sentinode.errors import SentinodeError
from sentinode.evaluation.calibration import reliability
from sentinode.evaluation.metrics import FloatArray, IntArray, RankedScores
from sentinode.experiment import Experiment, RunRecord, read_run
from sentinode.schema import CLASS_NAMES, Split
from sentinode.search.records import SearchPart
from sentinode.storage import Store, open_store
from sentinode.tracking import Artefact, Chart, ConfusionMatrix, Loggable, Picture, Tracker
from sentinode.training.checkpoint import WEIGHTS_KEY, whole_history
from sentinode.training.metrics import EpochRecord
from sentinode.training.validation import ValidScores

CHART_POINTS = 500
RELIABILITY_BINS = 15
WORST_ERRORS = 16

log = logging.getLogger(__name__)


@contextmanager
def tracked_run(
    experiment: Experiment, manifest: Manifest, data: Store, part: SearchPart | None = None
) -> Iterator[Tracked | None]:
    """Track the run that was begun as ``experiment``, for rank 0 only; ``data`` holds the shards of ``manifest``.

    A resumed run goes on in its W&B run, and tells it of those former epochs that it has not heard of. What W&B
    leaves on disk is kept below ``wandb/`` of the run, twice a minute and at the end, in a folder for each process
    that took part. To send it later, copy ``wandb/`` from the store and
    say ``wandb sync wandb/offline-run-*``. Nothing is raised for want of tracking; None where there can be none.
    ``part``: the trial of a search that the run is; W&B groups it with the others.
    """
    store = open_store(experiment.run)
    begun = _begun(store)
    if begun is None:
        yield None
        return
    record, history = begun
    with tempfile.TemporaryDirectory(prefix="sentinode-wandb-", ignore_cleanup_errors=True) as name:
        tracker = Tracker(Path(name))
        with (
            kept_files(tracker, Path(name), store),
            tracker.run(
                experiment.name if part is None else f"{part.search} {experiment.name}",
                _run_id(record),
                _config(record) | ({} if part is None else _searched(part)),
                group=None if part is None else part.search,
                job_type="train" if part is None else "trial",
            ),
        ):
            told = last_epoch_told(tracker, store, _run_id(record))
            tracked = Tracked(tracker, record, manifest, data, told)
            for done in history:
                tracked.epoch(done)
            yield tracked


class Tracked:
    """Assembles what ``tracker`` notes of a run, of which it knows the first ``told`` epochs. No call raises."""

    def __init__(
        self, tracker: Tracker, record: RunRecord, manifest: Manifest, data: Store, told: int = 0
    ) -> None:
        self._tracker, self._record, self._manifest, self._data = tracker, record, manifest, data
        self._told = told
        self._best: ValidScores | None = None
        tracker.log_input(_dataset(record, manifest, data))

    def best(self, scores: ValidScores) -> None:
        """Note the scores of an epoch that is the best so far; they are drawn when ``epoch`` is called for it."""
        self._best = scores

    def epoch(self, record: EpochRecord) -> None:
        """Note an epoch's figures and, where it is the best so far, its charts and worst errors."""
        scores, self._best = self._best, None
        # A step that is sent twice stays twice in W&B's curves.
        if not self._tracker.active or record.epoch <= self._told:
            return
        figures = record.model_dump().items()
        values: dict[str, Loggable] = {name: value for name, value in figures if value is not None}
        if scores is not None:
            self._tracker.attempt("draw the charts", lambda: values.update(charts(scores)))
            self._tracker.attempt("show the worst errors", lambda: values.update(self._errors(scores)))
        self._tracker.log(values, record.epoch)

    def finished(self, store: Store, best: EpochRecord) -> None:
        """Note the ``best`` epoch and its weights, which the run's ``store`` holds by now, and their origin."""
        if not self._tracker.active:
            return
        self._tracker.summarise({"best": best.model_dump()})
        self._tracker.attempt(
            "describe the model", lambda: self._tracker.log_output(_model(self._record, store, best))
        )

    def _errors(self, scores: ValidScores) -> dict[str, Sequence[Picture]]:
        rows = worst_errors(scores)
        if not len(rows):
            return {}
        ids = scores.sample_ids_N.numpy()[rows]
        pixels = read_pixels(self._manifest, self._data, Split.VALID, ids)
        keys = read_keys(self._manifest.of_split(Split.VALID), ShardCache(self._data), ids.tolist())
        labels, probabilities = scores.labels_N[rows].tolist(), scores.probabilities[rows].tolist()
        return {
            "valid/worst_errors": [
                Picture(image, f"{key} is {CLASS_NAMES[label]}, tumour with p = {probability:.4f}")
                for image, key, label, probability in zip(pixels, keys, labels, probabilities, strict=True)
            ]
        }


def worst_errors(scores: ValidScores) -> IntArray:
    """Rows of ``scores``, int64 [<= 16]: those furthest on the wrong side of probability 0.5, the furthest first."""
    wrong_N = (scores.logits_N * (1 - 2 * scores.labels_N)).numpy()
    order: IntArray = np.argsort(-wrong_N, kind="stable")[:WORST_ERRORS]
    return order[wrong_N[order] > 0]


def charts(scores: ValidScores) -> dict[str, Loggable]:
    """ROC, precision-recall and reliability curves, and the confusion matrix at probability 0.5."""
    labels, probabilities = scores.labels_N.numpy(), scores.probabilities.numpy()
    curve = RankedScores.of(labels, probabilities).curve()
    fpr, sensitivity = curve.roc()
    precision, recall = curve.precision_recall()
    bins = reliability(labels, probabilities, RELIABILITY_BINS)
    at_half = curve.confusion(0.5)
    diagonal = ([0.0, 1.0], [0.0, 1.0])
    return {
        "valid/roc": Chart(
            "ROC curve",
            "false_positive_rate",
            "sensitivity",
            {"model": _thinned(fpr, sensitivity), "chance": diagonal},
        ),
        "valid/precision_recall": Chart(
            "Precision-recall curve",
            "recall",
            "precision",
            {"model": _thinned(np.append(0.0, recall), np.append(precision[:1], precision))},
        ),
        "valid/reliability": Chart(
            "Reliability",
            "predicted_probability",
            "tumour_share",
            {
                "model": ([b.mean_probability for b in bins], [b.positive_share for b in bins]),
                "ideal": diagonal,
            },
        ),
        "valid/confusion_matrix": ConfusionMatrix(
            "At probability 0.5", CLASS_NAMES, ((at_half.tn, at_half.fp), (at_half.fn, at_half.tp))
        ),
    }


def _thinned(x_T: FloatArray, y_T: FloatArray) -> tuple[list[float], list[float]]:
    """At most 500 of the T points, evenly by rank, first and last among them."""
    kept = np.unique(np.linspace(0, len(x_T) - 1, CHART_POINTS).round().astype(np.int64))
    return x_T[kept].tolist(), y_T[kept].tolist()


def _begun(store: Store) -> tuple[RunRecord, list[EpochRecord]] | None:
    try:
        return read_run(store), whole_history(store)
    except SentinodeError as error:
        log.warning("the run is not tracked: %s", error)
        return None


def _run_id(record: RunRecord) -> str:
    """The same for every process of a run, another one where a run is begun anew at the same URL."""
    return record.model_copy(update={"changes": ()}).digest()[:16]


def _config(record: RunRecord) -> dict[str, Any]:
    return record.experiment.model_dump(mode="json", exclude={"schema_version"}) | _origin(record)


def _searched(part: SearchPart) -> dict[str, Any]:
    """Choices and cost side by side: the axes of W&B's parallel coordinates."""
    cost = {} if part.cost is None else part.cost.model_dump()
    return {"trial": part.trial, "search": {**part.choices, **cost}}


def _origin(record: RunRecord) -> dict[str, Any]:
    """Where results come from, besides the experiment."""
    values = record.model_dump(mode="json", include={"dataset", "manifest_digest", "code_commit", "versions"})
    return values | ({"changes": record.model_dump(mode="json")["changes"]} if record.changes else {})


def _dataset(record: RunRecord, manifest: Manifest, data: Store) -> Artefact:
    url = record.experiment.data
    return Artefact(
        name=record.dataset,
        kind="dataset",
        url=url if url.endswith(".json") else data.locate(MANIFEST_NAME),
        digest=record.manifest_digest,
        metadata={
            "manifest_digest": record.manifest_digest,
            **manifest.model_dump(mode="json", include={"source", "splits", "dropped", "warnings"}),
        },
    )


def _model(record: RunRecord, store: Store, best: EpochRecord) -> Artefact:
    with tempfile.TemporaryDirectory(prefix="sentinode-") as folder:
        path = Path(folder) / "best.safetensors"
        store.download(WEIGHTS_KEY, path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    experiment = record.experiment
    return Artefact(
        name=re.sub(r"[^\w.-]+", "-", f"{record.dataset}-{experiment.model.family}"),
        kind="model",
        url=store.locate(WEIGHTS_KEY),
        digest=digest,
        metadata={
            "sha256": digest,
            "run": experiment.run,
            "data": experiment.data,
            **_origin(record),
            "recipe": experiment.recipe.model_dump(mode="json"),
            "best": best.model_dump(),
        },
    )
