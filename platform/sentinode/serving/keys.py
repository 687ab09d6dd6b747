"""API keys at rest: who holds which, what it may do, how often; the file has hashes only.

A key is ``snt_<id>_<secret>``. The identifier finds the record, the secret is 256 random bits: nobody can guess or
enumerate it, so a plain SHA-256 keeps it as safe as a slow hash would, and costs a request a microsecond.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tempfile
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from pydantic import Field, model_validator

from sentinode.config import Frozen, Record
from sentinode.errors import ConfigError

_KEY: Final = re.compile(r"snt_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_SECRET_BYTES: Final = 32


class Scope(StrEnum):
    """What a key may do."""

    PREDICT = "predict"
    """Score patches and read cards."""
    EXPLAIN = "explain"
    """Ask for explanations, which cost a hundred predictions each."""
    METRICS = "metrics"
    """Read ``/metrics``."""
    ADMIN = "admin"
    """Change what is served."""


class RateLimits(Frozen):
    """What one key may ask of one replica."""

    requests_per_s: float = Field(default=5000.0, gt=0)
    """Sustained rate; a request above it is answered 429 with Retry-After."""
    burst: int = Field(default=10000, ge=1)
    """Requests that may come at once after a pause."""
    concurrent: int = Field(default=256, ge=1)
    """Requests under way at once."""


class KeyRecord(Frozen):
    """One key, without the key."""

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Public part of the key; stands in the audit log."""
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}$")
    """Who holds it."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the whole key."""
    scopes: tuple[Scope, ...] = Field(min_length=1)
    limits: RateLimits = RateLimits()
    expires: date | None = None
    """The key's last day (UTC); None for a key without end."""

    def fits(self, key: str, today: date | None = None) -> bool:
        """Whether ``key`` is this one and still valid; compared in constant time."""
        is_same = hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), self.sha256)
        return is_same and (self.expires is None or (today or datetime.now(UTC).date()) <= self.expires)


class KeyFile(Record):
    """The keys of an endpoint, as ``sentinode keys`` writes them."""

    keys: tuple[KeyRecord, ...] = ()

    @model_validator(mode="after")
    def _one_record_a_key(self) -> Self:
        if len({key.id for key in self.keys}) < len(self.keys):
            raise ValueError("two keys share an id")
        return self

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at ``path``. Raises ConfigError where it cannot be read, ManifestError where it is damaged."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the key file {path} cannot be read ({error.strerror})",
                "a file that `sentinode keys` wrote",
                f"sentinode keys --file {path} --name <who>",
            ) from error
        return cls.from_json(data, str(path))

    def write(self, path: Path) -> None:
        """Replace the file at ``path`` in one step, readable to its owner alone. Raises ConfigError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as part:
                part.write(self.to_json())
            Path(part.name).chmod(0o600)
            Path(part.name).replace(path)
        except OSError as error:
            raise ConfigError(f"the key file {path} cannot be written ({error.strerror})") from error


def make_key(
    name: str,
    scopes: tuple[Scope, ...],
    limits: RateLimits | None = None,
    expires: date | None = None,
) -> tuple[str, KeyRecord]:
    """A new key, and the record to keep in its place."""
    key_id = secrets.token_hex(6)
    key = f"snt_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    record = KeyRecord(
        id=key_id, name=name, sha256=digest, scopes=scopes, limits=limits or RateLimits(), expires=expires
    )
    return key, record


def key_id(key: str) -> str | None:
    """The public part of ``key``; None where it has not the form of a key."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None
