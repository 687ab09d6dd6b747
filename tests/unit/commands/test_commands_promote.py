"""``sentinode promote``, ``bundles`` and ``rollback`` on evaluated runs: what moves, what is refused, what is kept."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from datapath_parts import make_manifest
from promote_parts import write_data, write_run

from sentinode import cli
from sentinode.bundle.bundle import read_card
from sentinode.bundle.gate_facts import Decision
from sentinode.bundle.registry import read_alias, set_alias
from sentinode.bundle.verify import open_verified
from sentinode.commands.promote_int8 import make_int8
from sentinode.data.manifest import load_manifest
from sentinode.errors import BundleError, PreconditionFailedError
from sentinode.evaluation.records import EvaluationReport
from sentinode.schema import Split
from sentinode.storage import Store, open_store

LENIENT = ["--gate.auroc-margin", "0.2", "--gate.sensitivity-margin", "0.5", "--gate.max-ece", "0.2"]
"""Margins within which 240 patches can tell anything."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, a good, a poorer and a hopeless run."""
    folder = tmp_path_factory.mktemp("runs")
    manifest = write_data(str(folder / "data"))
    for name, noise in (("good", 0.0), ("poorer", 1.0), ("hopeless", 10.0)):
        write_run(str(folder / "data"), str(folder / name), manifest, noise)
    return folder


@pytest.fixture
def registry(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "registry"))


def sentinode(step: str, registry: Store, *arguments: str) -> int:
    return cli.run_step(step, [*arguments, "--registry", registry.url])


def promote(registry: Store, run: Path, *arguments: str) -> int:
    return sentinode("promote", registry, "--run", str(run), *LENIENT, *arguments)


def decisions(store: Store) -> list[Decision]:
    out = []
    for info in store.list("decisions/"):
        data = store.get(info.key)
        assert info.key == f"decisions/{hashlib.sha256(data).hexdigest()}.json"
        out.append(Decision.from_json(data, info.key))
    return out


def test_first_promotion_compares_with_nothing_and_a_second_with_the_first(
    runs: Path, registry: Store
) -> None:
    assert promote(registry, runs / "poorer", "--by", "ci") == 0
    first = read_alias(registry, "candidate")
    assert (first.history[0].by, first.history[0].forced) == ("ci", False)
    assert promote(registry, runs / "good") == 0
    alias = read_alias(registry, "candidate")
    assert alias.history[1].moved_from == first.bundle
    by_digest = {decision.digest(): decision for decision in decisions(registry)}
    decision = by_digest[alias.history[1].decision or ""]
    assert decision.passed
    facts = decision.facts
    assert (facts.candidate, facts.current) == (alias.bundle, first.bundle)
    assert facts.auroc.current is not None
    assert facts.auroc.candidate > facts.auroc.current
    assert {s.kind for s in facts.sensitivity} == {"all", "slide", "centre"}
    assert sum(s.found.patches for s in facts.sensitivity if s.kind == "slide") == facts.positives
    assert facts.latency.current_ms is not None
    card = read_card(registry, alias.bundle)
    assert card.stain is not None
    assert card.scores is not None
    assert sum(card.scores.positives) == facts.positives


def test_each_failed_gate_is_named_and_the_alias_stays(
    runs: Path, registry: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote(registry, runs / "good") == 0
    before = read_alias(registry, "candidate")
    capsys.readouterr()
    refused = promote(
        registry, runs / "hopeless", "--licence", "CC-BY-NC-4.0", "--gate.latency-budget-ms", "0.0001"
    )
    shown = capsys.readouterr().err
    assert refused == 1
    assert "3 of 7 gates keep alias candidate from bundle" in shown
    for line in (
        "auroc: found 0.",
        ": worse; expected",
        "latency: found",
        "licence: found the weights are under",
    ):
        assert line in shown
    assert "--force REASON" in shown
    assert read_alias(registry, "candidate") == before
    assert sorted(decision.passed for decision in decisions(registry)) == [False, True]


@pytest.mark.parametrize("strange", ["model", "data", "split"])
def test_the_report_of_something_else_is_not_sealed(
    runs: Path, registry: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], strange: str
) -> None:
    shutil.copytree(runs / "good", tmp_path / "run")
    store = open_store(str(tmp_path / "run"))
    own = EvaluationReport.from_json(store.get("report.json"), "report.json")
    changes: dict[str, dict[str, object]] = {
        "model": {"model_digest": "f" * 64},
        "data": {"manifest_digest": "f" * 64},
        "split": {"valid": own.valid.model_copy(update={"split": "test"})},
    }
    store.put("report.json", own.model_copy(update=changes[strange]).to_json())
    assert promote(registry, tmp_path / "run") == 2
    assert "the run's own: model" in capsys.readouterr().err
    assert list(registry.list("bundles/")) == []


def test_force_overrules_and_the_history_keeps_the_reason(runs: Path, registry: Store) -> None:
    assert promote(registry, runs / "good") == 0
    assert promote(registry, runs / "hopeless", "--force", "a drill", "--by", "ops") == 0
    move = read_alias(registry, "candidate").history[-1]
    assert (move.forced, move.reason, move.by) == (True, "a drill", "ops")
    decision = next(d for d in decisions(registry) if d.digest() == move.decision)
    assert (decision.passed, decision.forced) == (False, "a drill")
    assert {gate.name for gate in decision.failed} == {"auroc"}
    assert sentinode("rollback", registry, "candidate", "--reason", "the drill is over") == 0
    alias = read_alias(registry, "candidate")
    assert alias.bundle == alias.history[0].bundle
    assert (alias.history[-1].kind, alias.history[-1].reason) == ("rollback", "the drill is over")


def test_force_of_what_passes_forces_nothing(runs: Path, registry: Store) -> None:
    assert promote(registry, runs / "good", "--force", "to be sure") == 0
    move = read_alias(registry, "candidate").history[0]
    assert (move.forced, move.reason) == (False, "to be sure")


def test_a_sealed_bundle_is_promoted_from_alias_to_alias(
    runs: Path, registry: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote(registry, runs / "good") == 0
    digest = read_alias(registry, "candidate").bundle
    assert sentinode("promote", registry, "--bundle", "candidate", "--alias", "production", *LENIENT) == 0
    assert read_alias(registry, "production").bundle == digest
    assert sentinode("promote", registry, "--bundle", "candidate", "--alias", "production") == 0
    assert len(read_alias(registry, "production").history) == 1
    capsys.readouterr()
    other = write_data(str(runs / "other"), train=20, valid=20, seed=5)
    assert other.dataset == "hard"
    refused = sentinode(
        "promote", registry, "--bundle", digest, "--alias", "trial", "--data", str(runs / "other")
    )
    assert refused == 2
    assert "on which the bundle was trained" in capsys.readouterr().err


def test_data_sets_that_overlap_are_not_compared_on(
    runs: Path, registry: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The present bundle was trained on what validates the candidate.
    data = open_store(str(runs / "data"))
    old, _ = load_manifest(data.url)
    other = {Split.TRAIN: Split.VALID, Split.VALID: Split.TRAIN}
    turned = make_manifest([s.model_copy(update={"split": other[s.split]}) for s in old.shards], "turned")
    data.put("turned.json", turned.to_json())
    write_run(f"{data.url}/turned.json", str(tmp_path / "turned"), turned)
    assert promote(registry, tmp_path / "turned", "--gate.auroc-margin", "0.9") == 0
    before = read_alias(registry, "candidate")
    capsys.readouterr()
    assert promote(registry, runs / "good", "--gate.auroc-margin", "0.9") == 1
    shown = capsys.readouterr().err
    assert "data: found training data of the present bundle (turned, " in shown
    assert "hold 240 patches of the validation split: not comparable" in shown
    assert read_alias(registry, "candidate") == before

    # Where nobody can tell, nothing is compared either; the data set may be named.
    data.delete("turned.json")
    assert promote(registry, runs / "good") == 1
    shown = capsys.readouterr().err
    assert "what the present bundle was trained on is not known" in shown
    assert "--current-data URL names it" in shown
    assert promote(registry, runs / "good", "--current-data", str(runs / "data")) == 2
    assert "on which the bundle was trained" in capsys.readouterr().err
    data.put("elsewhere.json", turned.to_json())
    assert promote(registry, runs / "good", "--current-data", f"{data.url}/elsewhere.json") == 1
    assert "hold 240 patches" in capsys.readouterr().err


def test_a_promoter_that_was_overtaken_changes_nothing(
    runs: Path, registry: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentinode.commands import promote as step

    assert promote(registry, runs / "poorer") == 0
    first = read_alias(registry, "candidate").bundle
    assert promote(registry, runs / "good", "--alias", "other") == 0
    good = read_alias(registry, "other").bundle
    measured = step.measure

    def overtaken(*arguments: object, **named: object) -> object:
        set_alias(registry, "candidate", good)
        return measured(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(step, "measure", overtaken)
    config = step.PromoteCommand(run=str(runs / "hopeless"), registry=registry.url, force="first come")
    with pytest.raises(PreconditionFailedError, match=f"somebody else meanwhile, to {good}"):
        step.promote(config)
    assert [move.bundle for move in read_alias(registry, "candidate").history] == [first, good]


def test_the_registry_is_looked_into(
    runs: Path, registry: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sentinode("bundles", registry, "list") == 0
    assert promote(registry, runs / "poorer") == 0
    assert (
        promote(registry, runs / "good", "--alias", "production", "--by", "ci", "--name", "the-good-one") == 0
    )
    good = read_alias(registry, "production").bundle
    capsys.readouterr()

    assert sentinode("bundles", registry, "list", "--json") == 0
    rows = {row["digest"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[good]["aliases"] == ["production"]
    assert sentinode("bundles", registry, "list") == 0
    (row,) = (line for line in capsys.readouterr().out.splitlines() if good[:12] in line)
    assert row.split()[:4] == [good[:12], "the-good-one", "production", "hard"], (
        "a line, also where it is long"
    )

    assert sentinode("bundles", registry, "show", "production") == 0
    shown = capsys.readouterr().out
    card = read_card(registry, good)
    for text in (
        good,
        str(runs / "good"),
        card.training.manifest_digest,
        "Code commit",
        "the-good-one",
        "ci",
    ):
        assert text in shown
    assert sentinode("bundles", registry, "diff", "candidate", "production") == 0
    different = capsys.readouterr().out
    assert "training.run_name" in different
    assert "the-good-one" in different
    assert "mpp_um_px" not in different

    assert sentinode("bundles", registry, "pull", "production", "--out", str(tmp_path / "copy")) == 0
    assert (tmp_path / "copy" / good / "model.onnx").is_file()
    assert sentinode("bundles", registry, "gc") == 0
    assert "0 bundles can be removed" in capsys.readouterr().err
    assert sentinode("bundles", registry, "show") == 2
    assert "show takes 1 bundles, found 0" in capsys.readouterr().err


def test_a_damaged_bundle_is_not_rolled_back_to(
    runs: Path, registry: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in ("poorer", "good"):
        assert promote(registry, runs / run) == 0
    alias = read_alias(registry, "candidate")
    first = alias.history[0].bundle
    key = f"bundles/{first}/model.onnx"
    registry.put(key, registry.get(key)[:-9])
    assert sentinode("rollback", registry, "candidate", "--reason", "slow") == 1
    assert "model.onnx" in capsys.readouterr().err
    assert read_alias(registry, "candidate") == alias


def test_int8_goes_into_the_bundle_with_its_loss_or_not_at_all(
    runs: Path, registry: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert promote(registry, runs / "good", "--int8", "--int8-max-loss", "0.05") == 0
    digest = read_alias(registry, "candidate").bundle
    bundle = open_verified(registry, digest, tmp_path / "cache")
    facts = bundle.card.int8
    assert facts is not None
    assert bundle.int8_path is not None
    assert bundle.int8_path.stat().st_size < bundle.onnx_path.stat().st_size
    assert (facts.method, facts.patches) == ("static QDQ", 240)
    assert facts.auroc_loss_low is not None
    assert facts.auroc_loss_low <= facts.auroc_loss < 0.05
    assert f", {-facts.auroc_loss:+.4f} (95 % interval" in (bundle.folder / "model_card.md").read_text()
    capsys.readouterr()
    assert sentinode("bundles", registry, "show", "candidate") == 0
    assert f"{-facts.auroc_loss:+.4f} against the float graph" in capsys.readouterr().out

    manifest, data = load_manifest(str(runs / "data"))
    (tmp_path / "model.onnx").write_bytes(bundle.onnx_path.read_bytes())
    # No graph is better than the float one by a whole AUROC.
    with pytest.raises(BundleError, match="of AUROC on validation"):
        make_int8(
            tmp_path / "model.onnx", manifest, data, bundle.golden, bundle.card.calibration, max_loss=-1
        )
