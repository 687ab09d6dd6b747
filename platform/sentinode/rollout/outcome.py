"""How a rollout may end otherwise than kept."""

from __future__ import annotations

from typing import Final

from sentinode.errors import RolloutError

OVERTAKEN: Final = (
    "see what they did; `sentinode rollout abort --force REASON` restores what was before the rollout, "
    "`sentinode rollout forget --force REASON` ends it and leaves all as it is now"
)
"""What may be done where somebody else changed the RayService."""


class StepFailedError(RolloutError):
    """A step was not proved."""


class RolledBackError(RolloutError):
    """The rollout failed, and what was before serves again."""


class UnrestoredError(RolloutError):
    """The rollout failed, and what was before does not serve."""


class OvertakenError(RolloutError):
    """The RayService is no longer as the rollout left it."""
