"""What a rollout remembers, in annotations of the RayService: each write changes specification and memory in one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from sentinode.config import Frozen, Record
from sentinode.errors import ConfigError, ManifestError
from sentinode.rollout.cluster import Object

RECORD: Final = "sentinode.dev/rollout"
HISTORY: Final = "sentinode.dev/rollout-history"
KEPT: Final = 20
"""Entries of the history; older ones are dropped."""

Line = Annotated[str, StringConstraints(max_length=2000)]
Part = Literal["default", "candidate"]
Outcome = Literal["kept", "rolled back", "given up"]


class Wish(Frozen):
    """What is to be rolled out."""

    bundle: str | None = None
    """Digest."""
    image: str | None = None
    """By digest."""


class Step(Frozen):
    """One change of the specification, and how it is proved."""

    name: str
    config: str
    """``serveConfigV2``."""
    images: tuple[str, ...]
    new_cluster: bool = False
    golden: Part | None = None
    """Which model must reproduce the golden patches of ``bundle``."""
    bundle: str = ""
    hold_s: float = 0.0
    """How long its traffic is watched."""


class RolloutRecord(Record):
    """A rollout under way."""

    id: str
    by: Line
    started_at: AwareDatetime
    wish: Wish
    before: Step
    """What is restored when it fails."""
    steps: tuple[Step, ...] = Field(min_length=1)
    step: int = 0
    """The one that is in the specification now."""
    leaves: str | None = None
    """The RayCluster that this step replaces."""
    restoring: bool = False
    reason: Line = ""

    @property
    def current(self) -> Step:
        """What is in the specification now."""
        return self.before if self.restoring else self.steps[self.step]


class Finished(Frozen):
    """An entry of the history."""

    id: str
    by: Line
    started_at: AwareDatetime
    ended_at: AwareDatetime
    wish: Wish
    outcome: Outcome
    reason: Line


def record_of(service: Object) -> RolloutRecord | None:
    """The rollout under way; None where there is none. Raises ManifestError where it cannot be read."""
    text = _annotations(service).get(RECORD)
    return RolloutRecord.from_json(text.encode(), f"the annotation {RECORD}") if text else None


def under_way(service: Object) -> RolloutRecord:
    """The rollout under way. Raises ConfigError where there is none."""
    record = record_of(service)
    if record is None:
        raise ConfigError(f"no rollout of {service['metadata']['name']} is under way")
    return record


def history_of(service: Object) -> tuple[Finished, ...]:
    """Past rollouts, the newest first. Raises ManifestError where they cannot be read."""
    text = _annotations(service).get(HISTORY, "[]")
    try:
        return tuple(Finished.model_validate(entry) for entry in json.loads(text))
    except (ValueError, TypeError) as error:
        raise ManifestError(
            f"the annotation {HISTORY} cannot be read", "a list of rollouts", "remove it"
        ) from error


def write_record(service: Object, record: RolloutRecord) -> None:
    """Into ``service``, which is changed."""
    service["metadata"].setdefault("annotations", {})[RECORD] = record.canonical_json().decode()


def finish(service: Object, record: RolloutRecord, outcome: Outcome) -> None:
    """From record to history, in ``service``, which is changed."""
    entry = Finished(
        id=record.id,
        by=record.by,
        started_at=record.started_at,
        ended_at=datetime.now(UTC),
        wish=record.wish,
        outcome=outcome,
        reason=record.reason,
    )
    annotations = service["metadata"].setdefault("annotations", {})
    annotations.pop(RECORD, None)
    kept = (entry, *history_of(service))[:KEPT]
    annotations[HISTORY] = json.dumps([json.loads(e.canonical_json()) for e in kept], separators=(",", ":"))


def _annotations(service: Object) -> dict[str, str]:
    found: dict[str, str] = service["metadata"].get("annotations") or {}
    return found
