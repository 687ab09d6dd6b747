"""Workers that a run lost: Ray Train's controller, somewhere on the cluster, sees them go; the driver tells of it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from ray.train import UserCallback

from sentinode.config import Record
from sentinode.errors import SentinodeError
from sentinode.storage import open_store

LOST_KEY = "lost-workers.json"
LONGEST_REASON = 300

log = logging.getLogger(__name__)


class LostRecord(Record):
    """``lost-workers.json``: when a run last lost workers, for whoever looks on."""

    time: datetime
    """UTC."""
    ranks: tuple[int, ...]
    reason: str
    """The first rank's, in Ray's words; one line."""


class NotesLostWorkers(UserCallback):  # type: ignore[misc]
    """Leaves a LostRecord in the store of ``run``."""

    def __init__(self, run: str) -> None:
        self._run = run

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Ray calls it before it decides whether to start them anew."""
        ranks = tuple(sorted(worker_exceptions))
        reason = " ".join(str(worker_exceptions[ranks[0]]).split())[:LONGEST_REASON]
        record = LostRecord(time=datetime.now(UTC), ranks=ranks, reason=reason)
        try:
            open_store(self._run).put(LOST_KEY, record.canonical_json())
        except SentinodeError as error:
            # Whether the run goes on does not depend on it.
            log.warning("lost workers %s are not on record: %s", ranks, error)
