"""``sentinode keys``: make, list and revoke the API keys of an endpoint."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from pathlib import Path

from pydantic import Field
from rich import box
from rich.console import Console
from rich.table import Table

from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.serving.keys import KeyFile, RateLimits, Scope, make_key

log = logging.getLogger(__name__)


class KeysCommand(Frozen):
    """Make an API key (--name), revoke one (--revoke), or list them. The file keeps hashes: a key is shown once."""

    file: Path = Path("keys.json")
    """The key file; the endpoint reads it from SENTINODE_KEY_FILE when it starts."""
    name: str | None = None
    """Who the new key is for: letters, digits and . _ @ -"""
    scopes: tuple[Scope, ...] = Field(default=(Scope.PREDICT, Scope.EXPLAIN), min_length=1)
    """What it may do: predict, explain, metrics, admin."""
    limits: RateLimits = RateLimits()
    """What it may ask of one replica."""
    expires: date | None = None
    """Its last day, e.g. 2027-06-30; without end where it is not given."""
    revoke: str | None = None
    """Id of the key to remove."""


FLAGS = KeysCommand


def run(config: KeysCommand) -> int:
    """Do one of the three. Raises ConfigError for an unknown id, a bad name or a file that cannot be used."""
    if config.name is not None and config.revoke is not None:
        raise ConfigError("both --name and --revoke are given", "one of them")
    if config.name is not None:
        return _make(config, config.name)
    if config.revoke is not None:
        return _revoke(config, config.revoke)
    Console().print(_table(KeyFile.read(config.file)))
    return 0


def _make(config: KeysCommand, name: str) -> int:
    if config.expires is not None and config.expires < _today():
        raise ConfigError(f"{config.expires} is over: the key would open nothing", f"{_today()} or later")
    known = KeyFile.read(config.file) if config.file.exists() else KeyFile()
    try:
        key, record = make_key(name, config.scopes, config.limits, config.expires)
    except ValueError as error:
        raise ConfigError(
            f"{name!r} is no name for a key", "letters, digits and . _ @ -, at most 63"
        ) from error
    KeyFile(keys=(*known.keys, record)).write(config.file)
    Console(soft_wrap=True).print(key, markup=False, highlight=False)
    log.info("key %s for %s is in %s as a hash; it is shown this once", record.id, name, config.file)
    log.info("endpoints that run already read the file when their replicas start anew")
    return 0


def _revoke(config: KeysCommand, wanted: str) -> int:
    known = KeyFile.read(config.file)
    left = tuple(key for key in known.keys if key.id != wanted)
    if len(left) == len(known.keys):
        ids = ", ".join(key.id for key in known.keys) or "none"
        raise ConfigError(f"{config.file} has no key {wanted}", f"one of: {ids}")
    KeyFile(keys=left).write(config.file)
    log.info("key %s is gone from %s; replicas that run keep it until they start anew", wanted, config.file)
    return 0


def _today() -> date:
    return datetime.now(UTC).date()


def _table(file: KeyFile) -> Table:
    table = Table("id", "name", "scopes", "requests/s", "concurrent", "expires", box=box.SIMPLE_HEAD)
    for key in file.keys:
        table.add_row(
            key.id,
            key.name,
            " ".join(key.scopes),
            f"{key.limits.requests_per_s:g}",
            str(key.limits.concurrent),
            "never" if key.expires is None else f"{key.expires}{', over' if key.expires < _today() else ''}",
        )
    return table
