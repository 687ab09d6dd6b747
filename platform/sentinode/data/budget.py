"""The byte budget of the node cache: room is reserved before a download; shards used least recently go."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sentinode.data.locks import locked, locked_unless_taken, read_text, write_text
from sentinode.errors import ConfigError, StoreError

logger = logging.getLogger(__name__)

_DISK_SHARE = 0.8


@dataclass(frozen=True)
class CacheBudget:
    """Counts the bytes of ``folder/shards`` in the file ``folder/usage``, for all processes of the node.

    A shard in use is locked shared by whoever reads it, and is evicted only under an exclusive lock. The
    lock file beside a shard is touched at each use, which orders the eviction.
    """

    folder: Path
    size_bytes: int

    @classmethod
    def of_disk(cls, folder: Path) -> CacheBudget:
        """80 % of what the disk has free or the cache holds already."""
        free_bytes = shutil.disk_usage(folder).free
        return cls(folder, int(_DISK_SHARE * (free_bytes + cls(folder, 0)._used_bytes())))

    @contextmanager
    def room(self, name: str, size_bytes: int) -> Iterator[Path]:
        """An empty folder in which to put together shard ``name``, with ``size_bytes`` counted for it.

        The caller holds the shard's lock. The folder is removed at the end; the count stays unless an error
        leaves the block. Raises ConfigError where the shard exceeds the whole budget, StoreError where
        shards in use leave too little room. OSError is left to the caller.
        """
        if size_bytes > self.size_bytes:
            raise ConfigError(
                f"a shard of {size_bytes} bytes",
                f"at most the cache budget of {self.size_bytes} bytes",
                "raise the budget",
            )
        # Its name tells other processes how much is reserved, however little of it is written yet.
        folder = self.folder / "partial" / f"{name}.{size_bytes}"
        shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
        self._reserve(folder, size_bytes)
        try:
            yield folder
        except BaseException:
            self.give_back(size_bytes)
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def give_back(self, size_bytes: int) -> None:
        """Count ``size_bytes`` less: a download failed or a file was removed."""
        with locked(self.folder / "usage") as usage:
            text = read_text(usage)
            write_text(usage, str(max(0, int(text) - size_bytes)) if text.isdigit() else "")

    def _reserve(self, folder: Path, size_bytes: int) -> None:
        limit_bytes = self.size_bytes - size_bytes
        with locked(self.folder / "usage") as usage:
            text = read_text(usage)
            used_bytes = int(text) if text.isdigit() else self._used_bytes()
            if used_bytes > limit_bytes:
                # Killed processes may have left the count too high; it is never too low.
                used_bytes = self._evict_down_to(limit_bytes)
            fits = used_bytes <= limit_bytes
            if fits:
                folder.mkdir()
            write_text(usage, str(used_bytes + size_bytes if fits else used_bytes))
        if not fits:
            raise StoreError(
                f"{used_bytes} bytes of the cache {self.folder} are in use and {size_bytes} more are needed",
                f"at most its budget of {self.size_bytes} bytes",
                "raise the budget, or use block shuffle with smaller blocks",
            )

    def _evict_down_to(self, limit_bytes: int) -> int:
        """Remove shards that nobody reads until at most ``limit_bytes`` are left; returns what is left."""
        used_bytes = self._used_bytes()
        if used_bytes > limit_bytes:
            for path in sorted(self._shards(), key=_last_use):
                used_bytes -= _evict(path)
                if used_bytes <= limit_bytes:
                    break
        return used_bytes

    def _used_bytes(self) -> int:
        """Of all shards and of all downloads under way; what killed downloads left is removed."""
        used_bytes = 0
        # Downloads first: one that ends meanwhile is counted twice, where the other order would not count it at all.
        for folder in (self.folder / "partial").iterdir():
            name, _, reserved = folder.name.rpartition(".")
            with locked_unless_taken(self.folder / "shards" / f"{name}.lock") as lock:
                if lock is None:
                    used_bytes += int(reserved) if reserved.isdigit() else 0
                else:
                    shutil.rmtree(folder, ignore_errors=True)
        return used_bytes + sum(map(_size, self._shards()))

    def _shards(self) -> list[Path]:
        with os.scandir(self.folder / "shards") as entries:
            return [Path(entry) for entry in entries if not entry.name.endswith(".lock")]


def _evict(path: Path) -> int:
    """Remove a shard unless somebody reads it; returns the bytes freed."""
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size_bytes = os.fstat(file.fileno()).st_size
        path.unlink()
        logger.debug("evicted %s", path.name)
        return size_bytes
    return 0


def _last_use(path: Path) -> float:
    with suppress(FileNotFoundError):
        return path.with_name(f"{path.name}.lock").stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
