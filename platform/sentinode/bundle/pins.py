"""Promotion and collection at once: who uses a bundle pins it, who removes it marks it, and each looks after writing.

A user writes its pin and then looks for a mark; a collector writes its mark and then looks for pins and aliases. In a
store that shows every write to all later reads (S3, Ceph, a folder) at least one of the two sees the other, so a bundle
is never removed under an alias that is just being moved to it. Nothing is locked, and nobody waits.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import uuid4

from pydantic import AwareDatetime

from sentinode.config import Record
from sentinode.errors import BundleError, ObjectNotFoundError, PreconditionFailedError
from sentinode.storage import Store

HOLD: Final = timedelta(days=1)
"""Pins and marks of processes that were killed count for so long. No seal or move takes a day."""


class Hold(Record):
    """``pins/<digest>/<random>.json`` and ``collecting/<digest>.json``."""

    until: AwareDatetime


@contextmanager
def pinned(store: Store, digest: str) -> Iterator[None]:
    """Within the block no collector removes bundle ``digest``.

    Raises BundleError where one is just removing it.
    """
    key = f"pins/{digest}/{uuid4().hex}.json"
    store.put(key, _hold(), if_none_match=True)
    try:
        if _holds(store, _mark_key(digest), datetime.now(UTC)):
            raise BundleError(
                f"bundle {digest} is being removed from {store.url}",
                "a bundle that nobody removes",
                "let `sentinode bundles gc` end, then promote the run again, which seals it anew",
            )
        yield
    finally:
        store.delete(key)


def is_pinned(store: Store, digest: str, now: datetime) -> bool:
    """Whether somebody is sealing bundle ``digest`` or moving an alias to it."""
    return any(_holds(store, info.key, now) for info in list(store.list(f"pins/{digest}/")))


def mark(store: Store, digest: str, now: datetime) -> bool:
    """Announce the removal of ``digest``; False where another collector is at it."""
    try:
        store.put(_mark_key(digest), _hold(), if_none_match=True)
    except PreconditionFailedError:
        if _holds(store, _mark_key(digest), now):
            return False
        store.put(_mark_key(digest), _hold())
    return True


def unmark(store: Store, digest: str) -> None:
    """The removal of ``digest`` is over, or off."""
    store.delete(_mark_key(digest))


def forget_marks(store: Store, listed: Container[str], now: datetime) -> None:
    """Delete the marks that killed collectors left of bundles which are no more; ``listed`` are those that are.

    Only these: another collector may just be taking over the mark of one that is.
    """
    for info in list(store.list("collecting/")):
        digest = info.key.removeprefix("collecting/").removesuffix(".json")
        if digest not in listed and not _holds(store, info.key, now):
            store.delete(info.key)


def _mark_key(digest: str) -> str:
    return f"collecting/{digest}.json"


def _hold() -> bytes:
    return Hold(until=datetime.now(UTC) + HOLD).to_json()


def _holds(store: Store, key: str, now: datetime) -> bool:
    try:
        return Hold.from_json(store.get(key), store.locate(key)).until > now
    except ObjectNotFoundError:
        return False
