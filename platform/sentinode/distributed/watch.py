"""What the driver tells of a run whose ranks work elsewhere: all it knows is what they leave in the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pydantic import ValidationError

from sentinode.distributed.repeating import repeating
from sentinode.errors import StoreError
from sentinode.storage import Store
from sentinode.training.checkpoint import load_history
from sentinode.training.keeper import PROGRESS_KEY
from sentinode.training.metrics import EpochRecord, ProgressRecord

WATCH_S = 1.0

log = logging.getLogger(__name__)


class Onlooker(Protocol):
    """Is told how a run goes on, from a thread of the driver."""

    def epoch(self, record: EpochRecord) -> None:
        """An epoch has been finished. Called once for each."""
        ...

    def progress(self, record: ProgressRecord) -> None:
        """Some steps have been done."""
        ...


class NoOnlooker:
    """For those who do not care."""

    def epoch(self, record: EpochRecord) -> None:
        pass

    def progress(self, record: ProgressRecord) -> None:
        pass


@contextmanager
def watched(store: Store, onlooker: Onlooker) -> Iterator[None]:
    """Tell ``onlooker`` of what the run in ``store`` does within the ``with``; of former epochs nothing."""
    told = len(load_history(store))
    # What a killed process left there is no progress of this one: it would spoil the time to go.
    seen = _progress(store)

    def tell_epochs() -> None:
        nonlocal told
        for record in load_history(store)[told:]:
            onlooker.epoch(record)
            told += 1

    def tell_progress() -> None:
        nonlocal seen
        record = _progress(store)
        if record is not None and record != seen and record.epoch == told + 1:
            seen = record
            onlooker.progress(record)

    def follow() -> None:
        try:
            tell_epochs()
            tell_progress()
        except (StoreError, ValidationError) as error:
            log.debug("progress is not known for now: %s", error)

    with repeating(follow, WATCH_S, "watch-run"):
        yield
    tell_epochs()


def _progress(store: Store) -> ProgressRecord | None:
    """What the run left last, None where it left nothing that can be read."""
    try:
        if store.stat(PROGRESS_KEY) is None:
            return None
        return ProgressRecord.model_validate_json(store.get(PROGRESS_KEY))
    except (StoreError, ValidationError) as error:
        log.debug("progress is not known for now: %s", error)
        return None
