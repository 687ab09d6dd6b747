"""What a rollout says of pods that do not start, from statuses that a real kubelet and scheduler wrote."""

from __future__ import annotations

from typing import Any

import pytest

from sentinode.rollout.pods import trouble

SCHEDULED = {"type": "PodScheduled", "status": "True"}


def pod(*, waits: dict[str, str] | None = None, init: bool = False, node: bool = True) -> dict[str, Any]:
    unscheduled = {
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/1 nodes are available: 1 Insufficient cpu.",
    }  # fmt: skip
    state = {"waiting": waits} if waits else {"running": {"startedAt": "2026-11-27T14:56:42Z"}}
    kind = "initContainerStatuses" if init else "containerStatuses"
    status: dict[str, Any] = {"conditions": [SCHEDULED if node else unscheduled]}
    if node:
        status[kind] = [{"name": "ray-head", "state": state}]
    return {"metadata": {"name": "sentinode-57p4x-head-czrbs"}, "status": status}


def test_an_image_that_is_not_there_is_named() -> None:
    waits = {"reason": "ImagePullBackOff", "message": 'Back-off pulling\nimage "a"'}
    expected = (
        'pod sentinode-57p4x-head-czrbs, container ray-head: ImagePullBackOff: Back-off pulling image "a"'
    )
    assert trouble([pod(), pod(waits=waits)]) == expected
    assert trouble([pod(waits=waits, init=True)]) == expected


def test_a_pod_without_a_node_is_named() -> None:
    assert trouble([pod(node=False)]) == (
        "no node takes pod sentinode-57p4x-head-czrbs: 0/1 nodes are available: 1 Insufficient cpu."
    )


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing"])
def test_what_is_on_its_way_is_no_trouble(reason: str) -> None:
    assert trouble([pod(), pod(waits={"reason": reason}), {"metadata": {"name": "new"}}]) == ""
