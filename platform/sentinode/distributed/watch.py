"""What the driver tells of a run whose ranks work elsewhere: all it knows is what they leave in the store."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from pydantic import ValidationError

from sentinode.config import Frozen
from sentinode.distributed.lost_workers import LOST_KEY, LostRecord
from sentinode.distributed.repeating import repeating
from sentinode.errors import StoreError
from sentinode.storage import Store
from sentinode.training.checkpoint import load_history
from sentinode.training.keeper import PROGRESS_KEY
from sentinode.training.metrics import EpochRecord, ProgressRecord

WATCH_S = 1.0

T = TypeVar("T", bound=Frozen)

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
    """Tell ``onlooker`` of what the run in ``store`` does within the ``with``; of former epochs nothing.

    Workers that are lost are told to the log.
    """
    told = len(load_history(store))
    # What a killed process left there is no progress of this one: it would spoil the time to go.
    seen = _read(store, PROGRESS_KEY, ProgressRecord)
    lost = _read(store, LOST_KEY, LostRecord)

    def tell_epochs() -> None:
        nonlocal told
        for record in load_history(store)[told:]:
            onlooker.epoch(record)
            told += 1

    def tell_progress() -> None:
        nonlocal seen
        record = _read(store, PROGRESS_KEY, ProgressRecord)
        if record is not None and record != seen and record.epoch == told + 1:
            seen = record
            onlooker.progress(record)

    def tell_lost() -> None:
        nonlocal lost
        record = _read(store, LOST_KEY, LostRecord)
        if record is not None and record != lost:
            lost = record
            log.warning(
                "lost the worker of rank %s (%s); all go on from the last checkpoint as soon as they can",
                ", ".join(map(str, record.ranks)),
                record.reason,
            )

    def follow() -> None:
        try:
            tell_epochs()
            tell_progress()
            tell_lost()
        except (StoreError, ValidationError) as error:
            log.debug("progress is not known for now: %s", error)

    with repeating(follow, WATCH_S, "watch-run"):
        yield
    tell_epochs()


def _read(store: Store, key: str, kind: type[T]) -> T | None:
    """What the run left last, None where it left nothing that can be read."""
    try:
        if store.stat(key) is None:
            return None
        return kind.model_validate_json(store.get(key))
    except (StoreError, ValidationError) as error:
        log.debug("%s is not known for now: %s", key, error)
        return None
