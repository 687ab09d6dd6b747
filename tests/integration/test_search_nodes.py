"""A search whose nodes are lost: SIGKILL of a raylet and its processes in the middle. A real Ray of several nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_parts import two_nodes
from ray.cluster_utils import Cluster
from search_parts import sweep_record
from training_parts import write_lesson

from sentinode.distributed import search_room
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search import search
from sentinode.distributed.search_desk import BrokenOff, Cause
from sentinode.search.config import Budget, SearchConfig, StopConfig
from sentinode.search.records import TrialRecord, TrialState
from sentinode.search.space import Choices, Space
from sentinode.search.sweep import Sweep
from sentinode.storage import open_store
from sentinode.training.checkpoint import WEIGHTS_KEY
from sentinode.training.config import Recipe, TrainConfig

EPOCHS = 25
TRIALS = 6


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, repository: Path) -> Iterator[Cluster]:
    """A head without CPUs and two nodes of one each."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(repository / "platform"))
    monkeypatch.setattr(search_room, "ROOM_PATIENCE_S", 5.0)
    with two_nodes() as found:
        yield found


def always_the_same(choose: Choices) -> Recipe:
    """Every trial trains alike, so that all must end with the same weights, bit for bit."""
    return Recipe(train=TrainConfig(epochs=EPOCHS, batch_size=16, lr=3e-3, precision="fp32"))


class Watching:
    """Calls ``act`` after each epoch, and counts how often a trial was begun."""

    def __init__(self, act: Callable[[TrialRecord], None]) -> None:
        self.act, self.begins = act, Counter[int]()

    def __getstate__(self) -> dict[str, Any]:
        """Ray Tune pickles what it calls back and never reads it again; the cluster cannot be pickled."""
        return {}

    def begun(self, trial: TrialRecord) -> None:
        self.begins[trial.number] += 1

    def epoch(self, trial: TrialRecord) -> None:
        self.act(trial)

    def over(self, trial: TrialRecord) -> None:
        pass


def lose_a_node(
    cluster: Cluster, sweep: Sweep, *, when_over: int, under_way: int
) -> Callable[[TrialRecord], None]:
    """SIGKILL a node once so many trials are over and so many others are two epochs old."""
    lost: list[str] = []

    def act(_: TrialRecord) -> None:
        trials = sweep.record.trials
        ready = [trial for trial in trials if trial.state is TrialState.RUNNING and len(trial.epochs) > 1]
        if not lost and sum(trial.is_over for trial in trials) >= when_over and len(ready) >= under_way:
            victim = sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0]
            lost.append(victim.node_id)
            cluster.remove_node(victim, allow_graceful=False)

    return act


def go_on(sweep: Sweep, onlooker: Watching) -> BrokenOff | None:
    space = Space("same", always_the_same)
    return search(sweep, space, ScalingSettings(num_workers=1), onlooker)


def test_lost_nodes_cost_no_finished_trial_and_change_no_result(cluster: Cluster, tmp_path: Path) -> None:
    data, store = str(tmp_path / "data"), open_store(str(tmp_path / "sweep"))
    write_lesson(data)
    config = SearchConfig(sampler="random", stop=StopConfig(early=False))
    begun = sweep_record(data=data, config=config, budget=Budget(trials=4))

    # One of two nodes: the search goes on by itself on the other one.
    sweep = Sweep.begin(store, begun)
    first = Watching(lose_a_node(cluster, sweep, when_over=1, under_way=2))
    assert go_on(sweep, first) is None
    assert len(cluster.worker_nodes) == 1
    assert sorted(first.begins.values()) == [1, 1, 1, 2], "one trial was on the lost node and was begun again"
    assert all(trial.state is TrialState.FINISHED for trial in sweep.record.trials)

    # The only node: the search ends, says so, and is resumed when there is one again.
    sweep = Sweep.resume(store, begun.model_copy(update={"budget": Budget(trials=TRIALS)}))
    second = Watching(lose_a_node(cluster, sweep, when_over=5, under_way=1))
    broken_off = go_on(sweep, second)
    assert broken_off is not None
    assert (broken_off.cause, broken_off.interrupted) == (Cause.NO_ROOM, True)
    assert "room for 0" in broken_off.why
    assert second.begins.keys() == {4, 5}
    assert sweep.record.trial(5).state is TrialState.INTERRUPTED
    before = sweep.record.trials[:5]
    cluster.add_node(num_cpus=1)
    sweep = Sweep.resume(store, sweep.record)
    third = Watching(lambda trial: None)
    assert go_on(sweep, third) is None
    assert third.begins == {5: 1}
    assert sweep.record.trials[:5] == before, "what was finished stays as it was"

    for trial in sweep.record.trials:
        assert trial.state is TrialState.FINISHED
        assert [record.epoch for record in trial.epochs] == list(range(1, EPOCHS + 1))
    weights = {store.get(f"{trial.run}/{WEIGHTS_KEY}") for trial in sweep.record.trials}
    assert len(weights) == 1, "a trial that lost its node ends with the weights of one that did not"
