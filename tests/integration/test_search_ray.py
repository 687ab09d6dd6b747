"""Searches by a real Ray Tune: a failing trial among others, several workers a trial, SIGKILL, SIGINT, resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from search_parts import sweep_record
from tracking_parts import of_kind, read_records
from training_parts import write_lesson

from sentinode.distributed.cluster import ray_session
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search import search
from sentinode.errors import ConfigError
from sentinode.models.families import ValidCnnConfig, usual_preprocess
from sentinode.search.config import Budget, SearchConfig
from sentinode.search.records import SweepRecord, TrialRecord, TrialState
from sentinode.search.space import Choices, Space
from sentinode.search.sweep import Sweep, read_sweep
from sentinode.storage import open_store
from sentinode.training.config import Recipe, TrainConfig

PATIENCE_S = 240.0


class Silent:
    """An onlooker without interest."""

    def begun(self, trial: TrialRecord) -> None:
        pass

    def epoch(self, trial: TrialRecord) -> None:
        pass

    def over(self, trial: TrialRecord) -> None:
        pass


def mixed(choose: Choices) -> Recipe:
    """A trial that trains, one whose loss is soon no number, and one that asks for more memory than there is."""
    kind = choose.one_of("kind", ("good", "diverging", "huge"))
    if kind == "huge":
        # More than a process can address: refused at once also where the system promises memory it does not have.
        model = ValidCnnConfig(widths=(4, 8, 10**12))
        return Recipe(model=model, preprocess=usual_preprocess(model))
    train = {"optimizer": "sgd", "lr": 1e30} if kind == "diverging" else {"lr": 3e-3}
    return Recipe(
        train=TrainConfig.model_validate({"epochs": 3, "batch_size": 16, "precision": "fp32", **train})
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("lesson"))
    write_lesson(folder)
    return folder


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "disabled")
        with ray_session("local", num_cpus=2):
            yield


def begin(folder: Path, data: str, **settings: Any) -> Sweep:
    return Sweep.begin(open_store(str(folder)), sweep_record(data=data, **settings))


@pytest.mark.usefixtures("local_ray")
def test_a_failing_trial_is_recorded_and_the_others_go_on(tmp_path: Path, data: str) -> None:
    sweep = begin(tmp_path, data, config=SearchConfig(sampler="grid"))
    assert search(sweep, Space("mixed", mixed), ScalingSettings(num_workers=1), Silent()) is None
    found = {str(trial.choices["kind"]): trial for trial in sweep.record.trials}
    assert found["good"].state is TrialState.FINISHED
    assert [record.epoch for record in found["good"].epochs] == [1, 2, 3]
    assert found["good"].cost is not None
    assert found["diverging"].state is found["huge"].state is TrialState.FAILED
    assert "training loss of epoch 1" in found["diverging"].reason
    assert "out of memory" in found["huge"].reason
    result = sweep.conclude("searched")
    assert result.winner == found["good"].number
    assert result.front == (found["good"].number,)


@pytest.mark.usefixtures("local_ray")
def test_trials_of_two_workers_follow_one_another_where_only_one_fits(tmp_path: Path, data: str) -> None:
    sweep = begin(tmp_path, data, workers=2, budget=Budget(trials=2))
    space = Space("good", lambda choose: mixed(choose), starts=({"kind": "good"}, {"kind": "good"}))
    assert search(sweep, space, ScalingSettings(num_workers=2), Silent()) is None
    assert [trial.state for trial in sweep.record.trials] == [TrialState.FINISHED] * 2
    assert {record.world_size for trial in sweep.record.trials for record in trial.epochs} == {2}


@pytest.mark.usefixtures("local_ray")
def test_a_trial_that_can_never_fit_is_refused_at_once(tmp_path: Path, data: str) -> None:
    with pytest.raises(ConfigError, match="room for 2"):
        search(begin(tmp_path, data), Space("mixed", mixed), ScalingSettings(num_workers=3), Silent())


def tune(data: str, sweep: Path, *flags: str) -> subprocess.Popen[str]:
    program = "from sentinode.cli import main; main()"
    command = [sys.executable, "-c", program, "tune", "--data", data, "--sweep", str(sweep), *flags]
    environment = {**os.environ, "WANDB_MODE": "offline", "SENTINODE_LOG": "plain"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(
    sweep: Path, process: subprocess.Popen[str], reached: Callable[[SweepRecord], bool]
) -> SweepRecord:
    """The record of the search as soon as it has ``reached`` something."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if (sweep / "sweep.json").exists():
            record, _ = read_sweep(open_store(str(sweep)))
            if reached(record):
                return record
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    process.kill()
    raise AssertionError(process.communicate()[0])


def over(record: SweepRecord) -> dict[int, TrialRecord]:
    return {trial.number: trial for trial in record.trials if trial.is_over}


def running(record: SweepRecord) -> bool:
    return any(trial.state is TrialState.RUNNING and trial.epochs for trial in record.trials)


def test_killed_then_interrupted_then_resumed_no_trial_is_repeated(tmp_path: Path, data: str) -> None:
    sweep = tmp_path / "sweep"
    flags = (
        "--search.space",
        "rates",
        "--search.sampler",
        "grid",
        "--search.epochs",
        "9",
        "--retrain.seeds",
        "1",
    )
    process = tune(data, sweep, *flags, "--budget.trials", "8")
    before = over(wait_for(sweep, process, lambda record: bool(over(record)) and running(record)))
    process.kill()
    process.communicate()
    killed, _ = read_sweep(open_store(str(sweep)))
    begun = {trial.number: (sweep / trial.run / "run.json").read_bytes() for trial in before.values()}
    assert killed.state == "running"

    process = tune(data, sweep, "--resume")
    wait_for(sweep, process, lambda record: len(over(record)) > len(before) and running(record))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 130, said
    interrupted, _ = read_sweep(open_store(str(sweep)))
    assert interrupted.state == "interrupted"
    assert interrupted.result is not None
    assert interrupted.result.winner is not None
    assert "go on by: sentinode tune --resume" in said
    assert TrialState.RUNNING not in [trial.state for trial in interrupted.trials]
    assert (sweep / "report.html").exists()

    process = tune(data, sweep, "--resume")
    said = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 0, said
    done, _ = read_sweep(open_store(str(sweep)))
    assert done.state == "finished"
    assert [trial.number for trial in done.trials] == list(range(8))
    assert all(trial.is_over for trial in done.trials)
    for number, trial in before.items():
        assert done.trial(number) == trial, "what was finished stays as it was"
        assert (sweep / trial.run / "run.json").read_bytes() == begun[number]
    assert done.spread is not None
    assert done.evaluated_run is not None
    assert json.loads((Path(done.evaluated_run) / "report.json").read_bytes())["valid"]["patches"] == 75
    assert list(sweep.glob("wandb/offline-run-*/*.wandb")), "the summary run, to be sent later"
    (tracked,) = of_kind(read_records(next(sweep.glob("winner/*/wandb/offline-run-*"))), "run")
    assert (tracked.run_group, tracked.job_type) == ("sweep", "trial")
    assert list(sweep.glob("trials/0000/wandb/offline-run-*/*.wandb"))
