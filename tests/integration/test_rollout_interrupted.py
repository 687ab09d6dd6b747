"""Rollouts ended in the middle, by a signal, a hand, or somebody else's change: never half, and never over others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import manifest_parts as manifests
import pytest
from rollout_parts import CRDS, Stage, held, open_stage

from sentinode.cli import run_step
from sentinode.rollout.record import HISTORY, RECORD, record_of

pytestmark = pytest.mark.skipif(not CRDS.exists(), reason="the CRDs of KubeRay are not beside the checkout")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with open_stage(tmp_path) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
        yield made


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_ended_in_the_middle_it_is_a_whole_step_and_goes_on(stage: Stage, name: str) -> None:
    with held(stage) as process:
        process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert "the same command resumes" in said
    record = record_of(stage.service)
    assert record is not None
    assert stage.service["spec"]["serveConfigV2"] == record.current.config
    assert not stage.api.get("leases", "sentinode-rollout-sentinode")["spec"]["holderIdentity"]
    assert stage.start("--bundle", stage.new, "--limits.min-patches", "0") == 0
    assert stage.bundle == stage.new


def test_abort_restores_and_never_over_the_work_of_others_unless_forced(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    abort = ["abort", "--gateway", stage.url, "--by", "test", "--lease-s", "3"]
    before = stage.service["spec"]
    with held(stage) as process:
        process.terminate()
    assert run_step("rollout", abort) == 0
    assert stage.service["spec"] == before
    with held(stage) as process:
        process.terminate()
    text = stage.change_by_hand()
    capsys.readouterr()
    for action in (["start", "--bundle", stage.new, *abort[1:]], abort):
        assert run_step("rollout", action) == 1
        assert "abort --force REASON" in capsys.readouterr().err
        assert stage.service["spec"]["serveConfigV2"] == text
    assert run_step("rollout", [*abort, "--force", "the night shift erred"]) == 0
    assert stage.service["spec"] == before
    assert run_step("rollout", abort) != 0
    assert "no rollout of sentinode is under way" in capsys.readouterr().err
    assert stage.outcomes == [
        ("rolled back", "aborted by force: the night shift erred"), ("rolled back", "aborted by hand"),
    ]  # fmt: skip


def test_a_rollout_is_forgotten_and_nothing_changes(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with held(stage) as process:
        process.terminate()
    text = stage.change_by_hand()
    assert run_step("rollout", ["forget"]) == 2
    assert "forget needs --force REASON" in capsys.readouterr().err
    assert run_step("rollout", ["forget", "--force", "theirs is right", "--by", "test"]) == 0
    assert stage.service["spec"]["serveConfigV2"] == text
    assert RECORD not in stage.service["metadata"]["annotations"]
    assert stage.outcomes == [("given up", "forgotten by force: theirs is right")]


def test_killed_anywhere_it_goes_on(stage: Stage) -> None:
    with held(stage) as killed:
        assert stage.start("--bundle", stage.new) == 1  # the first one lives: this one is refused
        killed.send_signal(signal.SIGKILL)
    assert stage.bundle == stage.old
    assert stage.start("--bundle", stage.new, "--limits.min-patches", "0") == 0
    assert stage.bundle == stage.new
    assert HISTORY in stage.service["metadata"]["annotations"]
    rights = manifests.rights("overlays/local", "rayservices", "leases")
    # Whether the operator has to be waited for is chance.
    used = stage.api.used | {("ray.io", "rayservices", "watch")}
    assert used == rights, "the Role has what is used, and no more"
