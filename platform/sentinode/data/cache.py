"""The node cache: each shard is downloaded once per node, whatever the number of its worker processes.

Every file is guarded by locks of the operating system, which a killed process releases by itself:

* ``<shard>.lock``, locked exclusively while the shard is downloaded or checked. It holds the *seal*: what
  the file looked like (size, inode, time of change) when its SHA-256 was last found right. A changed file
  loses its seal and is hashed anew; after a restart of the machine all are, because unsynced writes may be
  lost then.
* the shard itself, locked shared while somebody reads it (a *lease*). It is only evicted under an exclusive
  lock.
* ``usage``, locked while bytes of the budget are reserved or freed.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sentinode.data.manifest import ShardRecord
from sentinode.errors import ConfigError, IntegrityError, StoreError
from sentinode.storage import Store

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "SENTINODE_CACHE"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_DISK_SHARE = 0.8
_RACES = 100
"""How often a shard may be evicted between its download and its use before that is called an error."""


class ShardCache:
    """Shards of ``store`` as verified local files. Safe between threads and processes, and picklable.

    ``folder``: default ``$SENTINODE_CACHE`` or ``~/.cache/sentinode/shards``. ``budget_bytes``: default 80
    % of what the disk has free or the cache holds already. Shards of a local folder are used where they
    lie, without a copy.
    """

    def __init__(self, store: Store, folder: Path | None = None, budget_bytes: int | None = None) -> None:
        self.store = store
        self.folder = (folder or default_folder()).absolute()
        self._local = None if "://" in store.url else Path(store.url)
        with _typed(self.folder):
            (self.folder / "shards").mkdir(parents=True, exist_ok=True)
            (self.folder / "partial").mkdir(exist_ok=True)
            self.budget_bytes = self._default_budget() if budget_bytes is None else budget_bytes

    @property
    def in_place(self) -> bool:
        """True where the store is a local folder and nothing is copied, so the budget does not matter."""
        return self._local is not None

    def path(self, record: ShardRecord) -> Path:
        """Where the shard lies or will lie. Names hold the checksum, so equal base names never meet."""
        if self._local is not None:
            return self._local / record.name
        return self.folder / "shards" / self._name(record)

    def fetch(self, record: ShardRecord) -> Path:
        """The verified local file, downloaded where it is missing or damaged. It may be evicted later: see
        ``lease``.

        Raises StoreError or one of its kinds (naming shard, bucket and cause), ConfigError where the budget
        is too small.
        """
        path = self._fetch(record, wait=True)
        assert path is not None
        return path

    def fetch_unless_busy(self, record: ShardRecord) -> bool:
        """As ``fetch``, but False at once where another thread or process is at this shard."""
        return self._fetch(record, wait=False) is not None

    def lease(self, record: ShardRecord) -> BinaryIO:
        """The verified file, open for reading; it is not evicted while the file object or a memory map of
        it lives.
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

    def _fetch(self, record: ShardRecord, *, wait: bool) -> Path | None:
        path = self.path(record)
        lock_path = self.folder / "shards" / f"{self._name(record)}.lock"
        with _typed(path):
            if self._sealed(path, record, lock_path):
                os.utime(lock_path)
                return path
            with _locked(lock_path, wait=wait) as lock:
                if lock is None:
                    return None
                if not (self._sealed(path, record, lock_path) or self._intact(path, record)):
                    self._replace(path, record)
                _write(lock, _seal(path, record))
        return path

    def _sealed(self, path: Path, record: ShardRecord, lock_path: Path) -> bool:
        try:
            return lock_path.read_text() == _seal(path, record)
        except FileNotFoundError:
            return False

    def _intact(self, path: Path, record: ShardRecord) -> bool:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return (
                    size == record.size_bytes
                    and hashlib.file_digest(file, "sha256").hexdigest() == record.sha256
                )
        except FileNotFoundError:
            return False

    def _replace(self, path: Path, record: ShardRecord) -> None:
        """Download the shard to ``path``, under its lock."""
        if self.in_place:
            if self.store.stat(record.name) is None:
                self.store.get(record.name, length=1)
            raise IntegrityError(
                f"shard {path} does not have the size or SHA-256 that the manifest states",
                f"{record.size_bytes} bytes, {record.sha256}",
                "restore the file or ingest the data set again",
            )
        if path.exists():
            logger.warning("cached shard %s is damaged; fetching it anew from %s", path.name, self.store.url)
            self._drop(path)
        partial = self.folder / "partial" / path.name
        shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
        self._reserve(record.size_bytes)
        try:
            partial.mkdir()
            whole = partial / "shard"
            self.store.download(record.name, whole, sha256=record.sha256, size_bytes=record.size_bytes)
            whole.replace(path)
        except BaseException:
            self._account(-record.size_bytes)
            raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    # The byte budget.

    def _reserve(self, size_bytes: int) -> None:
        """Make room for a shard within the budget, evicting the least recently used ones that nobody reads."""
        if size_bytes > self.budget_bytes:
            raise ConfigError(
                f"a shard of {size_bytes} bytes",
                f"at most the cache budget of {self.budget_bytes} bytes",
                "raise the budget",
            )
        with _locked(self.folder / "usage") as usage:
            assert usage is not None
            used = _read_int(usage)
            if used is None or used + size_bytes > self.budget_bytes:
                used = self._used_bytes()  # the count may be too high after a kill
            for path in self._least_recently_used() if used + size_bytes > self.budget_bytes else ():
                used -= self._evict(path)
                if used + size_bytes <= self.budget_bytes:
                    break
            _write(usage, str(used))
            if used + size_bytes > self.budget_bytes:
                raise StoreError(
                    f"{used} bytes of the cache {self.folder} are in use and {size_bytes} more are needed",
                    f"at most its budget of {self.budget_bytes} bytes",
                    "raise the budget, or use block shuffle with smaller blocks",
                )
            _write(usage, str(used + size_bytes))

    def _account(self, size_bytes: int) -> None:
        with _locked(self.folder / "usage") as usage:
            assert usage is not None
            _write(usage, str(max(0, (_read_int(usage) or 0) + size_bytes)))

    def _drop(self, path: Path) -> None:
        size_bytes = path.stat().st_size
        path.unlink()
        self._account(-size_bytes)

    def _evict(self, path: Path) -> int:
        """Remove a shard that nobody reads; returns the bytes freed."""
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size_bytes = os.fstat(file.fileno()).st_size
            path.unlink()
            logger.debug("evicted %s", path.name)
            return size_bytes
        return 0

    def _shards(self) -> list[os.DirEntry[str]]:
        with os.scandir(self.folder / "shards") as entries:
            return [entry for entry in entries if not entry.name.endswith(".lock")]

    def _used_bytes(self) -> int:
        partial = (p for p in (self.folder / "partial").rglob("*") if p.is_file())
        return sum(_size(p) for p in (*map(Path, self._shards()), *partial))

    def _least_recently_used(self) -> list[Path]:
        def last_use(path: Path) -> float:
            with suppress(FileNotFoundError):
                return path.with_name(f"{path.name}.lock").stat().st_mtime
            return 0.0

        return sorted(map(Path, self._shards()), key=last_use)

    def _default_budget(self) -> int:
        return int(_DISK_SHARE * (shutil.disk_usage(self.folder).free + self._used_bytes()))

    def _name(self, record: ShardRecord) -> str:
        return f"{record.sha256[:16]}-{record.name.rpartition('/')[2]}"


def default_folder() -> Path:
    """``$SENTINODE_CACHE``, or ``~/.cache/sentinode/shards``."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "sentinode" / "shards"


def _seal(path: Path, record: ShardRecord) -> str:
    status = path.stat()
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return (
        f"{record.sha256} {status.st_size} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns} {boot}\n"
    )


@contextmanager
def _locked(path: Path, *, wait: bool = True) -> Iterator[BinaryIO | None]:
    """The file at ``path``, made where missing, open and locked exclusively; None where it is taken and not
    ``wait``.
    """
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file


def _read_int(file: BinaryIO) -> int | None:
    file.seek(0)
    text = file.read()
    return int(text) if text.isdigit() else None


def _write(file: BinaryIO, text: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(text.encode())
    file.flush()


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


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
