"""Rollouts over real HTTP: the client of Kubernetes against a double of its API server, a double of KubeRay, and a real
endpoint of ours with real bundles as the gateway.
"""

from __future__ import annotations

import copy
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kube_double.apply import Manager
from kube_double.kuberay import KEY
from kube_double.refusals import RefusedError
from rollout_parts import CRDS, NEW, ROOT, Stage, open_stage

from sentinode.cli import run_step
from sentinode.rollout.incremental import INCREMENTAL
from sentinode.rollout.record import RECORD, history_of
from sentinode.serving.client import Client

pytestmark = pytest.mark.skipif(not CRDS.exists(), reason="the CRDs of KubeRay are not beside the checkout")


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with open_stage(tmp_path) as made:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
        yield made


def test_a_bundle_is_rolled_out_in_place_and_kept(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    before = copy.deepcopy(stage.service["spec"]["rayClusterConfig"])
    assert stage.start("--bundle", stage.new) == 0
    assert stage.bundle == stage.new
    assert stage.service["spec"]["rayClusterConfig"] == before
    assert RECORD not in stage.service["metadata"]["annotations"]
    with Client(stage.url) as client:
        assert client.predict((ROOT / "docs/pictures/tumour_patch.png").read_bytes()).bundle == stage.new
    assert [entry.outcome for entry in history_of(stage.service)] == ["kept"]
    assert stage.start("--bundle", stage.new) == 0  # nothing is left to do
    capsys.readouterr()
    assert run_step("rollout", ["status"]) == 0
    assert stage.new in capsys.readouterr().out
    assert run_step("rollout", ["history"]) == 0
    assert "kept  by test" in capsys.readouterr().out


def test_an_operator_that_writes_its_status_between_reading_and_writing_is_no_conflict(stage: Stage) -> None:
    writes: list[str] = []

    def operator(key: tuple[str, str, str]) -> None:
        if key == KEY and (not writes or writes[-1] == "ours"):
            writes.append("operator's")
            stage.api.put(KEY, {**stage.service, "metadata": {"name": KEY[2]}}, status_only=True)
        elif key == KEY:
            writes.append("ours")

    stage.api.before_replace = operator
    assert stage.start("--bundle", stage.new) == 0
    assert stage.bundle == stage.new
    assert writes == ["operator's", "ours"] * 3  # two steps and the end


def test_somebody_who_writes_between_reading_and_writing_is_a_conflict(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    def somebody(key: tuple[str, str, str]) -> None:
        if key == KEY:
            stage.api.before_replace = lambda key: None
            stage.change_by_hand()

    stage.api.before_replace = somebody
    assert stage.start("--bundle", stage.new) == 1
    assert "was changed by somebody else" in capsys.readouterr().err
    assert stage.bundle == stage.old
    assert RECORD not in stage.service["metadata"].get("annotations", {})


def test_what_was_done_just_before_may_settle(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """As after a rollback, while Ray Serve still says DEPLOYING."""
    healthy = stage.service
    busy = copy.deepcopy(healthy)
    for application in busy["status"]["activeServiceStatus"]["applicationStatuses"].values():
        application["status"] = "DEPLOYING"
    stage.api.put(KEY, busy, status_only=True)
    assert stage.start("--bundle", stage.new, "--patience.operator-s", "1") == 1
    assert "not healthy before the rollout: application sentinode is DEPLOYING" in capsys.readouterr().err
    assert not stage.outcomes, "nothing was begun"

    def settle() -> None:
        stage.api.put(KEY, {**stage.service, "status": healthy["status"]}, status_only=True)

    settled = threading.Timer(1.5, settle)
    settled.start()
    assert stage.start("--bundle", stage.new) == 0
    settled.join()
    assert stage.bundle == stage.new


def test_what_cannot_be_deployed_is_taken_back(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    before = stage.service["spec"]
    stage.fails.append("rollout-candidate")
    assert stage.start("--bundle", stage.new) == 1
    assert "rolled back: application sentinode is DEPLOY_FAILED" in capsys.readouterr().err
    assert stage.service["spec"] == before
    assert [entry.outcome for entry in history_of(stage.service)] == ["rolled back"]


def test_another_image_makes_a_new_cluster(stage: Stage) -> None:
    assert stage.start("--image", NEW) == 0
    service = stage.service
    assert service["status"]["activeServiceStatus"]["rayClusterName"] == "cluster-2"
    head = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
    assert head["containers"][0]["image"] == NEW


def test_an_image_that_does_not_start_is_taken_back(stage: Stage) -> None:
    before = stage.service["spec"]
    stage.fails.append(NEW)
    assert stage.start("--image", NEW) == 1
    assert stage.service["spec"] == before
    # KubeRay does not go back to the cluster that serves: it makes a third one.
    assert stage.service["status"]["activeServiceStatus"]["rayClusterName"] == "cluster-3"


def test_an_upgrade_in_steps_wants_a_gateway_that_is_served(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {
        "gatewayClassName": "envoy",
        "stepSizePercent": 20,
        "intervalSeconds": 60,
        "maxSurgePercent": 100,
    }
    strategy = {"type": INCREMENTAL, "clusterUpgradeOptions": options}
    stage.api.put(KEY, {**stage.service, "spec": {**stage.service["spec"], "upgradeStrategy": strategy}})
    gateway = {"metadata": {"name": "sentinode-gateway"}, "spec": {"gatewayClassName": "envoy"}}
    pending = {"type": "Accepted", "status": "Unknown", "message": "Waiting for controller"}
    for status, said in ((None, "it is not there"), ({"conditions": [pending]}, "Waiting for controller")):
        if status:
            stage.api.put((*KEY[:1], "gateways", "sentinode-gateway"), gateway | {"status": status})
        assert stage.start("--image", NEW) == 1
        told = capsys.readouterr().err
        assert "Gateway sentinode-gateway" in told
        assert said in told
        assert "class envoy" in told
        assert not stage.outcomes, "nothing was begun"
    assert stage.start("--bundle", stage.new) == 0, "in place, no cluster is replaced"


def test_dry_run_shows_each_step_and_changes_nothing(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stage.service
    assert stage.start("--bundle", stage.new, "--pace.shares", "0.1", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "step 2 of 3: canary 10%" in shown
    assert f"+            bundle: {stage.new}" in shown
    assert stage.service == before


def test_a_canary_without_traffic_is_taken_back(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ["--pace.shares", "0.5", "--pace.hold-s", "0", "--evidence-s", "1"]
    assert stage.start("--bundle", stage.new, *quick, "--pace.hold-s", "1") == 1
    assert "too few to judge by" in capsys.readouterr().err
    assert stage.bundle == stage.old


def test_another_gateway_than_the_sealed_bundle_expects_is_found_out(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Golden patches that arrive recompressed have other probabilities: taken back, without a hand."""
    before = stage.service["spec"]
    stage.recompresses.set()
    assert stage.start("--bundle", stage.new) == 1
    assert "golden patch" in capsys.readouterr().err
    assert stage.service["spec"] == before
    ((outcome, reason),) = stage.outcomes
    assert outcome == "rolled back"
    assert "through the gateway; expected" in reason
    assert "the bundle from before answers, but not as it promises either" in reason, (
        "it is not the new bundle's fault"
    )


def test_a_canary_goes_through_shadow_and_shares(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    pace = ["--pace.shadow-s", "0.2", "--pace.shares", "0.3", "0.6", "--pace.hold-s", "0.2"]
    # Two networks drawn at random need not agree: here the steps are of interest, limits have tests of their own.
    wide = [
        "--limits.min-patches",
        "5",
        "--limits.psi",
        "99",
        "--limits.disagreement",
        "1",
        "--limits.p95-s",
        "60",
    ]
    with stage.client():
        assert stage.start("--bundle", stage.new, *pace, *wide) == 0
    shown = capsys.readouterr().err
    for step in ("shadow", "canary 30%", "canary 60%"):
        assert f"step {step}" in shown
        assert re.search(rf"{step}: \d+ patches in \d+ s, within all limits", shown)
    assert stage.bundle == stage.new
    assert [outcome for outcome, _ in stage.outcomes] == ["kept"]


@pytest.mark.parametrize("what", ["bundle", "image"])
def test_an_apply_after_a_rollout_is_a_conflict_over_what_it_moved(stage: Stage, what: str) -> None:
    """As a real API server answered, by hand: docs/results.md."""
    kubectl, service = Manager("kubectl", "Apply"), stage.service
    overlay = {name: service[name] for name in ("apiVersion", "kind", "spec")} | {
        "metadata": {"name": KEY[2]}
    }
    stage.api.apply(KEY, overlay, kubectl, force=False)
    assert stage.start(f"--{what}", stage.new if what == "bundle" else NEW) == 0
    with pytest.raises(RefusedError, match='conflict with "sentinode-rollout" using') as error:
        stage.api.apply(KEY, overlay, kubectl, force=False)
    template = ".spec.rayClusterConfig.headGroupSpec.template.spec"
    image = {".spec.rayClusterConfig.workerGroupSpecs", f'{template}.containers[name="ray-head"].image'}
    moved = {cause["field"] for cause in error.value.causes}
    assert moved == ({".spec.serveConfigV2"} if what == "bundle" else image)
    assert stage.api.apply(KEY, overlay, kubectl, force=True)["spec"] == service["spec"]


def test_a_wrong_token_is_told(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(stage.api.kubeconfig(tmp_path / "wrong", token="wrong")))
    assert run_step("rollout", ["status"]) == 1
    assert "does not accept the credentials" in capsys.readouterr().err
