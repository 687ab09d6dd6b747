"""What traffic says about a new bundle: counters of the endpoint's ``/metrics``, and a pure judgement over them.

``/metrics`` is of one replica, whichever the gateway picks; it is read again and again, and kept by replica. With many
replicas that is a sample. Errors and latency are those of all requests while the step holds: the endpoint does not tell
them by bundle.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final

from pydantic import Field

from sentinode.config import Frozen

_LINE: Final = re.compile(r"(sentinode_\w+)\{([^}]*)\} ([0-9.eE+-]+|NaN|\+Inf)")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_PREDICT: Final = "/v1/predict"
Key = tuple[str, tuple[tuple[str, str], ...]]


class Limits(Frozen):
    """From where on a rollout is taken back."""

    error_share: float = Field(default=0.02, ge=0.0, le=1.0)
    """Largest share of requests that the endpoint fails (status 5xx)."""
    p95_s: float = Field(default=2.0, gt=0.0)
    """Largest 95th percentile of a request's time in the replica, in seconds."""
    psi: float = Field(default=0.25, gt=0.0)
    """Largest population stability index of the canary's scores against those of the present bundle."""
    disagreement: float = Field(default=0.2, ge=0.0, le=1.0)
    """Largest share of patches on which the shadow's verdict is another."""
    min_patches: int = Field(default=50, ge=0)
    """Patches of the new bundle without which there is no judgement."""


@dataclass
class Counters:
    """What was counted since the first sample of each replica."""

    _first: dict[str, dict[Key, float]] = field(default_factory=dict)
    _last: dict[str, dict[Key, float]] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Take in a sample in Prometheus text."""
        values: dict[Key, float] = {}
        replica = ""
        for name, labels, value in _LINE.findall(text):
            pairs = dict(_LABEL.findall(labels))
            replica = pairs.get("replica", replica)
            values[name, tuple(sorted(pairs.items()))] = float(value)
        self._first.setdefault(replica, values)
        self._last[replica] = values

    def total(self, name: str, **labels: str) -> float:
        """The growth of all series of this name with these labels; a counter that fell began anew."""
        return sum(self._grown(name, labels).values())

    def buckets(self, name: str, **labels: str) -> list[tuple[float, float]]:
        """Cumulative buckets (upper bound, count) of a histogram, by bound."""
        sums: dict[float, float] = {}
        for series, grown in self._grown(f"{name}_bucket", labels).items():
            bound = float(dict(series)["le"])
            sums[bound] = sums.get(bound, 0.0) + grown
        return sorted(sums.items())

    def _grown(self, name: str, labels: dict[str, str]) -> dict[tuple[tuple[str, str], ...], float]:
        found: dict[tuple[tuple[str, str], ...], float] = {}
        for replica, last in self._last.items():
            first = self._first[replica]
            for (series, pairs), value in last.items():
                if series == name and labels.items() <= dict(pairs).items():
                    before = first.get((series, pairs), 0.0)
                    found[pairs] = found.get(pairs, 0.0) + (value - before if value >= before else value)
        return found


def patches_of(counters: Counters, bundle: str) -> float:
    """Patches that the bundle scored, as canary or as shadow."""
    return counters.total("sentinode_score_count", bundle=bundle) + sum(
        counters.total("sentinode_shadow_patches_total", bundle=bundle, outcome=outcome)
        for outcome in ("agreed", "disagreed")
    )


def judge(counters: Counters, new: str, old: str, limits: Limits) -> str:
    """Why bundle ``new`` must go, in words; empty where it may stay. Pure."""
    requests = counters.total("sentinode_requests_total", path=_PREDICT)
    failed = sum(
        counters.total("sentinode_requests_total", path=_PREDICT, status=str(status))
        for status in range(500, 600)
    )
    if requests and failed / requests > limits.error_share:
        return f"{failed:.0f} of {requests:.0f} requests failed, more than a share of {limits.error_share:g}"
    p95_s = quantile(counters.buckets("sentinode_request_seconds", path=_PREDICT), 0.95)
    if p95_s > limits.p95_s:
        return f"the 95th percentile of a request is above {p95_s:g} s, more than {limits.p95_s:g} s"
    agreed, disagreed = (
        counters.total("sentinode_shadow_patches_total", bundle=new, outcome=outcome)
        for outcome in ("agreed", "disagreed")
    )
    compared = agreed + disagreed
    if compared >= max(1, limits.min_patches) and disagreed / compared > limits.disagreement:
        return f"the shadow's verdict is another on {disagreed:.0f} of {compared:.0f} patches"
    drift = psi(
        counters.buckets("sentinode_score", bundle=old),
        counters.buckets("sentinode_score", bundle=new),
        limits.min_patches,
    )
    if drift > limits.psi:
        return f"the canary's scores have drifted: PSI {drift:.2f}, more than {limits.psi:g}"
    return ""


def quantile(buckets: list[tuple[float, float]], q: float) -> float:
    """The lower bound of the bucket that holds the quantile: what it is at least; 0 where nothing was counted."""
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return 0.0
    below = [bound for bound, count in buckets if count < q * total]
    return below[-1] if below else 0.0


def psi(old: list[tuple[float, float]], new: list[tuple[float, float]], least: int) -> float:
    """Population stability index over cumulative buckets; 0 where either side has fewer than ``least`` values."""
    if not old or not new or min(old[-1][1], new[-1][1]) < max(1, least):
        return 0.0
    pairs = zip(_shares(old), _shares(new), strict=True)
    return sum((n - o) * math.log(n / o) for o, n in pairs)


def _shares(buckets: list[tuple[float, float]]) -> list[float]:
    counts = [high - low for (_, low), (_, high) in zip([(0.0, 0.0), *buckets], buckets, strict=False)]
    total = sum(counts)
    # A bucket without a value would make the logarithm infinite: half a value stands in it.
    return [max(count, 0.5) / total for count in counts]
