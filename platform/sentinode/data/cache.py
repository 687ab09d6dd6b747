"""The node cache: each shard is downloaded once per node, whatever the number of its worker processes.

Every file is guarded by locks of the operating system, which a killed process lets go by itself:

* ``shards/<shard>.lock``, locked exclusively while the shard is downloaded or checked. It holds the *seal*:
  what the file looked like (size, inode, times of change) when its SHA-256 was last found right. A changed
  file loses its seal and is hashed anew; after a restart of the machine all are, because writes that never
  reached the disk are lost then.
* ``shards/<shard>``, locked shared while somebody reads it (a *lease*). It is evicted only under an
  exclusive lock.
* ``usage``, locked while bytes of the budget are counted.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sentinode.data.budget import CacheBudget
from sentinode.data.locks import locked, locked_unless_taken, write_text
from sentinode.data.manifest import ShardRecord
from sentinode.errors import IntegrityError, StoreError
from sentinode.storage import Store

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "SENTINODE_CACHE"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RACES = 100
"""How often a shard may be evicted between its download and its use before that is called an error."""


class ShardCache:
    """Shards of ``store`` as verified local files. Safe between threads and processes, and picklable.

    ``folder``: default ``$SENTINODE_CACHE`` or ``~/.cache/sentinode/shards``. ``budget_bytes``: default 80
    % of what the disk has free or the cache holds already; downloads under way included. Shards of a store
    that is a local folder are used where they lie, without a copy.

    Raises StoreError where the folder cannot be used.
    """

    def __init__(self, store: Store, folder: Path | None = None, budget_bytes: int | None = None) -> None:
        self.store = store
        self.folder = (folder or default_folder()).absolute()
        self.in_place = "://" not in store.url
        """True where the store is a local folder and nothing is copied, so the budget does not matter."""
        with _typed(self.folder):
            (self.folder / "shards").mkdir(parents=True, exist_ok=True)
            (self.folder / "partial").mkdir(exist_ok=True)
            whole = CacheBudget.of_disk(self.folder)
        self._budget = whole if budget_bytes is None else CacheBudget(self.folder, budget_bytes)

    @property
    def budget_bytes(self) -> int:
        """What all shards of the cache may take together."""
        return self._budget.size_bytes

    def path(self, record: ShardRecord) -> Path:
        """Where the shard lies or will lie. Cached names hold the checksum, so equal base names never meet."""
        return Path(self.store.url) / record.name if self.in_place else self.folder / "shards" / _name(record)

    def fetch(self, record: ShardRecord) -> Path:
        """The verified local file, downloaded where it is missing or damaged. It may be evicted later: see
        ``lease``.

        Raises StoreError or one of its kinds, naming shard, bucket and cause, and ConfigError where the
        budget is too small for this shard.
        """
        path = self.path(record)
        with _typed(path):
            if not self._sealed(path, record):
                with locked(self._lock_path(record)) as lock:
                    self._bring(path, record, lock)
        return path

    def fetch_unless_busy(self, record: ShardRecord) -> bool:
        """As ``fetch``, but False at once where another thread or process is at this shard."""
        path = self.path(record)
        with _typed(path):
            if not self._sealed(path, record):
                with locked_unless_taken(self._lock_path(record)) as lock:
                    if lock is None:
                        return False
                    self._bring(path, record, lock)
        return True

    def lease(self, record: ShardRecord) -> BinaryIO:
        """The verified file, open for reading. It is not evicted while this file, a duplicate or a map of
        it lives.

        Raises as ``fetch``.
        """
        for _ in range(_RACES):
            path = self.fetch(record)
            with _typed(path):
                try:
                    file = path.open("rb")
                except FileNotFoundError:
                    continue
                if self.in_place:
                    return file
                fcntl.flock(file, fcntl.LOCK_SH)
                if os.fstat(file.fileno()).st_nlink:
                    return file
                file.close()
        raise StoreError(
            f"shard {self.store.locate(record.name)} was evicted {_RACES} times before it could be read",
            "a cache budget that holds the shards in use",
            f"raise the budget of {self.budget_bytes} bytes",
        )

    def _sealed(self, path: Path, record: ShardRecord) -> bool:
        """Whether the file is as it was when its checksum was right. Notes the use."""
        lock_path = self._lock_path(record)
        try:
            sealed = lock_path.read_text() == _seal(path, record)
        except FileNotFoundError:
            return False
        if sealed:
            os.utime(lock_path)
        return sealed

    def _bring(self, path: Path, record: ShardRecord, lock: BinaryIO) -> None:
        """Check the file or replace it, and seal it; ``lock`` is held."""
        if self._sealed(path, record):
            return
        if not _intact(path, record):
            if self.in_place:
                self._refuse(path, record)
            self._replace(path, record)
        with suppress(FileNotFoundError):  # evicted before it was sealed: whoever needs it fetches it anew
            write_text(lock, _seal(path, record))

    def _replace(self, path: Path, record: ShardRecord) -> None:
        with suppress(FileNotFoundError):
            size_bytes = path.stat().st_size
            path.unlink()
            logger.warning("cached shard %s is damaged; fetching it anew from %s", path.name, self.store.url)
            self._budget.give_back(size_bytes)
        where = self.store.locate(record.name)
        with self._budget.room(path.name, record.size_bytes) as folder:
            try:
                whole = folder / "shard"
                self.store.download(record.name, whole, sha256=record.sha256, size_bytes=record.size_bytes)
            except StoreError as error:
                if where in error.found:
                    raise
                found = f"shard {where} cannot be cached: {error.found}"
                raise type(error)(found, error.expected, error.remedy) from error
            whole.replace(path)

    def _refuse(self, path: Path, record: ShardRecord) -> None:
        if not path.exists():
            self.store.get(record.name, length=1)  # the store's own error for what is missing
        raise IntegrityError(
            f"shard {path} differs from what the manifest states",
            f"{record.size_bytes} bytes with the SHA-256 {record.sha256}",
            "restore the file or ingest the data set again",
        )

    def _lock_path(self, record: ShardRecord) -> Path:
        return self.folder / "shards" / f"{_name(record)}.lock"


def default_folder() -> Path:
    """``$SENTINODE_CACHE``, or ``~/.cache/sentinode/shards``."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "sentinode" / "shards"


def _name(record: ShardRecord) -> str:
    return f"{record.sha256[:16]}-{record.name.rpartition('/')[2]}"


def _intact(path: Path, record: ShardRecord) -> bool:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != record.size_bytes:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == record.sha256
    except FileNotFoundError:
        return False


def _seal(path: Path, record: ShardRecord) -> str:
    status = path.stat()
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else "-"
    return f"{record.sha256} {status.st_size} {status.st_ino} {times} {boot}\n"


@contextmanager
def _typed(path: Path) -> Iterator[None]:
    """An error of the cache's own disk becomes a StoreError that names the place."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the shard cache cannot use {path}: {error.strerror or error}",
            "a writable folder with room for the shards",
            f"free some space, or name another folder in {CACHE_VARIABLE}",
        ) from error
