"""What a promotion is decided on, and the decision: frozen records, kept in ``decisions/``."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, Field

from sentinode.bundle.card import Sha256
from sentinode.bundle.registry import Line
from sentinode.config import Frozen, Record
from sentinode.evaluation.paired_change import PairedChange
from sentinode.schema import RESEARCH_USE_ONLY

GateName = Literal["data", "auroc", "sensitivity", "calibration", "latency", "golden", "licence"]


class GatePolicy(Frozen):
    """What a bundle must reach before an alias moves to it."""

    level: float = Field(default=0.95, gt=0, lt=1)
    """Confidence level of the intervals."""
    auroc_margin: float = Field(default=0.01, ge=0, lt=1)
    """AUROC that the candidate may lose to the present bundle at most."""
    sensitivity_margin: float = Field(default=0.02, ge=0, lt=1)
    """Sensitivity over all tumour patches that it may lose at most."""
    max_ece: float = Field(default=0.05, gt=0, le=1)
    """Expected calibration error on validation, at most."""
    latency_budget_ms: float = Field(default=100.0, gt=0)
    """Milliseconds for a single patch on one thread, median, at most."""
    licences: tuple[str, ...] = (
        "Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "CC0-1.0", "CC-BY-4.0", "Unlicense",
    )  # fmt: skip
    """Licences (SPDX) that weights may have."""


class Seen(Frozen):
    """What of the validation split stands in the training split of a bundle's data set."""

    dataset: str
    manifest_digest: Sha256
    patches: int = Field(ge=0)
    """By their keys."""
    examples: tuple[str, ...] = ()
    """Some of the keys."""
    slides: int = Field(default=0, ge=0)
    """By their names, within a data set."""
    patients: int = Field(default=0, ge=0)

    @property
    def anything(self) -> bool:
        return self.patches + self.slides + self.patients > 0

    def __str__(self) -> str:
        counts = {"patches": self.patches, "slides": self.slides, "patients": self.patients}
        return " and ".join(f"{count} {name}" for name, count in counts.items() if count)


class DataFacts(Frozen):
    """Whether both bundles can be compared on the candidate's validation split."""

    patches: int
    """Of the split, labelled or not."""
    candidate: Seen
    current: Seen | None = None
    """None without a present bundle, or where it is not known."""
    unknown: str = ""
    """Why it is not known what the present bundle's training has seen."""
    same_validation: bool | None = None
    """Whether the present bundle's epoch, thresholds and calibration were chosen on the same patches."""


class AurocFacts(Frozen):
    """AUROC on validation, and the candidate's minus the current one's; None where not estimable or not compared."""

    candidate: float
    current: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    unit: Literal["slide", "patch"]


class StratumChange(Frozen):
    """The change of sensitivity in one stratum; of kind ``all`` over all tumour patches."""

    kind: Literal["all", "slide", "centre", "lesion size"]
    name: str
    found: PairedChange


class CalibrationFacts(Frozen):
    """Expected calibration error of the candidate on validation."""

    ece: float
    ece_by_chance: float
    """The ``level`` quantile of the error where labels are drawn from the probabilities: good calibration's own."""
    bins: int


class LatencyFacts(Frozen):
    """Median time of a single patch on one thread, of both bundles in turns."""

    candidate_ms: float
    current_ms: float | None = None
    runs: int
    runtime: str


class GateFacts(Frozen):
    """All that was measured of a candidate, and of the bundle that the alias names, for one decision."""

    alias: str
    candidate: Sha256
    current: Sha256 | None
    """None where the alias was not set."""
    manifest_digest: Sha256
    """Of the data set on whose validation split both were scored."""
    patches: int
    positives: int
    data: DataFacts | None = None
    """None in records of former versions, which did not look."""
    auroc: AurocFacts
    sensitivity: tuple[StratumChange, ...] = ()
    """Empty without a bundle to compare with."""
    calibration: CalibrationFacts
    latency: LatencyFacts
    golden_difference: float
    """The largest difference of a golden probability on this machine."""
    licence: str
    start_licence: str | None
    """Of the weights that training started from; None for random ones."""
    cautions: tuple[str, ...] = ()
    """What a reader of the comparison should know, as sentences."""


class GateResult(Frozen):
    """One gate: what was found against what was expected."""

    name: GateName
    passed: bool
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.name}: found {self.found}; expected {self.expected}"


class Decision(Record):
    """``decisions/<sha256>.json``: written before the alias moves, or when it was refused to."""

    facts: GateFacts
    policy: GatePolicy
    gates: tuple[GateResult, ...]
    passed: bool
    """Whether all gates passed."""
    forced: Line | None = None
    """The reason for which failed gates were overruled; None where they were not."""
    decided_at: AwareDatetime
    notice: str = RESEARCH_USE_ONLY

    @property
    def failed(self) -> tuple[GateResult, ...]:
        """The gates that failed."""
        return tuple(gate for gate in self.gates if not gate.passed)
