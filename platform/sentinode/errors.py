"""Typed errors: each says what was found, what was expected and what to do.

They cross process borders (Ray), so they survive pickling: all state is in ``args``.
"""

from __future__ import annotations

from collections.abc import Sequence


def first_of(names: Sequence[str], show: int = 5) -> str:
    """``a, b, c and 5 more``, to name in a message what may be many."""
    more = f" and {len(names) - show} more" if len(names) > show else ""
    return f"{', '.join(names[:show])}{more}"


class SentinodeError(Exception):
    """Base of every error that a user can cause or mend.

    ``found`` is a plain sentence part, e.g. ``"train/ab.tif is 95x96 pixels"``; ``expected`` and ``remedy``
    likewise, without a final full stop.
    """

    exit_code = 1
    everywhere = False
    """Whether all processes that work together have been told of it, so that none waits for this one."""

    def __init__(self, found: str, expected: str = "", remedy: str = "") -> None:
        super().__init__(found, expected, remedy)
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        parts = [self.found]
        if self.expected:
            parts.append(f"expected: {self.expected}")
        if self.remedy:
            parts.append(f"what to do: {self.remedy}")
        return "\n  ".join(parts)


class ConfigError(SentinodeError):
    """A flag, setting or combination of settings that cannot be used."""

    exit_code = 2


class MissingDependencyError(SentinodeError):
    """An optional package, program or service is not installed."""

    exit_code = 2


class SourceError(SentinodeError):
    """A source folder or one of its files is not what a known layout promises."""


class BadImagesError(SourceError):
    """More unreadable, corrupt or wrongly sized images than ``--max-bad`` allows."""


class LabelConflictError(SourceError):
    """The same pixels carry two labels."""


class StoreError(SentinodeError):
    """An object store answered with an error, or not at all, after bounded retries."""


class ObjectNotFoundError(StoreError):
    """The store answers, and the object is not there."""


class StoreAccessError(StoreError):
    """The store refuses the credentials, or they have expired."""


class PreconditionFailedError(StoreError):
    """A conditional put lost: the object exists or was changed by somebody else."""


class IntegrityError(StoreError):
    """Bytes differ from what a manifest or a checksum promises."""


class ManifestError(SentinodeError):
    """A manifest or another persisted record cannot be read or contradicts itself."""


class LeakError(SentinodeError):
    """The same patch, slide or patient stands on both sides of a split."""


class TrainingError(SentinodeError):
    """Training cannot go on (a loss that is not finite, a checkpoint that does not fit, ...)."""


class RunTakenOverError(SentinodeError):
    """Another process trains the run by now, and this one may write no more of it."""


class EvaluationError(SentinodeError):
    """Predictions or labels from which the asked measure cannot be computed."""


class BundleError(SentinodeError):
    """A bundle is damaged, incomplete or made by another version."""


class PromotionError(SentinodeError):
    """A bundle does not pass the gates of an alias; ``found`` names each of them."""


class RequestError(SentinodeError):
    """A request to the endpoint that cannot be answered; ``status`` is the HTTP status (4xx)."""

    def __init__(self, found: str, expected: str = "", remedy: str = "", status: int = 400) -> None:
        super().__init__(found, expected, remedy)
        self.args = (found, expected, remedy, status)
        self.status = status


class BusyError(RequestError):
    """The endpoint has as much to do as it can: ask again later. ``status`` is 503."""

    def __init__(self, found: str, expected: str = "", remedy: str = "", status: int = 503) -> None:
        super().__init__(found, expected, remedy, status)


class ClusterError(SentinodeError):
    """A cluster cannot be reached, refuses, or holds something else than was expected."""


class ClusterConflictError(ClusterError):
    """Somebody else changed the object meanwhile."""


class RolloutError(SentinodeError):
    """A rollout did not do what was asked; its words say in what state it left the service."""


class RolloutBusyError(RolloutError):
    """Another rollout holds the service."""
