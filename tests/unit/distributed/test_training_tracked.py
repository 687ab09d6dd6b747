"""What is tracked of a training run, as W&B writes it for ``wandb sync``."""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import auc, confusion_matrix, roc_auc_score
from tracking_parts import config, history, of_kind, read_records, summary
from training_parts import lesson, write_lesson

from sentinode.data.manifest import Manifest, load_manifest
from sentinode.distributed import tracked_files
from sentinode.distributed.tracked import CHART_POINTS, WORST_ERRORS, charts, tracked_run, worst_errors
from sentinode.experiment import Experiment, begin_run
from sentinode.recipes import seed_cnn
from sentinode.storage import Store, join_url, open_store
from sentinode.tracking import Chart, ConfusionMatrix
from sentinode.training.checkpoint import WEIGHTS_KEY, save_history
from sentinode.training.metrics import EpochRecord
from sentinode.training.validation import ValidScores

VALID = 75
WEIGHTS = b"the best weights"


class Known(NamedTuple):
    """A run with its data, and what became of it when it was tracked by two processes, one after the other."""

    experiment: Experiment
    manifest: Manifest
    store: Store
    processes: list[list[Any]]
    """The records of each."""


def epoch(number: int) -> EpochRecord:
    """A record with ``number`` in whole-numbered fields and its inverse in the others."""
    fields = EpochRecord.model_fields.items()
    return EpochRecord(**{name: number if f.annotation is int else 1 / number for name, f in fields})


def scored(labels: torch.Tensor) -> ValidScores:
    """Of a model that is better than guessing."""
    noise = torch.from_numpy(np.random.default_rng(3).normal(size=len(labels)).astype(np.float32))
    return ValidScores(torch.arange(len(labels)), noise + labels - 0.5, labels)


def scores() -> ValidScores:
    """Of the lessons of the valid split."""
    return scored(torch.from_numpy(lesson(VALID, 1)[1]))


def begin(folder: Path) -> Experiment:
    """A data set and a run that has been begun on it."""
    url = str(folder)
    write_lesson(join_url(url, "data"), valid=VALID)
    experiment = Experiment.of(seed_cnn(), join_url(url, "data"), join_url(url, "runs", "first"))
    begin_run(experiment, load_manifest(experiment.data)[0])
    return experiment


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """Two epochs of which only the first was the best, then a resumed process with the third and last."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "offline")
        environment.setenv("SENTINODE_CACHE", str(tmp_path_factory.mktemp("cache")))
        experiment = begin(tmp_path_factory.mktemp("store"))
        manifest, data = load_manifest(experiment.data)
        store = open_store(experiment.run)
        with suppress(RuntimeError), tracked_run(experiment, manifest, data) as first:
            assert first is not None
            first.best(scores())
            first.epoch(epoch(1))
            first.epoch(epoch(2))
            save_history(store, (epoch(1), epoch(2)))
            raise RuntimeError("the first process ends")
        time.sleep(1)  # W&B tells processes apart by the second
        with tracked_run(experiment, manifest, data) as second:
            assert second is not None
            second.epoch(epoch(3))
            store.put(WEIGHTS_KEY, WEIGHTS)
            second.finished(store, epoch(1))
        folders = sorted(Path(store.url).glob("wandb/offline-run-*"))
        yield Known(experiment, manifest, store, [read_records(folder) for folder in folders])


def media(known: Known, path: str) -> bytes:
    (key,) = (found.key for found in known.store.list("wandb/") if found.key.endswith(f"/files/{path}"))
    return known.store.get(key)


def artefacts(records: list[Any]) -> dict[str, Any]:
    return {artefact.type: artefact for artefact in of_kind(records, "artifact")}


def test_curves_hold_every_figure_of_an_epoch(known: Known) -> None:
    rows = history(known.processes[0])
    assert [row["_step"] for row in rows] == [1, 2]
    for row, record in zip(rows, (epoch(1), epoch(2)), strict=True):
        assert record.model_dump().items() <= row.items()


def test_a_resumed_run_goes_on_and_tells_no_epoch_twice(known: Known) -> None:
    first, second = (of_kind(records, "run")[0] for records in known.processes)
    assert first.run_id == second.run_id
    assert second.resume
    assert [row["_step"] for row in history(known.processes[1])] == [3]


def test_epochs_that_were_lost_with_a_killed_process_are_told_again(known: Known, tmp_path: Path) -> None:
    experiment = begin(tmp_path)
    store, data = open_store(experiment.run), open_store(experiment.data)
    with tracked_run(experiment, known.manifest, data) as first:
        assert first is not None
        first.epoch(epoch(1))
    (kept,) = (found.key for found in store.list("wandb/") if found.key.endswith(".wandb"))
    save_history(store, (epoch(1), epoch(2)))
    time.sleep(1)  # W&B tells processes apart by the second
    with tracked_run(experiment, known.manifest, data) as second:
        assert second is not None
        second.epoch(epoch(3))
    folders = sorted(Path(store.url).glob("wandb/offline-run-*"))
    assert folders[0].name in kept
    told = [[row["_step"] for row in history(read_records(folder))] for folder in folders]
    assert told == [[1], [2, 3]]


def test_how_a_process_ended(known: Known) -> None:
    assert [of_kind(records, "exit")[0].exit_code for records in known.processes] == [1, 0]


def test_only_the_best_epoch_is_drawn(known: Known) -> None:
    drawn = [[row["_step"] for row in history(r) if "valid/roc_table.path" in row] for r in known.processes]
    assert drawn == [[1], []]
    row = history(known.processes[0])[0]
    for chart in charts(scores()):
        assert json.loads(media(known, row[f"{chart}_table.path"]))["data"]


def test_the_worst_errors_are_shown_as_they_are(known: Known) -> None:
    row = history(known.processes[0])[0]
    rows = worst_errors(scores()).tolist()
    assert len(rows) == WORST_ERRORS
    images, labels = lesson(VALID, 1)
    shown = zip(row["valid/worst_errors.filenames"], row["valid/worst_errors.captions"], strict=True)
    for sample, (path, caption) in zip(rows, shown, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(media(known, path)))), images[sample])
        assert caption.startswith(hashlib.sha1(images[sample].tobytes()).hexdigest())
        assert ("is tumour" if labels[sample] else "is negative") in caption
        assert f"{scores().probabilities[sample]:.4f}" in caption


def test_config_is_the_experiment_and_its_origin(known: Known) -> None:
    told = config(known.processes[0])
    assert told["train"] == known.experiment.train.model_dump(mode="json")
    assert told["run"] == known.experiment.run
    assert told["manifest_digest"] == known.manifest.digest()
    assert told["code_commit"]


def test_the_model_has_its_lineage(known: Known) -> None:
    data, model = (artefacts(known.processes[1])[kind] for kind in ("dataset", "model"))
    assert data.use_after_commit
    assert data.manifest.contents[0].ref == Path(known.experiment.data, "manifest.json").as_uri()
    assert known.manifest.digest()[:12] in data.manifest.contents[0].path
    assert model.manifest.contents[0].ref == Path(known.store.locate(WEIGHTS_KEY)).as_uri()
    told = json.loads(model.metadata)
    assert told["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert told["manifest_digest"] == known.manifest.digest()
    assert (told["dataset"], told["data"], told["run"]) == (
        "lesson",
        known.experiment.data,
        known.experiment.run,
    )
    assert told["recipe"] == known.experiment.recipe.model_dump(mode="json")
    assert told["best"] == epoch(1).model_dump()
    assert summary(known.processes[1])["best"] == epoch(1).model_dump()


def test_files_are_kept_while_the_run_goes_on(
    known: Known, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tracked_files, "KEEP_EVERY_S", 0.01)
    experiment = begin(tmp_path)
    store = open_store(experiment.run)
    with tracked_run(experiment, known.manifest, open_store(experiment.data)) as running:
        assert running is not None
        running.best(scores())
        running.epoch(epoch(1))
        deadline = time.monotonic() + 10
        while not any("roc_table" in found.key for found in store.list("wandb/")):
            assert time.monotonic() < deadline, "no chart was kept"
            time.sleep(0.01)


def test_pictures_that_cannot_be_read_leave_the_rest(
    known: Known, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = begin(tmp_path)
    with tracked_run(experiment, known.manifest, open_store(str(tmp_path / "nothing"))) as running:
        assert running is not None
        running.best(scores())
        running.epoch(epoch(1))
    (folder,) = Path(experiment.run).glob("wandb/offline-run-*")
    (row,) = history(read_records(folder))
    assert "valid/roc_table.path" in row
    assert "valid/worst_errors.filenames" not in row
    assert "show the worst errors" in caplog.text


def test_a_run_without_a_record_is_not_tracked(
    known: Known, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = known.experiment.model_copy(update={"run": str(tmp_path / "never-begun")})
    with tracked_run(experiment, known.manifest, open_store(experiment.data)) as running:
        assert running is None
    assert "not tracked" in caplog.text


def test_worst_errors_are_errors() -> None:
    labels = torch.tensor([1, 0, 1, 0, 1])
    logits = torch.tensor([-0.1, 3.0, 2.0, -1.0, -2.0])
    assert worst_errors(ValidScores(torch.arange(5), logits, labels)).tolist() == [1, 4, 0]


def test_charts_are_thinned_without_changing_their_shape() -> None:
    many = scored(torch.arange(3000) % 2)
    labels, probabilities = many.labels_N.numpy(), many.probabilities.numpy()
    drawn = charts(many)
    for chart in drawn.values():
        if isinstance(chart, Chart):
            assert all(len(x) == len(y) <= CHART_POINTS for x, y in chart.lines.values())
    roc = drawn["valid/roc"]
    assert isinstance(roc, Chart)
    fpr, sensitivity = roc.lines["model"]
    assert (fpr[0], sensitivity[0], fpr[-1], sensitivity[-1]) == (0, 0, 1, 1)
    assert auc(fpr, sensitivity) == pytest.approx(roc_auc_score(labels, probabilities), abs=2e-3)
    matrix = drawn["valid/confusion_matrix"]
    assert isinstance(matrix, ConfusionMatrix)
    np.testing.assert_array_equal(matrix.counts, confusion_matrix(labels, probabilities >= 0.5))
