"""Aliases (``candidate``, ``production``): names that point to a bundle and move by compare-and-swap."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from sentinode.bundle.bundle import is_digest, read_card
from sentinode.bundle.card import Sha256
from sentinode.bundle.pins import pinned
from sentinode.config import Frozen, Record
from sentinode.errors import BundleError, ObjectNotFoundError, PreconditionFailedError
from sentinode.storage import Store

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,62}")

Line = Annotated[str, StringConstraints(max_length=1000, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""Text that is safe to print: one line, nothing that moves a terminal's cursor."""


class Why(Frozen):
    """Who moves an alias, and on what ground."""

    by: Line = ""
    """Whoever was named when it was moved; empty where nobody was."""
    reason: Line = ""
    forced: bool = False
    """Whether gates that failed were overruled."""
    decision: Sha256 | None = None
    """SHA-256 of the gate's record, ``decisions/<sha256>.json``; None for moves that no gate judged."""


class AliasMove(Why):
    """An alias came to point to ``bundle`` at ``moved_at``."""

    bundle: Sha256
    moved_at: AwareDatetime
    moved_from: Sha256 | None = None
    """What it pointed to before; None for the first move."""
    kind: Literal["promotion", "rollback"] = "promotion"


class Alias(Record):
    """``aliases/<name>.json``: where an alias points and where it pointed before, oldest first."""

    name: str
    history: tuple[AliasMove, ...] = Field(min_length=1)

    @property
    def bundle(self) -> str:
        """Digest of the bundle it points to now."""
        return self.history[-1].bundle

    @property
    def previous(self) -> str | None:
        """Where a rollback leads: the bundle that was promoted before the present one; None where there is none.

        What was rolled back is not returned to, so two rollbacks in a row lead two promotions back.
        """
        promoted: list[str] = []
        for move in self.history:
            if move.kind == "rollback" and move.bundle in promoted:
                while promoted[-1] != move.bundle:
                    promoted.pop()
            else:
                promoted.append(move.bundle)
        return promoted[-2] if len(promoted) > 1 else None


@dataclass(frozen=True)
class SeenAlias:
    """An alias as it was when somebody looked at it: the ground on which it may be moved."""

    name: str
    alias: Alias | None
    """None where it was not set yet."""
    etag: str | None

    @property
    def bundle(self) -> str | None:
        """What it pointed to."""
        return self.alias.bundle if self.alias else None


def look(store: Store, name: str) -> SeenAlias:
    """The alias ``name`` as it is now. Raises BundleError for what is no name, ManifestError where it is damaged."""
    key = _alias_key(name)
    try:
        data, etag = store.get_with_etag(key)
    except ObjectNotFoundError:
        return SeenAlias(name, None, None)
    return SeenAlias(name, Alias.from_json(data, store.locate(key)), etag)


def read_alias(store: Store, name: str) -> Alias:
    """The alias ``name``. Raises BundleError where there is none, ManifestError where it is damaged."""
    alias = look(store, name).alias
    if alias is None:
        known = ", ".join(alias.name for alias in list_aliases(store)) or "none"
        raise BundleError(
            f"there is no alias {name} in {store.url}", f"a digest, or an alias that has been set ({known})"
        )
    return alias


def list_aliases(store: Store) -> tuple[Alias, ...]:
    """All aliases by name. Raises ManifestError where one is damaged."""
    names = [info.key.removeprefix("aliases/").removesuffix(".json") for info in store.list("aliases/")]
    return tuple(alias for alias in (look(store, name).alias for name in names) if alias)


def resolve(store: Store, reference: str) -> str:
    """The digest that ``reference``, a digest or an alias, names now. Servers are given the digest."""
    return reference if is_digest(reference) else read_alias(store, reference).bundle


def move_alias(
    store: Store,
    seen: SeenAlias,
    digest: str,
    why: Why | None = None,
    *,
    kind: Literal["promotion", "rollback"] = "promotion",
    moved_at: datetime | None = None,
) -> Alias:
    """Point an alias to bundle ``digest``, which must exist; returns the alias with its history.

    Compare-and-swap from the state in which it was ``seen``: whoever looked, decided and was overtaken gets
    PreconditionFailedError and changes nothing. ``moved_at`` defaults to now. Pointing to the present bundle again
    changes nothing. Raises BundleError where the bundle is not there or is being removed.
    """
    if seen.alias and seen.bundle == digest:
        return seen.alias
    move = AliasMove(
        **(why or Why()).model_dump(),
        bundle=digest,
        moved_at=moved_at or datetime.now(UTC),
        moved_from=seen.bundle,
        kind=kind,
    )
    history = (*(seen.alias.history if seen.alias else ()), move)
    alias = Alias(name=seen.name, history=history)
    key = _alias_key(seen.name)
    with pinned(store, digest):
        read_card(store, digest)
        try:
            store.put(key, alias.to_json(), if_none_match=seen.etag is None, if_match=seen.etag)
        except PreconditionFailedError as error:
            raise _overtaken(store, seen) from error
    return alias


def set_alias(
    store: Store, name: str, digest: str, moved_at: datetime | None = None, why: Why | None = None
) -> Alias:
    """Point ``name`` to ``digest`` from wherever it points now. Raises as ``move_alias``."""
    return move_alias(store, look(store, name), digest, why, moved_at=moved_at)


def roll_back(store: Store, seen: SeenAlias, why: Why | None = None) -> Alias:
    """Point an alias to the bundle that was promoted before the present one. Raises as ``move_alias``, and
    BundleError where there is no such bundle.
    """
    previous = seen.alias.previous if seen.alias else None
    if previous is None:
        raise BundleError(
            f"alias {seen.name} has never named another bundle" if seen.alias else f"no alias {seen.name}",
            "an alias that was promoted at least twice",
            f"see `sentinode bundles list --registry {store.url}`",
        )
    return move_alias(store, seen, previous, why, kind="rollback")


def _overtaken(store: Store, seen: SeenAlias) -> PreconditionFailedError:
    now = look(store, seen.name).bundle
    return PreconditionFailedError(
        f"alias {seen.name} was moved by somebody else meanwhile, to {now or 'nothing'}",
        f"that it still names {seen.bundle or 'nothing'}, as when this move was decided",
        "nothing was changed: look where it points now and decide again",
    )


def _alias_key(name: str) -> str:
    if not _ALIAS.fullmatch(name):
        raise BundleError(
            f"{name!r} is neither a digest nor an alias",
            "64 hex digits, or a name of lower-case letters, digits and dashes",
        )
    return f"aliases/{name}.json"
