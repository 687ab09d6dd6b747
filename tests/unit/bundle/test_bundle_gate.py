"""The gate as a table: measured facts in, passed and failed gates out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sentinode.bundle.gate import allows, decide
from sentinode.bundle.gate_facts import (
    AurocFacts,
    CalibrationFacts,
    DataFacts,
    GateFacts,
    GatePolicy,
    LatencyFacts,
    Seen,
    StratumChange,
)
from sentinode.evaluation.paired_change import PairedChange

POLICY = GatePolicy()
GOOD_AUROC = AurocFacts(candidate=0.95, current=0.94, difference=0.01, low=-0.002, high=0.022, unit="slide")


def change(low: float, high: float, patches: int = 500) -> PairedChange:
    """A change of sensitivity with this interval."""
    return PairedChange(
        patches=patches, slides=4, gained=1, lost=1, change=(low + high) / 2, low=low, high=high
    )


def stratum(kind: str, name: str, low: float, high: float) -> StratumChange:
    return StratumChange.model_validate({"kind": kind, "name": name, "found": change(low, high)})


def seen(patches: int = 0, slides: int = 0) -> Seen:
    return Seen(dataset="other", manifest_digest="d" * 64, patches=patches, slides=slides)


def data(**changes: Any) -> DataFacts:
    """A validation split that no training has seen; ``changes`` replace fields."""
    fields = {"patches": 1000, "candidate": seen(), "current": seen(), "same_validation": True}
    return DataFacts.model_validate(fields | changes)


def facts(**changes: Any) -> GateFacts:
    """Facts with which every gate passes; ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "alias": "production",
        "candidate": "a" * 64,
        "current": "b" * 64,
        "manifest_digest": "c" * 64,
        "patches": 1000,
        "positives": 500,
        "data": data(),
        "auroc": GOOD_AUROC,
        "sensitivity": (
            stratum("all", "", -0.01, 0.01),
            stratum("slide", "s1", -0.2, 0.1),
            stratum("centre", "c1", -0.05, 0.02),
        ),
        "calibration": CalibrationFacts(ece=0.01, ece_by_chance=0.02, bins=15),
        "latency": LatencyFacts(candidate_ms=2, current_ms=1, runs=30, runtime="CPU"),
        "golden_difference": 1e-7,
        "licence": "Apache-2.0",
        "start_licence": None,
    }
    return GateFacts.model_validate(fields | changes)


def auroc(low: float | None, high: float | None, difference: float | None = 0.0) -> AurocFacts:
    return GOOD_AUROC.model_copy(update={"low": low, "high": high, "difference": difference})


def latency(candidate_ms: float) -> LatencyFacts:
    return LatencyFacts(candidate_ms=candidate_ms, runs=30, runtime="CPU")


def calibrated(ece: float, by_chance: float) -> CalibrationFacts:
    return CalibrationFacts(ece=ece, ece_by_chance=by_chance, bins=15)


FIRST = data(current=None, same_validation=None)
WHOLE = stratum("all", "", -0.01, 0.01)
CASES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("everything is fine", {}, set()),
    ("nobody looked at the data", {"data": None}, {"data"}),
    ("the candidate has seen a patch", {"data": data(candidate=seen(1))}, {"data"}),
    ("the candidate has seen a slide", {"data": data(candidate=seen(slides=1))}, {"data"}),
    ("the present bundle has seen a patch", {"data": data(current=seen(1))}, {"data"}),
    ("what the present bundle has seen is not known", {"data": data(current=None, unknown="no run")}, {"data"}),
    ("the present bundle was validated on others", {"data": data(same_validation=False)}, set()),
    ("better", {"auroc": auroc(0.001, 0.02)}, set()),
    ("not worse, by the margin exactly", {"auroc": auroc(-0.01, 0.0)}, set()),
    ("worse by more than the margin", {"auroc": auroc(-0.03, -0.02)}, {"auroc"}),
    ("too uncertain to tell", {"auroc": auroc(-0.03, 0.03)}, {"auroc"}),
    ("no interval", {"auroc": auroc(None, None)}, {"auroc"}),
    ("equal scores", {"auroc": auroc(0.0, 0.0)}, set()),
    ("sensitivity falls overall", {"sensitivity": (stratum("all", "", -0.06, -0.03),)}, {"sensitivity"}),
    ("sensitivity may fall overall", {"sensitivity": (stratum("all", "", -0.06, 0.03),)}, {"sensitivity"}),
    ("a fall in a slide", {"sensitivity": (WHOLE, stratum("slide", "s", -0.2, -0.01))}, {"sensitivity"}),
    ("a fall in a centre", {"sensitivity": (WHOLE, stratum("centre", "2", -0.2, -0.01))}, {"sensitivity"}),
    ("a fall that is not shown", {"sensitivity": (WHOLE, stratum("slide", "s", -0.5, 0.0))}, set()),
    ("no tumour patch", {"sensitivity": ()}, {"sensitivity"}),
    ("badly calibrated", {"calibration": calibrated(0.09, 0.02)}, {"calibration"}),
    ("as badly as chance on few patches", {"calibration": calibrated(0.09, 0.1)}, set()),
    ("slow", {"latency": latency(100.1)}, {"latency"}),
    ("just fast enough", {"latency": latency(100.0)}, set()),
    ("golden patches differ", {"golden_difference": 2e-5}, {"golden"}),
    ("golden patches are NaN", {"golden_difference": float("inf")}, {"golden"}),
    ("licence", {"licence": "CC-BY-NC-4.0"}, {"licence"}),
    ("licence of what it started from", {"start_licence": "unknown"}, {"licence"}),
    ("no bundle before",
     {"current": None, "data": FIRST, "auroc": AurocFacts(candidate=0.7, unit="patch"), "sensitivity": ()}, set()),
    ("no bundle before, and no better than chance",
     {"current": None, "auroc": AurocFacts(candidate=0.5, unit="patch"), "sensitivity": ()}, {"auroc"}),
    ("everything at once",
     {"auroc": auroc(-1, 1), "sensitivity": (), "calibration": calibrated(1, 0), "latency": latency(1e6),
      "golden_difference": 1.0, "licence": ""},
     {"auroc", "sensitivity", "calibration", "latency", "golden", "licence"}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "failed"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_gate_fails_for_its_own_reason(changes: dict[str, Any], failed: set[str]) -> None:
    # JSON has no infinity, a table of facts may.
    changed = {k: v for k, v in changes.items() if v != float("inf")}
    found = facts(**changed)
    if len(changed) < len(changes):
        found = found.model_copy(update={"golden_difference": float("inf")})
    results = decide(found, POLICY)
    assert [r.name for r in results] == [
        "data",
        "auroc",
        "sensitivity",
        "calibration",
        "latency",
        "golden",
        "licence",
    ]
    assert {r.name for r in results if not r.passed} == failed
    assert all(r.found and r.expected for r in results)


def test_a_failed_gate_names_what_it_found() -> None:
    many = tuple(stratum("slide", f"s{i}", -0.2, -0.01) for i in range(8))
    found = {
        r.name: str(r)
        for r in decide(facts(auroc=auroc(-0.03, -0.02, -0.025), sensitivity=(WHOLE, *many)), POLICY)
    }
    assert (
        "0.9500 against 0.9400, difference -0.0250 (-0.0300 to -0.0200, DeLong over slides): worse"
        in found["auroc"]
    )
    assert "expected better, or the whole 95% interval above -0.01" in found["auroc"]
    assert "slide s0 -0.1050" in found["sensitivity"]
    assert "and 3 more strata" in found["sensitivity"]


def test_facts_survive_json_and_decide_alike() -> None:
    again = GateFacts.model_validate_json(facts().canonical_json())
    assert decide(again, POLICY) == decide(facts(), POLICY)


def test_policies_decide_otherwise() -> None:
    strict = GatePolicy(auroc_margin=0.0, latency_budget_ms=1, licences=("MIT",))
    failed = {r.name for r in decide(facts(), strict) if not r.passed}
    assert failed == {"auroc", "latency", "licence"}


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("Apache-2.0", True),
        ("apache-2.0", True),
        ("Apache-2.0, trained on CC0 data", True),
        ("MIT AND Apache-2.0", True),
        ("MIT AND CC-BY-NC-4.0", False),
        ("(MIT OR GPL-3.0-only)", True),
        ("GPL-3.0-only", False),
        ("unknown", False),
        ("", False),
        ("Apache-2.0 but only on Sundays", False),
    ],
)
def test_licences(licence: str, allowed: bool) -> None:
    assert allows(POLICY.licences, licence) is allowed


def test_intervals_never_hide_a_fall_behind_another_stratum() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        lows = rng.uniform(-0.3, 0.1, 6)
        highs = lows + rng.uniform(0, 0.3, 6)
        strata = tuple(
            stratum("slide", str(i), low, high) for i, (low, high) in enumerate(zip(lows, highs, strict=True))
        )
        gates = {gate.name: gate for gate in decide(facts(sensitivity=(WHOLE, *strata)), POLICY)}
        passed = gates["sensitivity"].passed
        assert passed is not bool((highs < 0).any())
