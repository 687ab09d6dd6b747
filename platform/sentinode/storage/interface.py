"""One small interface over object stores: what every floor above may ask of storage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

Progress = Callable[[int], None]
"""Called with the number of bytes that have just been moved."""


@dataclass(frozen=True)
class ObjectInfo:
    """An object as the store lists it.

    ``key`` is relative to the store's prefix; ``etag`` changes with the content; ``modified_at`` is by the
    store's clock, None where it tells none.
    """

    key: str
    size_bytes: int
    etag: str
    modified_at: datetime | None = field(default=None, compare=False)


class Store(Protocol):
    """A bucket and prefix, or a local folder. Keys are relative, ``/``-separated and never climb (``..``).

    Every call raises StoreError or one of its kinds (ObjectNotFoundError, StoreAccessError,
    PreconditionFailedError, IntegrityError), naming URL and cause, after bounded retries, and ConfigError for a
    key that cannot be used. Stores are safe to share between threads and to pickle (without credentials: these
    come from the environment of the process that uses them).
    """

    @property
    def url(self) -> str:
        """``s3://bucket/prefix`` or an absolute folder, without a final slash."""
        ...

    def locate(self, key: str) -> str:
        """The full URL of ``key``, for people and logs."""
        ...

    def sub(self, prefix: str) -> Store:
        """The store below ``prefix``."""
        ...

    def stat(self, key: str) -> ObjectInfo | None:
        """Size and etag, or None where there is no such object."""
        ...

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes, or ``length`` bytes from offset ``start``.

        Fewer bytes than asked for are an IntegrityError, and so is a start that is not within the object.
        """
        ...

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        """Content and etag of one and the same version, for a later ``put(..., if_match=etag)``."""
        ...

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        """Write the whole object atomically; returns its etag.

        ``if_none_match``: only where no such object exists; ``if_match``: only over the version with that
        etag; else PreconditionFailedError and nothing written.
        """
        ...

    def download(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        size_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Stream into ``path`` by way of a temporary file beside it and an atomic rename.

        With ``sha256`` (hex) or ``size_bytes`` a mismatch is an IntegrityError and ``path`` is left as it
        was.
        """
        ...

    def upload(self, path: Path, key: str, *, progress: Progress | None = None) -> ObjectInfo:
        """Stream a file into the store (multipart where large), with a checksum that the store verifies."""
        ...

    def list(self, prefix: str = "", *, linked: bool = False) -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, in key order.

        ``linked``: also those below folders that a local store only links to. For what is read: whoever deletes what
        is listed keeps to the store itself.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error where there is none."""
        ...
