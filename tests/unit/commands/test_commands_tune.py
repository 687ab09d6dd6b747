"""``sentinode tune``: what is said where a search cannot begin, and how its winner is trained when it is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_parts import sweep_record, trial
from training_parts import write_lesson

from sentinode import cli
from sentinode.commands.tune_winner import trainings
from sentinode.experiment import begin_run
from sentinode.search.config import RetrainConfig
from sentinode.search.records import TrialState
from sentinode.search.sweep import Sweep
from sentinode.storage import open_store


def test_a_search_that_could_not_begin_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lesson(str(tmp_path / "data"))
    flags = ["--data", str(tmp_path / "data"), "--sweep", str(tmp_path / "sweep")]
    for _ in range(2):
        assert cli.run_step("tune", [*flags, "--ray-address", "127.0.0.1:1"]) == 2
        assert "no Ray cluster answers" in capsys.readouterr().err
    assert not (tmp_path / "sweep" / "sweep.json").exists()


def test_tracking_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    for step, place in (("tune", "--sweep"), ("train", "--run")):
        assert cli.run_step(step, ["--data", str(tmp_path), place, str(tmp_path / "there")]) == 2
        assert "there is no API key" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()


def test_a_resumed_search_trains_its_winner_as_it_is_asked_now(tmp_path: Path) -> None:
    data, manifest = str(tmp_path / "data"), write_lesson(str(tmp_path / "data"))
    winner = trial(0, 0.9)
    record = sweep_record(winner, data=data, retrain=RetrainConfig(seeds=2, epochs=6))
    sweep = Sweep.begin(open_store(str(tmp_path / "sweep")), record)

    def asked(**changes: object) -> list[tuple[TrialState, int]]:
        settings = {"seeds": 2, "epochs": 6, **changes}
        sweep.update(retrain=RetrainConfig.model_validate(settings))
        return [(found.state, found.recipe.train.epochs) for found in trainings(sweep, winner)]

    # As an earlier release named them: by the seed alone.
    again = trainings(sweep, winner)
    earlier = tuple(found.model_copy(update={"run": found.run.rpartition("-")[0]}) for found in again)
    for found in earlier:
        begin_run(record.experiment(found, sweep.store.url), manifest)
    sweep.update(again=tuple(found.model_copy(update={"state": TrialState.FINISHED}) for found in earlier))

    done, new = TrialState.FINISHED, TrialState.WAITING
    assert trainings(sweep, winner) == sweep.record.again
    assert asked(seeds=3) == [(done, 6), (done, 6), (new, 6)]
    assert asked(data=data) == [(done, 6), (done, 6)]
    assert asked(epochs=50) == [(new, 50), (new, 50)]
    assert asked(data=str(tmp_path / "other")) == [(new, 6), (new, 6)]
    names = {found.run for found in (*again, *trainings(sweep, winner), *sweep.record.again)}
    assert len(names) == 6, "each has a run of its own"
