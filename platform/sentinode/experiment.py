"""An experiment: a recipe, the data it is given and the run that keeps what comes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Self

from sentinode.config import Frozen, Record
from sentinode.data.manifest import MANIFEST_NAME, Manifest
from sentinode.errors import ConfigError, ObjectNotFoundError, PreconditionFailedError
from sentinode.models.families import build_model
from sentinode.models.preprocess import Detector, Preprocess
from sentinode.provenance import code_commit, versions_here
from sentinode.schema import Split
from sentinode.storage import Store, StoreUrl, open_store
from sentinode.training.checkpoint import WEIGHTS_KEY, load_weights
from sentinode.training.config import Recipe
from sentinode.training.feeds import check_steps
from sentinode.training.pointer import read_pointer

RUN_KEY = "run.json"
_MAY_CHANGE = ("train.save.", "train.micro_batches")
"""Settings that may differ when a run is gone on with: when its state is saved, and how much memory a step takes."""


class Experiment(Record, Recipe):
    """A recipe with its data and its run: all that ``sentinode train`` needs to know."""

    data: StoreUrl
    """The data set: URL of its manifest, or of the folder that holds it."""
    run: StoreUrl
    """Where the run is kept: s3://bucket/prefix or a folder. A new URL is a new run; an unfinished one is
    resumed.
    """

    @classmethod
    def of(cls, recipe: Recipe, data: str, run: str) -> Self:
        """Join ``recipe`` to its data and run."""
        return cls.model_validate(
            {name: getattr(recipe, name) for name in Recipe.model_fields} | {"data": data, "run": run}
        )

    @property
    def recipe(self) -> Recipe:
        """The recipe alone, what two runs must share to be comparable."""
        return Recipe.model_validate({name: getattr(self, name) for name in Recipe.model_fields})

    @property
    def name(self) -> str:
        """The last part of the run's URL."""
        return self.run.rstrip("/").rpartition("/")[2]


class Change(Frozen):
    """A run that was gone on with by another value of a setting that may change."""

    setting: str
    """Dotted, e.g. ``train.micro_batches``."""
    value: bool | int | float | str | None
    """From here on; before, that of the change before, or of the experiment."""
    epoch: int
    """Epochs done by then."""
    step: int
    """Optimiser steps done in the next epoch."""
    at: str
    """UTC, ISO 8601."""


class RunRecord(Record):
    """``run.json``: what was run, on which data, by which code. The first thing that a run writes."""

    experiment: Experiment
    """As it was begun."""
    dataset: str
    manifest_digest: str
    code_commit: str
    """Git commit, with ``-dirty`` where files differ from it; ``unknown`` where neither git nor
    SENTINODE_COMMIT tells.
    """
    versions: dict[str, str]
    """Of Python, Sentinode and the packages that decide the numbers."""
    started_at: str
    """UTC, ISO 8601."""
    changes: tuple[Change, ...] = ()
    """Settings that were changed since, in their order."""

    def check_data(self, manifest: Manifest) -> None:
        """Raise ConfigError unless ``manifest`` is the version of the data set that the run was trained on."""
        found = manifest.digest()
        if found != self.manifest_digest:
            raise ConfigError(
                f"data set {manifest.dataset} has manifest {found[:12]}",
                f"{self.dataset} with manifest {self.manifest_digest[:12]}, that of {self.experiment.name}",
                "give the data set of the run; to measure on another one, train or import predictions for it",
            )


def begin_run(experiment: Experiment, manifest: Manifest) -> RunRecord:
    """Write ``run.json``, or find what was begun there before as the same experiment, and note there what it changes.

    Raises as ``find_run`` does.
    """
    found = find_run(experiment, manifest)
    if found is not None:
        return _note_changes(found, experiment)
    new = RunRecord(
        experiment=experiment,
        dataset=manifest.dataset,
        manifest_digest=manifest.digest(),
        code_commit=code_commit(),
        versions=versions_here(),
        started_at=_now(),
    )
    try:
        open_store(experiment.run).put(RUN_KEY, new.to_json(), if_none_match=True)
    except PreconditionFailedError:
        # Another process was faster.
        return find_run(experiment, manifest) or new
    return new


def _note_changes(record: RunRecord, experiment: Experiment) -> RunRecord:
    """``record`` with the settings of ``experiment`` that differ from those used last, kept in the run."""
    store = open_store(experiment.run)
    while changed := _changed(record, experiment):
        pointer = read_pointer(store)
        epoch, step = (pointer.epoch, pointer.step) if pointer else (0, 0)
        now = [
            Change(setting=name, value=value, epoch=epoch, step=step, at=_now())
            for name, value in changed.items()
        ]
        data, etag = store.get_with_etag(RUN_KEY)
        record = RunRecord.from_json(data, store.locate(RUN_KEY))
        new = record.model_copy(update={"changes": (*record.changes, *now)})
        try:
            store.put(RUN_KEY, new.to_json(), if_match=etag)
        except PreconditionFailedError:
            continue
        return new
    return record


def _changed(record: RunRecord, experiment: Experiment) -> dict[str, Any]:
    there, here = (_settings(asked.recipe.model_dump()) for asked in (record.experiment, experiment))
    used = there | {change.setting: change.value for change in record.changes}
    return {
        name: here[name] for name in here if name.startswith(_MAY_CHANGE) and here[name] != used.get(name)
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def find_run(experiment: Experiment, manifest: Manifest) -> RunRecord | None:
    """The record of ``experiment`` where it was begun before, to be gone on with; None for a new one.

    Raises ConfigError where ``experiment`` cannot be trained at its URL: that holds a data set or a run with another
    recipe or other data, or the data lack a class or patches for a single step; ManifestError where they lack a split.
    """
    _check_data(manifest)
    check_steps(experiment, manifest)
    store = open_store(experiment.run)
    if store.stat(MANIFEST_NAME) is not None:
        raise ConfigError(
            f"{store.url} holds a data set", "a place of its own for a run", "choose another run URL"
        )
    try:
        old = read_run(store)
    except ObjectNotFoundError:
        return None
    differing = _differences(old, experiment, manifest)
    if differing:
        raise ConfigError(
            f"the run {store.url} exists with another configuration: {'; '.join(differing)}",
            "the configuration it was begun with",
            "choose another run URL",
        )
    return old


def has_finished(store: Store) -> bool:
    """Whether the run in ``store`` has been trained to its end."""
    return store.stat(WEIGHTS_KEY) is not None


def read_run(store: Store) -> RunRecord:
    """The record of the run kept in ``store``. Raises ObjectNotFoundError where there is none."""
    return RunRecord.from_json(store.get(RUN_KEY), store.locate(RUN_KEY))


def load_detector(run: str) -> tuple[RunRecord, Detector]:
    """A finished run's record and its best detector, in evaluation mode on the CPU.

    Raises ConfigError where there is no such run or it has not finished.
    """
    store = open_store(run)
    try:
        record = read_run(store)
        net = build_model(record.experiment.model, pretrained=False)
        load_weights(store, net)
    except ObjectNotFoundError as error:
        raise ConfigError(
            f"{store.url} holds no finished run ({error.found})",
            "the URL of a finished run",
            "train it to its end first",
        ) from error
    return record, Detector(Preprocess(record.experiment.preprocess), net, tta=record.experiment.tta).eval()


def _check_data(manifest: Manifest) -> None:
    for split in (Split.TRAIN, Split.VALID):
        manifest.of_split(split)
        negative, tumour = manifest.splits[split].class_counts
        if min(negative, tumour) == 0:
            raise ConfigError(
                f"the {split} split of {manifest.dataset} has {negative} negative and {tumour} tumour patches",
                "patches of both classes to learn from, and for an AUROC that has a meaning",
                "ingest both; where slides are split, perhaps with a larger valid fraction",
            )
    train = manifest.splits[Split.TRAIN]
    if sum(train.class_counts) != train.samples:
        raise ConfigError(
            f"{train.samples - sum(train.class_counts)} patches of the train split of {manifest.dataset} have no label",
            "labelled patches to train on",
            "ingest them as unlabelled, or give them labels",
        )


def _differences(old: RunRecord, experiment: Experiment, manifest: Manifest) -> list[str]:
    """What makes ``experiment`` another run than ``old``: recipe and data count, their place does not."""
    found, digest = [], manifest.digest()
    if old.manifest_digest != digest:
        found.append(
            f"data {old.dataset} {old.manifest_digest[:8]} there, {manifest.dataset} {digest[:8]} here"
        )
    there, here = (_settings(asked.recipe.model_dump()) for asked in (old.experiment, experiment))
    found += [
        f"{name} {there.get(name)!r} there, {here.get(name)!r} here"
        for name in there | here
        if there.get(name) != here.get(name) and not name.startswith(_MAY_CHANGE)
    ]
    return found


def _settings(values: dict[str, Any], prefix: str = "") -> dict[str, object]:
    """Values by their dotted names."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= _settings(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
