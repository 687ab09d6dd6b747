"""The way back of a rollout: there before anything is changed, and proved by the endpoint before it is called done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_double.kuberay import KEY
from rollout_parts import CRDS, NEW, ROOT, Stage, open_stage

from sentinode.cli import run_step
from sentinode.rollout.record import record_of
from sentinode.rollout.serve_config import CANDIDATE, ServeConfig
from sentinode.serving.client import Client

pytestmark = pytest.mark.skipif(not CRDS.exists(), reason="the CRDs of KubeRay are not beside the checkout")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with open_stage(tmp_path) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
        yield made


def answering(stage: Stage) -> str:
    with Client(stage.url) as client:
        return client.predict((ROOT / "docs/pictures/tumour_patch.png").read_bytes()).bundle


def test_what_does_not_come_back_is_not_called_rolled_back(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The replicas have let the old bundle go, and it can no longer be loaded: the new one goes on answering."""
    held, away = tmp_path / "registry" / "bundles" / stage.old, tmp_path / "away"

    def promote_then_lose(key: tuple[str, str, str]) -> None:
        if key == KEY and CANDIDATE in stage.service["spec"]["serveConfigV2"]:
            stage.recompresses.set()
        elif key == KEY and stage.bundle == stage.new and held.exists():
            held.rename(away)

    stage.api.before_replace = promote_then_lose
    abort = ["abort", "--gateway", stage.url, "--by", "test", "--lease-s", "3", "--patience.step-s", "30"]
    assert stage.start("--bundle", stage.new) == 1
    told = capsys.readouterr().err
    assert (
        "the old specification stands again, but the endpoint keeps its former traffic: there is no bundle"
        in told
    )
    assert "sentinode rollout abort" in told
    assert (stage.bundle, answering(stage)) == (stage.old, stage.new)
    record = record_of(stage.service)
    assert record is not None
    assert record.restoring
    assert not stage.outcomes, "it is not over"
    stage.api.before_replace = lambda key: None
    away.rename(held)
    stage.recompresses.clear()
    assert run_step("rollout", abort) == 1, "Ray Serve does not ask the replicas again"
    stage.restart()
    assert run_step("rollout", abort) == 0
    assert answering(stage) == stage.old
    ((outcome, reason),) = stage.outcomes
    assert outcome == "rolled back"
    assert reason.startswith("golden patch")


def test_without_a_way_back_nothing_is_begun(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stage.service
    shutil.rmtree(tmp_path / "registry" / "bundles" / stage.old)
    assert stage.start("--bundle", stage.new) == 1
    assert "no way back to the bundle that serves: there is no bundle" in capsys.readouterr().err
    assert stage.service == before


def test_where_the_endpoint_cannot_be_asked_nothing_is_begun(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stage.service
    assert stage.start("--bundle", stage.new, "--gateway", "http://127.0.0.1:9") == 1
    assert "http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert stage.service == before


def test_a_canary_by_hand_answers_its_share_again(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """What stood before a rollout of an image may itself send a share elsewhere: that is what comes back."""
    service, split = stage.service, {"bundle": stage.old, "canary": {"bundle": stage.new, "share": 0.5}}
    traffic = {"models": {"default": split}, "default": "default"}
    service["spec"]["serveConfigV2"] = ServeConfig(service["spec"]["serveConfigV2"]).with_traffic(traffic)
    stage.api.put(KEY, service)
    stage.fails.append(NEW)
    assert stage.start("--image", NEW) == 1
    stage.fails.clear()
    assert stage.start("--image", NEW) == 0
    capsys.readouterr()
    assert [outcome for outcome, _ in stage.outcomes] == ["kept", "rolled back"]
