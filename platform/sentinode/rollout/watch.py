"""A step under traffic: its evidence gathered until it suffices, or speaks against it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sentinode.rollout.decide import Patience
from sentinode.rollout.evidence import Counters, Limits, judge, patches_of
from sentinode.rollout.gateway import Gateway, GatewayError
from sentinode.rollout.outcome import StepFailedError
from sentinode.rollout.plan import Pace
from sentinode.rollout.record import Step

log = logging.getLogger(__name__)
_SCRAPE_S: Final = 1.0
_SILENT_SCRAPES: Final = 10
_SAID_EVERY_S: Final = 60.0


@dataclass(frozen=True)
class Settings:
    """How a rollout is carried out."""

    pace: Pace
    patience: Patience
    limits: Limits
    by: str
    lease_s: int = 30
    evidence_s: float = 1800.0
    """How long a held step waits for ``limits.min_patches``."""


def watch(step: Step, old: str, gateway: Gateway, settings: Settings, check: Callable[[], object]) -> None:
    """Return when the step was held long enough, with enough patches, within all limits.

    ``check`` is called before each look. Raises StepFailedError where the evidence is bad or too little or a replica
    refuses the step, GatewayError where the endpoint is silent.
    """
    limits, counters, started_s, silent = settings.limits, Counters(), time.monotonic(), 0
    said_s = 0.0
    while True:
        check()
        try:
            counters.add(gateway.metrics())
            silent = 0
        except GatewayError:
            silent += 1
            if silent > _SILENT_SCRAPES:
                raise
        refused = gateway.refusal()
        if refused:
            raise StepFailedError(f"{step.name}: the endpoint keeps its former traffic: {refused}")
        bad = judge(counters, step.bundle, old, limits)
        if bad:
            raise StepFailedError(f"{step.name}: {bad}")
        held_s, patches = time.monotonic() - started_s, patches_of(counters, step.bundle)
        if held_s >= step.hold_s and patches >= limits.min_patches:
            log.info("%s: %.0f patches in %.0f s, within all limits", step.name, patches, held_s)
            return
        if held_s >= said_s + _SAID_EVERY_S:
            said_s = held_s
            log.info(
                "%s: %.0f of %d patches in %.0f of %.0f s",
                step.name,
                patches,
                limits.min_patches,
                held_s,
                step.hold_s,
            )
        if held_s > step.hold_s + settings.evidence_s:
            raise StepFailedError(
                f"{step.name}: {patches:.0f} patches in {held_s:.0f} s are too few to judge by"
            )
        time.sleep(_SCRAPE_S)
