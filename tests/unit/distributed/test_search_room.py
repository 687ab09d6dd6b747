"""No search waits for room that there can never be."""

from __future__ import annotations

import time

import pytest

from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.search_room import Nodes, RoomWatch, trials_at_a_time
from sentinode.errors import ConfigError


@pytest.mark.parametrize(
    ("nodes", "scaling", "trials"),
    [
        ([{"CPU": 2}], {"num_workers": 1}, 2),
        ([{"CPU": 2}], {"num_workers": 2}, 1),
        ([{"CPU": 3}, {"CPU": 3}], {"num_workers": 1, "cpus_per_worker": 2}, 2),
        ([{"CPU": 8, "GPU": 1}], {"num_workers": 1, "use_gpu": True}, 1),
        ([{"CPU": 8, "GPU": 1}], {"num_workers": 1, "use_gpu": True, "gpus_per_worker": 0.1}, 8),
        ([{"CPU": 8, "GPU": 2}], {"num_workers": 2, "use_gpu": True, "gpus_per_worker": 0.5}, 2),
    ],
)
def test_room(nodes: list[dict[str, float]], scaling: dict[str, float], trials: int) -> None:
    assert trials_at_a_time(nodes, ScalingSettings.model_validate(scaling)) == trials


@pytest.mark.parametrize(
    ("nodes", "scaling", "said"),
    [
        ([{"CPU": 2}], {"num_workers": 4}, "4 workers of 1 CPU.*room for 2"),
        ([{"CPU": 2}, {"CPU": 2}], {"num_workers": 1, "cpus_per_worker": 4}, "room for 0"),
        ([{"CPU": 2}], {"num_workers": 1, "use_gpu": True}, "1 GPU"),
        ([], {"num_workers": 1}, "0 nodes"),
    ],
)
def test_a_trial_that_never_fits(nodes: list[dict[str, float]], scaling: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        trials_at_a_time(nodes, ScalingSettings.model_validate(scaling))


def test_a_cluster_that_has_lost_its_room_is_given_some_time() -> None:
    nodes: list[Nodes] = [[{"CPU": 2}]]
    watch = RoomWatch(lambda: nodes[0], ScalingSettings(num_workers=2), patience_s=0.2)

    def gone_after(seconds: float) -> str | None:
        until = time.monotonic() + seconds
        found = None
        while found is None and time.monotonic() < until:
            found = watch.gone()
            time.sleep(0.01)
        return found

    assert gone_after(0.5) is None
    nodes[0] = [{"CPU": 1}]
    assert watch.gone() is None, "nodes may come back"
    nodes[0] = [{"CPU": 1}, {"CPU": 1}]
    assert gone_after(0.5) is None, "and have"
    nodes[0] = [{"CPU": 1}]
    assert "room for 1" in (gone_after(5) or "")
