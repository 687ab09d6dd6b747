"""Figures of slides and patients with bootstrap intervals: the units are few, and drawn whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from sentinode.config import Frozen
from sentinode.evaluation.intervals import Statistic, bootstrap, percentile_interval, units_of


class ResamplingConfig(Frozen):
    """How intervals are made."""

    resamples: int = Field(default=2000, ge=100, le=1_000_000)
    """Bootstrap resamples."""
    level: float = Field(default=0.95, gt=0, lt=1)
    """Confidence level."""
    seed: int = Field(default=0, ge=0)
    """Seed of the resamples."""


class Resampled(Frozen):
    """A figure and its percentile interval; None where it cannot be estimated from these slides."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "not estimable"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (no interval)"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def resampled(
    statistic: Statistic, units: Sequence[str | None], config: ResamplingConfig
) -> tuple[Resampled, ...]:
    """The M measures of ``statistic`` with their intervals.

    ``statistic`` takes how often each of the N slides (or patients) counts; ``units`` names what is drawn
    with each of them: its patient where that is known, None for itself alone.
    """
    units_N, n_units = units_of(units)
    values_M = statistic(np.ones(len(units), np.int64))
    replicates_RM = bootstrap(statistic, units_N, n_units, config.resamples, config.seed)
    found = []
    for value, replicates in zip(values_M.tolist(), replicates_RM.T, strict=True):
        low, high = (not math.isnan(value) and percentile_interval(replicates, config.level)) or (None, None)
        found.append(Resampled(value=None if math.isnan(value) else value, low=low, high=high))
    return tuple(found)
