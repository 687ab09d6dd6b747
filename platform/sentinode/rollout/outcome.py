"""How a rollout may end otherwise than kept."""

from __future__ import annotations

from typing import Final

from sentinode.errors import RolloutError

OVERTAKEN: Final = (
    "see what they did; `sentinode rollout abort --force REASON` restores what was before the rollout, "
    "`sentinode rollout forget --force REASON` ends it and leaves all as it is now"
)
"""What may be done where somebody else changed the RayService."""

UNRESTORED: Final = (
    "see `kubectl describe rayservice` and `failure` of GET /v1/models, and mend what they name; a replica that "
    "refused what was before looks again when its pod starts anew (docs/runbook.md); then `sentinode rollout abort`"
)
"""What may be done where what was before does not answer."""


class StepFailedError(RolloutError):
    """A step was not proved."""


class GoldenDiffersError(StepFailedError):
    """The bundle answers, and not with the probabilities that it promises."""


class RolledBackError(RolloutError):
    """The rollout failed, and what was before serves again."""


class UnrestoredError(RolloutError):
    """The rollout failed, and what was before does not serve."""


class OvertakenError(RolloutError):
    """The RayService is no longer as the rollout left it."""
