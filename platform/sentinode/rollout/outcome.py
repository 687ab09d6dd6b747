"""How a rollout may end otherwise than kept."""

from __future__ import annotations

from sentinode.errors import RolloutError


class StepFailedError(RolloutError):
    """A step was not proved."""


class RolledBackError(RolloutError):
    """The rollout failed, and what was before serves again."""


class UnrestoredError(RolloutError):
    """The rollout failed, and what was before does not serve."""


class OvertakenError(RolloutError):
    """The RayService is no longer as the rollout left it."""
