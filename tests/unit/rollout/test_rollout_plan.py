"""The steps of a rollout: every traffic that they make is one that the endpoint accepts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sentinode.errors import ClusterError
from sentinode.rollout.plan import Pace, plan
from sentinode.rollout.record import Wish
from sentinode.rollout.serve_config import ServeConfig, images
from sentinode.serving.traffic import Traffic

OLD, NEW, IMAGE = "a" * 64, "b" * 64, f"r/serve@sha256:{'1' * 64}"


def spec(**args: Any) -> dict[str, Any]:
    application = {
        "name": "sentinode", "import_path": "app:build", "args": {"registry": "s3://r/x", "bundle": OLD, **args},
    }  # fmt: skip
    group = {
        "template": {"spec": {"containers": [{"name": "ray", "image": "r/serve:old"}, {"image": "sidecar"}]}}
    }
    return {
        "serveConfigV2": yaml.safe_dump({"applications": [application]}),
        "rayClusterConfig": {"headGroupSpec": group, "workerGroupSpecs": [group]},
    }


def test_one_thing_changes_at_a_time() -> None:
    before = spec(operating_point="balanced")
    pace = Pace(shadow_s=60, shares=(0.05, 0.5))
    steps = plan(before, Wish(bundle=NEW, image=IMAGE), pace)
    assert [s.name for s in steps] == ["image", "stage", "shadow", "canary 5%", "canary 50%", "promote"]
    assert steps[0].config == before["serveConfigV2"]
    assert {step.images for step in steps} == {(IMAGE, IMAGE)}
    for step in steps[1:]:
        traffic = Traffic.parse(ServeConfig(step.config).traffic)
        assert traffic.models["default"].operating_point == "balanced"
        assert NEW in traffic.digests
    last = Traffic.parse(ServeConfig(steps[-1].config).traffic)
    assert last.digests == (NEW,)
    assert yaml.safe_load(steps[-1].config)["applications"][0]["args"]["bundle"] == OLD


@pytest.mark.parametrize("shares", [(25,), (0,), (-0.5,), (0.5, 0.25), (0.25, 0.25), (0.5, 1.01)])
def test_shares_are_shares_and_grow(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"a quarter of the traffic is 0\.25"):
        Pace(shares=shares)


def test_a_step_is_named_by_its_share() -> None:
    steps = plan(spec(), Wish(bundle=NEW), Pace(shares=(0.005, 0.07, 0.29, 1.0)))
    assert [step.name for step in steps[1:-1]] == ["canary 0.5%", "canary 7%", "canary 29%", "canary 100%"]


def test_nothing_to_do() -> None:
    assert plan(spec(), Wish(bundle=OLD), Pace()) == ()
    assert images(spec()) == ("r/serve:old", "r/serve:old")


@pytest.mark.parametrize("text", ["", "applications: []", "a: [", "applications: [{import_path: other:app}]"])
def test_another_application_is_refused(text: str) -> None:
    with pytest.raises(ClusterError, match="no endpoint of Sentinode"):
        ServeConfig(text)
