"""How much one caller may ask of one replica: a token bucket for the rate, a counter for what is under way."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from sentinode.serving.keys import RateLimits

_CONCURRENCY_RETRY_S: Final = 0.1


class Allowance:
    """The limits of one caller, and what is left of them. Used from one event loop; times are monotonic seconds."""

    __slots__ = ("_at_s", "_limits", "_tokens", "_under_way")

    def __init__(self, limits: RateLimits, now_s: float) -> None:
        self._limits = limits
        self._tokens = float(limits.burst)
        self._at_s = now_s
        self._under_way = 0

    def enter(self, now_s: float) -> float:
        """0.0: admitted, and ``leave`` must follow. Else the seconds after which to ask again."""
        limits = self._limits
        tokens = min(limits.burst, self._tokens + (now_s - self._at_s) * limits.requests_per_s)
        self._at_s = now_s
        self._tokens = tokens
        if self._under_way >= limits.concurrent:
            return _CONCURRENCY_RETRY_S
        if tokens < 1.0:
            return (1.0 - tokens) / limits.requests_per_s
        self._tokens = tokens - 1.0
        self._under_way += 1
        return 0.0

    def leave(self) -> None:
        """A request that was admitted is over."""
        self._under_way -= 1

    def undo(self) -> None:
        """A request that was admitted shall count as never asked."""
        self._under_way -= 1
        self._tokens += 1.0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._under_way == 0


class Throttle:
    """The allowances of all callers; at most ``most_callers`` are remembered, the idle ones forgotten first.

    Keys are few, but the subjects of tokens are not ours to count: memory must not grow with them.
    """

    def __init__(self, most_callers: int = 10_000) -> None:
        self._most = most_callers
        self._allowances: OrderedDict[str, Allowance] = OrderedDict()

    def of(self, caller: str, limits: RateLimits, now_s: float) -> Allowance:
        """The allowance of ``caller``."""
        allowance = self._allowances.get(caller)
        if allowance is None:
            allowance = self._allowances[caller] = Allowance(limits, now_s)
            self._forget()
        return allowance

    def __len__(self) -> int:
        return len(self._allowances)

    def _forget(self) -> None:
        while len(self._allowances) > self._most:
            oldest, allowance = self._allowances.popitem(last=False)
            if not allowance.is_idle:
                # One that works stays, whatever its age; a round of busy ones ends the search.
                self._allowances[oldest] = allowance
                if all(not one.is_idle for one in self._allowances.values()):
                    return
