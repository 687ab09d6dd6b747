"""``sentinode rollback``: an alias returns to the bundle that it named before."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from tyro.conf import Positional

from sentinode.bundle.registry import Alias, Line, Why, look, roll_back
from sentinode.bundle.verify import open_verified
from sentinode.commands.actor import actor
from sentinode.config import Frozen
from sentinode.storage import StoreUrl, open_store

log = logging.getLogger(__name__)


class RollbackCommand(Frozen):
    """Move an alias back to the bundle that was promoted before the present one, which is verified first."""

    alias: Positional[str]
    """Alias to move, e.g. production."""
    registry: StoreUrl
    """URL of the registry: s3://bucket/prefix or a folder."""
    reason: Line
    """Why, for the alias's history."""
    by: Line | None = None
    """Who rolls back, for the history; by default SENTINODE_ACTOR, else nobody is named."""


FLAGS = RollbackCommand


def run(config: RollbackCommand) -> int:
    """Roll back and say where the alias points."""
    alias = rollback(config)
    log.info(
        "alias %s names bundle %s again (it named %s)", alias.name, alias.bundle, alias.history[-2].bundle
    )
    return 0


def rollback(config: RollbackCommand) -> Alias:
    """One step back. Raises BundleError where there is none or the bundle is damaged, PreconditionFailedError where
    somebody else moved the alias meanwhile.
    """
    store = open_store(config.registry)
    seen = look(store, config.alias)
    if seen.alias and seen.alias.previous:
        with tempfile.TemporaryDirectory(prefix="sentinode-rollback-") as folder:
            open_verified(store, seen.alias.previous, Path(folder))
    return roll_back(store, seen, Why(by=actor(config.by), reason=config.reason))
