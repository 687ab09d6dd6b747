"""Data-parallel training: Ray Train starts the ranks, joins them in a process group and restarts them after a
fault.

The loop itself is plain PyTorch (training/loop.py), and state goes through our own store, so a restart by
Ray, a re-run of the command and a move to other machines all resume in the same way.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
from statistics import median
from typing import Any

import ray
from ray import train as ray_train
from ray.train.torch import TorchConfig, TorchTrainer

from sentinode.config import Record
from sentinode.data.manifest import load_manifest
from sentinode.distributed.cluster import started_here
from sentinode.distributed.lost_workers import NotesLostWorkers
from sentinode.distributed.patience import ELASTIC_START_RETRIES, ray_train_settings
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.stop_signals import interruptible
from sentinode.distributed.watch import NoOnlooker, Onlooker, watched
from sentinode.errors import ConfigError, SentinodeError, TrainingError
from sentinode.experiment import Experiment, begin_run, find_run, has_finished
from sentinode.search.records import SearchPart
from sentinode.storage import Store, open_store
from sentinode.training.checkpoint import whole_history
from sentinode.training.metrics import EpochRecord, best_epoch
from sentinode.training.pointer import begin_driving, read_pointer

RESTARTS = 3
"""Lost workers or nodes that a run survives, besides those announced by a preemption notice; each costs some
seconds and the steps since the last checkpoint.
"""

log = logging.getLogger(__name__)


class TrainResult(Record):
    """What a finished training came to."""

    run: str
    """URL of the run."""
    epochs: int
    best: EpochRecord
    """The epoch whose weights were kept."""
    patches_per_s: float
    """Training throughput, median over epochs, all workers together."""
    wait_fraction: float
    """Share of the training time spent waiting for data, median over epochs."""


def train(
    experiment: Experiment,
    scaling: ScalingSettings | None = None,
    onlooker: Onlooker | None = None,
    part: SearchPart | None = None,
) -> TrainResult:
    """Train ``experiment`` to its end within a Ray session, resuming it where it was begun before.

    ``onlooker`` is told of each epoch trained by this call, and of the steps between. ``part``: which trial
    of a search it is, for tracking.
    A run that has finished before is left as it is. SIGINT and SIGTERM raise KeyboardInterrupt.
    Raises what ``check_run`` raises, and TrainingError where the loss diverges or workers fail more often than
    RESTARTS.
    """
    scaling = scaling or ScalingSettings()
    finished = check_run(experiment, scaling)
    if finished is not None:
        return finished
    _check_cluster(scaling)
    begin_run(experiment, load_manifest(experiment.data)[0])
    store = open_store(experiment.run)
    _tell_what_is_done(store)
    with watched(store, onlooker or NoOnlooker()):
        _fit(experiment, scaling, part)
    return _result(experiment, store)


def check_run(experiment: Experiment, scaling: ScalingSettings) -> TrainResult | None:
    """What the run came to where it has finished before, else None; needs no Ray, and writes nothing but epochs that
    a kill left out of its history.

    Raises ConfigError, ManifestError or StoreError where ``experiment`` cannot be trained.
    """
    manifest, _ = load_manifest(experiment.data)
    scaling.check_batch(experiment.train)
    store = open_store(experiment.run)
    begun = find_run(experiment, manifest)
    if begun is None:  # one that was begun can only go on with the batch that it has
        scaling.check_partners(experiment)
    return _result(experiment, store) if begun is not None and has_finished(store) else None


def _result(experiment: Experiment, store: Store) -> TrainResult:
    history = whole_history(store)
    best = best_epoch(history, experiment.train.best_by)
    assert best is not None
    return TrainResult(
        run=experiment.run,
        epochs=len(history),
        best=best,
        patches_per_s=median(record.patches_per_s for record in history),
        wait_fraction=median(record.wait_fraction for record in history),
    )


def _tell_what_is_done(store: Store) -> None:
    pointer = read_pointer(store)
    if pointer is not None:
        steps = f" and {pointer.step} steps of the next one" if pointer.step else ""
        log.info("going on with the run after %d epochs%s", pointer.epoch, steps)


def _fit(experiment: Experiment, scaling: ScalingSettings, part: SearchPart | None) -> None:
    """Run the ranks to the end."""
    # No checkpoint is ever given to Ray, so its storage holds a marker file and a working folder only: a
    # folder of each node's own will do, and no credentials are pickled. A fresh name keeps Ray from loading a
    # former snapshot.
    folder = tempfile.mkdtemp(prefix="sentinode-ray-")
    elastic = len(scaling.sizes) > 1
    trainer = _Trainer(
        _work,
        train_loop_config={
            "experiment": experiment.to_json(),
            "driver": begin_driving(open_store(experiment.run)),
            "scaling": scaling.canonical_json(),
            "part": None if part is None else part.canonical_json(),
        },
        scaling_config=ray_train.ScalingConfig(
            num_workers=scaling.ray_workers,
            elastic_resize_monitor_interval_s=scaling.resize_every_s,
            use_gpu=scaling.use_gpu,
            resources_per_worker=scaling.resources,
        ),
        # NCCL wants a GPU for each rank.
        torch_config=TorchConfig(
            backend="gloo" if scaling.gpus_per_worker < 1 else None, timeout_s=int(scaling.timeout_s)
        ),
        run_config=ray_train.RunConfig(
            name=f"{experiment.name}-{uuid.uuid4().hex[:8]}",
            storage_path=folder,
            callbacks=[NotesLostWorkers(experiment.run)],
            failure_config=ray_train.FailureConfig(
                max_failures=RESTARTS, controller_failure_limit=ELASTIC_START_RETRIES if elastic else RESTARTS
            ),
        ),
    )
    try:
        with ray_train_settings(elastic=elastic), interruptible():
            failure = trainer.fit().return_value
    except ray_train.TrainingFailedError as error:
        raise _typed(error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if isinstance(failure, SentinodeError):
        raise failure


class _Trainer(TorchTrainer):  # type: ignore[misc]
    """Ray's trainer, less its handler of SIGINT (see ``interruptible``), and less the 12 s that each run would wait at
    its end on a local Ray.

    Ray 2.60 starts an actor that gives a run's resources back should its controller be killed. It looks for
    the controller through the dashboard, which a local Ray has not, and hangs; there, resources end with the
    process. Should a later Ray rename a method, what stands here for it does nothing.
    """

    def _register_sigint_handler(self, controller: object) -> None:
        pass

    def _create_default_callbacks(self) -> list[Any]:
        callbacks: list[Any] = super()._create_default_callbacks()
        if not started_here():
            return callbacks
        return [found for found in callbacks if type(found).__name__ != "PlacementGroupCleanerCallback"]


def _work(task: dict[str, Any]) -> SentinodeError | None:
    # Here, so that the driver does without what only ranks need: torchmetrics takes seconds to import.
    from sentinode.distributed.rank import train_rank

    experiment = Experiment.from_json(task["experiment"], "the experiment sent to a worker")
    scaling = ScalingSettings.model_validate_json(task["scaling"])
    part = None if task["part"] is None else SearchPart.model_validate_json(task["part"])
    return train_rank(experiment, task["driver"], scaling.cpus_per_worker, scaling.loader, part)


def _check_cluster(scaling: ScalingSettings) -> None:
    resources = ray.cluster_resources()
    for kind, share in scaling.resources.items():
        have = resources.get(kind, 0)
        least, most = (workers * share for workers in (scaling.sizes[0], scaling.sizes[-1]))
        if least > have and started_here():
            raise ConfigError(
                f"training asks for {least:g} {kind}s, and this machine's Ray has {have:g}",
                "workers that find room here",
                "lower scaling.num_workers, leave scaling.use_gpu out, or join a cluster by its address",
            )
        if most > have:
            # An autoscaler may still bring them, so this is no error.
            log.warning("training asks for %g %ss and the cluster has %g: waiting for more", most, kind, have)


def _typed(error: ray_train.TrainingFailedError) -> SentinodeError:
    """The user's error within Ray's, or a TrainingError that names the first failure."""
    failures = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, SentinodeError):
            return cause
    lines = [line for line in str(error).splitlines() if line.strip()]
    return TrainingError(
        f"training failed: {lines[-1] if lines else error}",
        f"at most {RESTARTS} lost workers",
        "see the log of the run's workers (ray logs); the same command resumes from the last checkpoint",
    )
