"""One trial: what runs in the process that Ray Tune starts for it.

With one worker it trains right here; with more it drives Ray Train, whose workers are counted apart. Either way it is
an ordinary run in the store, resumed from its checkpoints when it is begun again.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import torch
from ray import tune

from sentinode.config import Frozen
from sentinode.data.manifest import load_manifest
from sentinode.distributed.rank import train_here
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.trainer import train
from sentinode.distributed.watch import NoOnlooker
from sentinode.errors import SentinodeError
from sentinode.experiment import Experiment, begin_run, find_run
from sentinode.search.cost import measure_cost
from sentinode.search.records import Cost, SearchPart
from sentinode.storage import open_store
from sentinode.training.checkpoint import WEIGHTS_KEY, whole_history
from sentinode.training.context import EndedEarly, RankContext
from sentinode.training.metrics import EpochRecord

END_S = 30
"""How long a trial that was stopped may take to save and to end before its process is given up."""
REASON_CHARACTERS = 400
NO_MEMORY = re.compile(r"not enough memory|can't allocate memory")
"""How torch says it of a CPU."""


class TrialTask(Frozen):
    """What a trial's process is told."""

    experiment: Experiment
    scaling: ScalingSettings
    search: str
    """The search's name."""
    number: int
    choices: dict[str, int | float | str | bool]
    cost: Cost | None
    """Where it is known from a former attempt."""


class Told(Frozen):
    """What a trial reports: one of these at a time."""

    cost: Cost | None = None
    epoch: EpochRecord | None = None
    finished: bool = False
    failure: str | None = None


def run_trial(config: dict[str, Any]) -> None:
    """Measure the network, then train it, reporting each epoch to Ray Tune.

    Whatever goes wrong is reported as the trial's end: an error raised here would only be seen as a traceback.
    """
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(END_S)
    task = TrialTask.model_validate_json(config["task"])
    try:
        _train(task)
    except EndedEarly:
        # What Ray itself raises in a trial that it stops; its process is then used for the next one.
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - out of memory, a bad recipe: the search goes on
        tell(Told(failure=reason_of(error)))
    else:
        tell(Told(finished=True))


def _train(task: TrialTask) -> None:
    experiment, scaling = task.experiment, task.scaling
    torch.set_num_threads(scaling.cpus_per_worker)
    manifest, _ = load_manifest(experiment.data)
    find_run(experiment, manifest)  # raises where what is kept there is another training
    cost = task.cost or measure_cost(experiment.recipe)
    tell(Told(cost=cost))
    part = SearchPart(search=task.search, trial=task.number, choices=task.choices, cost=cost)
    store = open_store(experiment.run)
    for record in whole_history(store):
        tell(Told(epoch=record))
    if store.stat(WEIGHTS_KEY) is not None:
        return
    if scaling.num_workers > 1:
        train(experiment, scaling, _Onlooker(), part)
        return
    begin_run(experiment, manifest)
    device = torch.device("cuda" if scaling.use_gpu else "cpu")
    context = RankContext(device=device, report=lambda record: tell(Told(epoch=record)))
    if not train_here(experiment, scaling.cpus_per_worker, scaling.loader, context, part):
        raise EndedEarly


class _Onlooker(NoOnlooker):
    def epoch(self, record: EpochRecord) -> None:
        tell(Told(epoch=record))


def tell(told: Told) -> None:
    """Report to Ray Tune. Raises EndedEarly where it stops the trial in answer."""
    figures: dict[str, Any] = {"told": told.model_dump_json()}
    if told.epoch is not None:
        figures |= {
            "epoch": told.epoch.epoch,
            **{name: getattr(told.epoch, name) for name in RUNG_FIGURES.values()},
        }
    try:
        tune.report(figures)
    except SystemExit as stop:
        raise EndedEarly from stop


RUNG_FIGURES = {"auroc": "valid_auroc", "specificity": "valid_specificity"}
"""What early stopping looks at, by the name of the search's quality."""


def reason_of(error: BaseException) -> str:
    """Why a trial failed, in a line."""
    if isinstance(error, SentinodeError):
        text = error.found
    elif isinstance(error, torch.OutOfMemoryError | MemoryError) or NO_MEMORY.search(str(error)):
        text = f"out of memory ({_first_line(error)})"
    else:
        text = f"{type(error).__name__}: {_first_line(error)}"
    return text if len(text) <= REASON_CHARACTERS else text[: REASON_CHARACTERS - 1] + "…"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
