"""``sentinode bundles``: what a registry holds, and what of it is no longer needed."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, model_validator
from rich.console import Console
from tyro.conf import Positional

from sentinode.bundle.bundle import read_card
from sentinode.bundle.collect import StoredBundle, collect, list_bundles, removable
from sentinode.bundle.registry import list_aliases, resolve
from sentinode.bundle.verify import open_verified
from sentinode.commands.bundles_view import card_facts, differences, history_table, listing, pairs
from sentinode.config import Frozen
from sentinode.schema import RESEARCH_USE_ONLY
from sentinode.storage import Store, StoreUrl, open_store

log = logging.getLogger(__name__)

LOG_COLUMNS = 250

Action = Literal["list", "show", "diff", "pull", "gc"]
_BUNDLES: dict[Action, int] = {"list": 0, "show": 1, "diff": 2, "pull": 1, "gc": 0}


class BundlesCommand(Frozen):
    """Look into a registry: list all bundles; show BUNDLE: its card, lineage and aliases; diff BUNDLE BUNDLE: where two
    cards differ; pull BUNDLE: a verified copy; gc: what no alias needs any more.

    BUNDLE is a digest or an alias.
    """

    action: Positional[Action]
    """What to do."""
    names: Positional[tuple[str, ...]] = ()
    """Digests or aliases: one for show and pull, two for diff."""
    registry: StoreUrl
    """URL of the registry: s3://bucket/prefix or a folder."""
    out: Path = Path("bundles")
    """pull: folder in which the bundle gets a folder of its own, named by its digest."""
    older_than_days: float = Field(default=30.0, ge=0.0)
    """gc: keep what an alias has named or what was written within so many days, at least within the last hour."""
    delete: bool = False
    """gc: remove; without it gc only says what it would remove."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """list and show: print JSON."""

    @model_validator(mode="after")
    def _as_many_bundles_as_the_action_takes(self) -> Self:
        wanted = _BUNDLES[self.action]
        if len(self.names) != wanted:
            raise ValueError(f"{self.action} takes {wanted} bundles, found {len(self.names)}")
        return self


FLAGS = BundlesCommand


def run(config: BundlesCommand) -> int:
    """Do the action and print what it found."""
    store = open_store(config.registry)
    digests = tuple(resolve(store, name) for name in config.names)
    match config.action:
        case "list":
            _list(store, config.as_json)
        case "show":
            _show(store, digests[0], config.as_json)
        case "diff":
            cards = [read_card(store, digest) for digest in digests]
            Console().print(differences(digests, *cards))
        case "pull":
            bundle = open_verified(store, digests[0], config.out)
            log.info("%s holds bundle %s, verified: digests and golden patches", bundle.folder, bundle.digest)
        case "gc":
            _collect(store, config)
    return 0


def _list(store: Store, as_json: bool) -> None:
    aliases = list_aliases(store)
    stored = list_bundles(store)
    cards = {bundle.digest: read_card(store, bundle.digest) for bundle in stored if bundle.sealed}
    names = {d: [alias.name for alias in aliases if alias.bundle == d] for d in (b.digest for b in stored)}
    if as_json:
        rows = [
            {
                "digest": bundle.digest,
                "name": cards[bundle.digest].name if bundle.sealed else None,
                "aliases": names[bundle.digest],
                "size_bytes": bundle.size_bytes,
                "sealed": bundle.sealed,
            }
            for bundle in stored
        ]
        Console().print_json(json.dumps(rows))
    elif stored:
        # In a job's log a row is a line, however long.
        width = None if Console().is_terminal else LOG_COLUMNS
        Console(width=width).print(listing(stored, cards, names))
    else:
        log.info("%s holds no bundle", store.url)


def _show(store: Store, digest: str, as_json: bool) -> None:
    card = read_card(store, digest)
    aliases = [alias for alias in list_aliases(store) if any(move.bundle == digest for move in alias.history)]
    if as_json:
        found = {
            "digest": digest,
            "card": card.model_dump(mode="json"),
            "aliases": [alias.model_dump(mode="json") for alias in aliases],
        }
        Console().print_json(json.dumps(found))
        return
    console = Console(highlight=False)
    facts = card_facts(digest, card, [a.name for a in aliases if a.bundle == digest])
    console.print(pairs(facts), markup=False, soft_wrap=True)
    for alias in aliases:
        console.print(history_table(alias, digest))
    console.print(RESEARCH_USE_ONLY)


def _collect(store: Store, config: BundlesCommand) -> None:
    older_than, now = timedelta(days=config.older_than_days), datetime.now(UTC)
    done = (collect if config.delete else removable)(store, older_than, now)
    for bundle in done:
        log.info("%s %s", "removed" if config.delete else "would remove", _line(bundle))
    log.info(
        "%d bundles %s, %.1f MB%s",
        len(done),
        "removed" if config.delete else "can be removed",
        sum(bundle.size_bytes for bundle in done) / 1e6,
        "" if config.delete or not done else "; give --delete to remove them",
    )


def _line(bundle: StoredBundle) -> str:
    return f"{bundle.digest} ({bundle.size_bytes / 1e6:.1f} MB{'' if bundle.sealed else ', never finished'})"
