"""The settings of trust: a part of ServeArgs."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sentinode.config import Frozen
from sentinode.serving.quality import QualityLimits


class TrustArgs(Frozen):
    """What is checked, and what is kept of it."""

    quality: QualityLimits = QualityLimits()
    audit_log: Path | None = None
    """File that gets a JSON line a request, each replica its own: ``{replica}`` in the name stands for its id."""
    body_timeout_s: float = Field(default=10.0, gt=0)
    """A body that is not there after this long is refused with 408."""
    explanations_waiting: int = Field(default=8, ge=0)
    """Explanations that may wait for the one being made; more are refused with 503."""
    viewer_folder: Path | None = None
    """The page's files; by default serve/viewer of the checkout, and no page where there is none."""
