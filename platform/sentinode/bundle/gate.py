"""May an alias move? A pure decision over measured facts: every gate says what was found and what was expected.

``bundle/gate_measure.py`` measures, ``commands/promote.py`` acts. Rules, at the level of ``GatePolicy``:

* data: no patch, slide or patient of the candidate's validation split stands in the training split of either bundle's
  data set, as far as keys and names tell; else the comparison is none.
* auroc: on the candidate's validation split the interval of the paired difference (DeLong, over slides where these are
  known) lies above ``-auroc_margin``: better, or not worse by more than the margin (non-inferiority). Without a bundle
  to compare with, the AUROC must exceed 0.5.
* sensitivity: at each bundle's own default operating point, over all tumour patches, the interval of the change lies
  above ``-sensitivity_margin``; and in no slide, centre or lesion size a fall is shown, which it is where the interval
  of the change, widened for the number of strata (Bonferroni), lies below 0. A stratum too small to tell passes, and
  the facts say how wide its interval is.
* calibration: the expected calibration error is at most ``max_ece``, or no larger than well calibrated probabilities
  give by chance on so few patches.
* latency: the median time of a single patch on one thread is within the budget, on the machine that promotes.
* golden: the golden patches are reproduced on that machine.
* licence: of the weights, and of those that training started from: each is on the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sentinode.bundle.gate_facts import (
    CalibrationFacts,
    GateFacts,
    GatePolicy,
    GateResult,
    LatencyFacts,
)
from sentinode.bundle.golden import GOLDEN_TOLERANCE
from sentinode.evaluation.paired_change import PairedChange

OTHER_VALIDATION = (
    "the candidate's epoch and thresholds were chosen on these patches, the present bundle's on others, which favours "
    "the candidate a little"
)


def decide(facts: GateFacts, policy: GatePolicy) -> tuple[GateResult, ...]:
    """The outcome of every gate, in a fixed order. Nothing is measured here."""
    return (
        _data(facts),
        _auroc(facts, policy),
        _sensitivity(facts, policy),
        _calibration(facts.calibration, policy),
        _latency(facts.latency, policy),
        _golden(facts.golden_difference),
        _licence(facts, policy),
    )


def allows(licences: Iterable[str], licence: str) -> bool:
    """Whether an SPDX expression (``A AND B``, ``A OR B``; a comment may follow a comma) is made of ``licences``."""
    known = {name.lower() for name in licences}
    expression = licence.split(",")[0].strip().strip("()")
    parts = re.split(r"\s+AND\s+", expression)
    return all(
        any(choice.strip("() ").lower() in known for choice in re.split(r"\s+OR\s+", part)) for part in parts
    )


def _data(facts: GateFacts) -> GateResult:
    expected = "that the training of neither bundle has seen any of the validation split"
    d = facts.data
    if d is None:
        return GateResult(name="data", passed=False, found="nobody looked", expected=expected)
    bundles = {"candidate": d.candidate, "present bundle": d.current}
    faults = [
        f"training data of the {name} ({seen.dataset}, {seen.manifest_digest[:12]}) hold {seen} of the validation split"
        for name, seen in bundles.items()
        if seen is not None and seen.anything
    ]
    if facts.current is not None and d.current is None:
        faults.append(f"what the present bundle was trained on is not known: {d.unknown}")
    if faults:
        found = f"{'; '.join(faults)}: not comparable"
        return GateResult(name="data", passed=False, found=found, expected=expected)
    others = "" if d.same_validation is not False else f"; {OTHER_VALIDATION}"
    found = f"none of {d.patches} validation patches{others}"
    return GateResult(name="data", passed=True, found=found, expected=expected)


def _auroc(facts: GateFacts, policy: GatePolicy) -> GateResult:
    a = facts.auroc
    if facts.current is None:
        found = f"{a.candidate:.4f}, and no bundle to compare with"
        return GateResult(name="auroc", passed=a.candidate > 0.5, found=found, expected="more than 0.5")
    expected = f"better, or the whole {policy.level:.0%} interval above {-policy.auroc_margin:g}"
    units = {"slide": "slides", "patch": "patches"}[a.unit]
    if a.current is None or a.difference is None or a.low is None or a.high is None:
        found = f"{a.candidate:.4f}, and no interval of the difference: too few {units} of a class"
        return GateResult(name="auroc", passed=False, found=found, expected=expected)
    passed = a.low >= -policy.auroc_margin
    verdict = (
        "better"
        if a.low > 0
        else "not worse"
        if passed
        else "worse"
        if a.high < -policy.auroc_margin
        else "too uncertain to tell"
    )
    found = (
        f"{a.candidate:.4f} against {a.current:.4f}, difference {a.difference:+.4f} "
        f"({a.low:+.4f} to {a.high:+.4f}, DeLong over {units}): {verdict}"
    )
    return GateResult(name="auroc", passed=passed, found=found, expected=expected)


def _sensitivity(facts: GateFacts, policy: GatePolicy) -> GateResult:
    expected = (
        f"over all tumour patches an interval above {-policy.sensitivity_margin:g}, "
        "and a fall shown in no stratum"
    )
    if facts.current is None:
        found = "no bundle to compare with"
        return GateResult(name="sensitivity", passed=True, found=found, expected=expected)
    faults, whole = [], [s for s in facts.sensitivity if s.kind == "all"]
    for stratum in facts.sensitivity:
        change = stratum.found
        if stratum.kind != "all" and change.high < 0:
            faults.append(f"{stratum.kind} {stratum.name} {_change(change)}")
        elif stratum.kind == "all" and change.low < -policy.sensitivity_margin:
            fell = change.high < -policy.sensitivity_margin
            faults.append(f"{_change(change)}{'' if fell else ', too uncertain to tell'}")
    if not whole:
        faults.append("no tumour patch")
    told = [*faults[:5], *([f"and {len(faults) - 5} more strata"] if len(faults) > 5 else [])]
    found = (
        "; ".join(told) or f"{_change(whole[0].found)}, and no fall in {len(facts.sensitivity) - 1} strata"
    )
    return GateResult(name="sensitivity", passed=not faults, found=found, expected=expected)


def _calibration(c: CalibrationFacts, policy: GatePolicy) -> GateResult:
    return GateResult(
        name="calibration",
        passed=c.ece <= max(policy.max_ece, c.ece_by_chance),
        found=f"expected calibration error {c.ece:.4f}",
        expected=f"at most {policy.max_ece:g}, or the {c.ece_by_chance:.4f} that chance gives on these patches",
    )


def _latency(latency: LatencyFacts, policy: GatePolicy) -> GateResult:
    against = "" if latency.current_ms is None else f" (the present bundle {latency.current_ms:.2f} ms)"
    return GateResult(
        name="latency",
        passed=latency.candidate_ms <= policy.latency_budget_ms,
        found=f"{latency.candidate_ms:.2f} ms a patch{against}",
        expected=f"at most {policy.latency_budget_ms:g} ms on one thread of this machine",
    )


def _golden(difference: float) -> GateResult:
    return GateResult(
        name="golden",
        passed=difference <= GOLDEN_TOLERANCE,
        found=f"golden probabilities {difference:.2g} off",
        expected=f"at most {GOLDEN_TOLERANCE:g}",
    )


def _licence(facts: GateFacts, policy: GatePolicy) -> GateResult:
    parts = {"the weights": facts.licence}
    if facts.start_licence is not None:
        parts["the weights it started from"] = facts.start_licence
    refused = [
        f"{what} are under {name or 'no licence'}"
        for what, name in parts.items()
        if not allows(policy.licences, name)
    ]
    return GateResult(
        name="licence",
        passed=not refused,
        found="; ".join(refused) or ", ".join(parts.values()),
        expected=", ".join(policy.licences),
    )


def _change(c: PairedChange) -> str:
    return f"{c.change:+.4f} ({c.low:+.4f} to {c.high:+.4f}) on {c.patches} tumour patches"
