"""A trial's process without Ray Tune: what it takes for its own run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from search_parts import epoch, trial
from training_parts import plan, write_lesson

from sentinode.distributed import search_trial
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search_trial import Told, TrialTask, run_trial
from sentinode.experiment import Experiment, begin_run
from sentinode.storage import open_store
from sentinode.training.checkpoint import WEIGHTS_KEY, save_history


@pytest.mark.parametrize("asked", [1, 3])
def test_a_finished_run_of_another_recipe_is_not_taken_for_the_trials_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    said: list[Told] = []
    monkeypatch.setattr(search_trial, "tell", said.append)
    monkeypatch.setattr(search_trial.torch, "set_num_threads", lambda threads: None)
    monkeypatch.setenv("TUNE_FUNCTION_THREAD_TIMEOUT_S", "30")  # what it sets is taken back
    manifest = write_lesson(str(tmp_path / "data"))
    places = str(tmp_path / "data"), str(tmp_path / "run")
    begin_run(Experiment.of(plan(epochs=1), *places), manifest)
    store = open_store(places[1])
    save_history(store, (epoch(1, 0.7),))
    store.put(WEIGHTS_KEY, b"weights")
    task = TrialTask(
        experiment=Experiment.of(plan(epochs=asked), *places),
        scaling=ScalingSettings(num_workers=1),
        search="test",
        number=0,
        choices={},
        cost=trial(0).cost,
    )
    config: dict[str, Any] = {"task": task.model_dump_json()}
    run_trial(config)
    if asked == 1:
        assert [told.epoch for told in said if told.epoch] == [epoch(1, 0.7)]
        assert said[-1].finished
    else:
        assert said[-1].failure is not None
        assert "another configuration: train.epochs 1 there, 3 here" in said[-1].failure
