"""Collecting bundles that nothing needs any more. What is kept, and why, is decided before anything is removed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from sentinode.bundle.bundle import CARD_NAME, bundle_prefix, is_digest
from sentinode.bundle.pins import forget_marks, is_pinned, mark, unmark
from sentinode.bundle.registry import Alias, list_aliases
from sentinode.storage import ObjectInfo, Store

log = logging.getLogger(__name__)

GRACE: Final = timedelta(hours=1)
"""What was written or named within it is kept whatever age is asked for: its alias may not have been moved yet, and
servers may not have followed one that was."""


@dataclass(frozen=True)
class StoredBundle:
    """The objects of one bundle."""

    digest: str
    objects: tuple[ObjectInfo, ...]

    @property
    def size_bytes(self) -> int:
        """Of all its objects."""
        return sum(info.size_bytes for info in self.objects)

    @property
    def written_at(self) -> datetime | None:
        """When its youngest object was written; None where the store tells no time."""
        times = [info.modified_at for info in self.objects if info.modified_at is not None]
        return max(times) if len(times) == len(self.objects) else None

    @property
    def sealed(self) -> bool:
        """Whether it has a card; one without was never finished."""
        return any(info.key.endswith(f"/{CARD_NAME}") for info in self.objects)


def list_bundles(store: Store) -> tuple[StoredBundle, ...]:
    """All bundles in the order of their digests, unfinished ones included."""
    found: dict[str, list[ObjectInfo]] = {}
    for info in store.list("bundles/"):
        digest = info.key.split("/")[1]
        if is_digest(digest):
            found.setdefault(digest, []).append(info)
    return tuple(StoredBundle(digest, tuple(objects)) for digest, objects in found.items())


def reasons_to_keep(
    bundle: StoredBundle, aliases: tuple[Alias, ...], older_than: timedelta, now: datetime
) -> tuple[str, ...]:
    """Why ``bundle`` must stay, in words; empty where nothing needs it.

    It stays while an alias names it or could be rolled back to it; and where an alias named it or it was written within
    ``older_than``, at least within ``GRACE``.
    """
    since = now - max(older_than, GRACE)
    reasons = [f"{alias.name} names it" for alias in aliases if alias.bundle == bundle.digest]
    reasons += [f"{alias.name} rolls back to it" for alias in aliases if alias.previous == bundle.digest]
    for alias in aliases:
        ends = [end for digest, end in _named_until(alias) if digest == bundle.digest]
        if ends and max(ends) > since:
            reasons.append(f"{alias.name} named it until {max(ends):%Y-%m-%d}")
    written_at = bundle.written_at
    if written_at is None:
        reasons.append("nobody knows when it was written")
    elif written_at > since:
        reasons.append(f"written {written_at:%Y-%m-%d %H:%M} UTC")
    return tuple(reasons)


def removable(store: Store, older_than: timedelta, now: datetime) -> tuple[StoredBundle, ...]:
    """The bundles that ``collect`` would remove. Raises ManifestError where an alias cannot be read: then nothing is
    known to be unneeded.
    """
    aliases = list_aliases(store)
    return tuple(b for b in list_bundles(store) if not reasons_to_keep(b, aliases, older_than, now))


def collect(store: Store, older_than: timedelta, now: datetime) -> tuple[StoredBundle, ...]:
    """Remove what nothing needs; returns what was removed. Safe while others seal, promote, roll back or collect."""
    done = tuple(b for b in removable(store, older_than, now) if _remove(store, b, older_than, now))
    forget_marks(store, {bundle.digest for bundle in list_bundles(store)}, now)
    return done


def _remove(store: Store, bundle: StoredBundle, older_than: timedelta, now: datetime) -> bool:
    digest = bundle.digest
    if not mark(store, digest, now):
        log.warning("bundle %s is being removed by somebody else", digest)
        return False
    # Pins before aliases: whoever pinned too late to be seen here meets the mark, whoever is done has moved an alias.
    pinned = is_pinned(store, digest, now)
    fresh = StoredBundle(digest, tuple(store.list(bundle_prefix(digest))))
    kept = pinned or reasons_to_keep(fresh, list_aliases(store), older_than, now)
    if not kept:
        # The card first: from then on the bundle does not exist, whatever becomes of the rest.
        store.delete(bundle_prefix(digest) + CARD_NAME)
        for info in fresh.objects:
            store.delete(info.key)
    unmark(store, digest)
    return not kept


def _named_until(alias: Alias) -> Iterator[tuple[str, datetime]]:
    """Each bundle that the alias has named, and when it ceased to."""
    for earlier, later in pairwise(alias.history):
        yield earlier.bundle, later.moved_at
