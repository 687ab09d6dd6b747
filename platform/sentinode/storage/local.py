"""A local (or network-mounted) folder as an object store."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from sentinode.errors import ConfigError, IntegrityError, ObjectNotFoundError, PreconditionFailedError
from sentinode.storage.files import HIDDEN, Receipt, copy, sync, temporary_beside, typed_os_errors, walk
from sentinode.storage.interface import ObjectInfo, Progress
from sentinode.storage.urls import check_condition, check_key, check_prefix

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LocalStore:
    """Objects are the files below ``folder``; their keys are relative paths.

    Writes are atomic and durable (temporary file, fsync, rename), and conditional ones are safe between
    threads, processes and hosts that share the folder (a lock file in each folder written to). The etag is
    the version of the file (modification time, inode, size): every write makes a new one, and no file has to
    be read to know it.
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.absolute())

    @property
    def url(self) -> str:
        return str(self.folder)

    def locate(self, key: str) -> str:
        return str(self._path(key))

    def sub(self, prefix: str) -> LocalStore:
        return LocalStore(self._path(prefix.rstrip("/")))

    def stat(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with typed_os_errors(str(path)):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
            return ObjectInfo(key, status.st_size, _etag(status), modified_at) if path.is_file() else None

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        path = self._path(key)
        with typed_os_errors(str(path)), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            end = size if length is None else start + length
            if end > size or (start > 0 and start >= size):
                raise IntegrityError(f"{path} has {size} bytes", f"at least {max(end, start + 1)}")
            file.seek(start)
            return file.read(end - start)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        path = self._path(key)
        # The open file stays the version it was, whatever is renamed over its path meanwhile.
        with typed_os_errors(str(path)), path.open("rb") as file:
            return file.read(), _etag(os.fstat(file.fileno()))

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        check_condition(if_none_match, if_match)
        path = self._path(key)
        with typed_os_errors(str(path)), temporary_beside(path) as temporary:
            temporary.write_bytes(data)
            return _publish(temporary, path, if_none_match=if_none_match, if_match=if_match)

    def download(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        size_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        source = self._path(key)
        with typed_os_errors(str(source)):
            reading = source.open("rb")
        with reading, typed_os_errors(str(path)), temporary_beside(path) as temporary:
            receipt = Receipt(sha256, size_bytes)
            receipt.check_size(str(source), os.fstat(reading.fileno()).st_size)
            with temporary.open("xb") as writing:
                copy(reading, writing, receipt, progress)
            receipt.check(str(source))
            temporary.replace(path)

    def upload(self, path: Path, key: str, *, progress: Progress | None = None) -> ObjectInfo:
        target = self._path(key)
        with typed_os_errors(str(path)):
            reading = path.open("rb")
        with reading, typed_os_errors(str(target)), temporary_beside(target) as temporary:
            receipt = Receipt(None, os.fstat(reading.fileno()).st_size)
            with temporary.open("xb") as writing:
                copy(reading, writing, receipt, progress)
            receipt.check(str(path))
            size_bytes = temporary.stat().st_size
            return ObjectInfo(key, size_bytes, _publish(temporary, target))

    def list(self, prefix: str = "", *, linked: bool = False) -> Iterator[ObjectInfo]:
        top = self.folder / check_prefix(prefix).rpartition("/")[0]
        names: list[str] = []
        with typed_os_errors(str(top)):
            for folder, _, files in walk(top, _unless_missing, linked=linked):
                at = Path(folder).relative_to(self.folder)
                names += [(at / name).as_posix() for name in files if not name.startswith(HIDDEN)]
        keys = [name for name in names if name.startswith(prefix) and self._is_key(name)]
        for name in sorted(keys, key=str.encode):
            info = self.stat(name)
            if info is not None:
                yield info

    def delete(self, key: str) -> None:
        path = self._path(key)
        with typed_os_errors(str(path)):
            if path.is_file():
                with _locked(path.parent):
                    path.unlink(missing_ok=True)

    def _is_key(self, name: str) -> bool:
        try:
            check_key(name)
        except ConfigError:
            _leave_out(f"{self.folder}/{name}")
            return False
        return True

    def _path(self, key: str) -> Path:
        path = self.folder / check_key(key)
        if path.name.startswith(HIDDEN):
            raise ObjectNotFoundError(f"{path} is a temporary file or lock", "an object")
        return path


def _publish(temporary: Path, path: Path, *, if_none_match: bool = False, if_match: str | None = None) -> str:
    """Rename a finished file over ``path`` where the condition holds; returns the new etag."""
    sync(temporary)
    with _locked(path.parent):
        found = path.stat() if path.exists() else None
        if if_none_match and found:
            raise PreconditionFailedError(f"{path} exists already", "no such object yet")
        if if_match is not None and (found is None or _etag(found) != if_match):
            raise PreconditionFailedError(
                f"{path} was changed or removed by another writer", f"the version {if_match}", "read it again"
            )
        # Strictly later than the version replaced, however coarse the clock: an etag never comes back.
        modified_ns = max(time.time_ns(), found.st_mtime_ns + 1 if found else 0)
        os.utime(temporary, ns=(modified_ns, modified_ns))
        temporary.replace(path)
        etag = _etag(path.stat())
    sync(path.parent)
    return etag


@cache
def _leave_out(path: str) -> None:
    """Told once: stores are listed again and again."""
    log.warning("%a is left out: its name can be no key (control characters, not UTF-8 or too long)", path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of all writers to ``folder``. A file, since network file systems do not lock folders."""
    with (folder / f"{HIDDEN}lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _etag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}"


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
