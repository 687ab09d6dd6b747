"""Aliases (``candidate``, ``production``): names that point to a bundle and move by compare-and-swap."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pydantic import AwareDatetime, Field

from sentinode.bundle.bundle import is_digest, read_card
from sentinode.bundle.card import Sha256
from sentinode.config import Frozen, Record
from sentinode.errors import BundleError, ObjectNotFoundError, PreconditionFailedError
from sentinode.storage import Store

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,62}")


class AliasMove(Frozen):
    """An alias came to point to ``bundle`` at ``moved_at``."""

    bundle: Sha256
    moved_at: AwareDatetime


class Alias(Record):
    """``aliases/<name>.json``: where an alias points and where it pointed before, oldest first."""

    name: str
    history: tuple[AliasMove, ...] = Field(min_length=1)

    @property
    def bundle(self) -> str:
        """Digest of the bundle it points to now."""
        return self.history[-1].bundle


def read_alias(store: Store, name: str) -> Alias:
    """The alias ``name``. Raises BundleError where there is none, ManifestError where it is damaged."""
    key = _alias_key(name)
    try:
        return Alias.from_json(store.get(key), store.locate(key))
    except ObjectNotFoundError as error:
        raise BundleError(
            f"there is no alias {name} in {store.url}", "a digest, or an alias that has been set"
        ) from error


def resolve(store: Store, reference: str) -> str:
    """The digest that ``reference``, a digest or an alias, names now. Servers are given the digest."""
    return reference if is_digest(reference) else read_alias(store, reference).bundle


def set_alias(store: Store, name: str, digest: str, moved_at: datetime | None = None) -> Alias:
    """Point ``name`` to bundle ``digest``, which must exist; returns the alias with its history.

    Compare-and-swap: of two callers at once one wins and the other gets PreconditionFailedError and changes
    nothing. ``moved_at`` defaults to now. Pointing to the present bundle again changes nothing.
    """
    read_card(store, digest)
    key = _alias_key(name)
    move = AliasMove(bundle=digest, moved_at=moved_at or datetime.now(UTC))
    try:
        data, etag = store.get_with_etag(key)
    except ObjectNotFoundError:
        alias = Alias(name=name, history=(move,))
        return _put(store, key, alias, etag=None)
    alias = Alias.from_json(data, store.locate(key))
    if alias.bundle == digest:
        return alias
    return _put(store, key, Alias(name=name, history=(*alias.history, move)), etag=etag)


def _put(store: Store, key: str, alias: Alias, etag: str | None) -> Alias:
    try:
        store.put(key, alias.to_json(), if_none_match=etag is None, if_match=etag)
    except PreconditionFailedError as error:
        raise PreconditionFailedError(
            f"alias {alias.name} was moved by somebody else meanwhile",
            "nobody else moving it",
            "look where it points now and decide again",
        ) from error
    return alias


def _alias_key(name: str) -> str:
    if not _ALIAS.fullmatch(name):
        raise BundleError(
            f"{name!r} is neither a digest nor an alias",
            "64 hex digits, or a name of lower-case letters, digits and dashes",
        )
    return f"aliases/{name}.json"
