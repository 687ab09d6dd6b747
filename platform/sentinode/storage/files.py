"""Local files written aside and hashed while they pass, and the operating system's errors made typed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from sentinode.errors import IntegrityError, ObjectNotFoundError, StoreAccessError, StoreError
from sentinode.storage.interface import Progress

HIDDEN = ".sentinode."
"""Base names that start so are temporary files and locks, never objects."""

CHUNK_BYTES = 1 << 20


@contextmanager
def typed_os_errors(where: str) -> Iterator[None]:
    """Turn OSError into a StoreError that names ``where``: not found, no permission, disk full, ..."""
    try:
        yield
    except OSError as error:
        raise _typed(error, where) from error


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """The path of a temporary file in the folder of ``path``, which is made; removed at the end of the block.

    Whoever wants to keep it renames it over ``path`` within the block: atomic, being on one file system.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{HIDDEN}{uuid4().hex}.tmp")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def walk(
    top: Path, onerror: Callable[[OSError], None], *, linked: bool
) -> Iterator[tuple[str, list[str], list[str]]]:
    """``os.walk``; ``linked``: also through links to folders, but not to those below ``top``, which are met anyway,
    and not back into one that the walk came through."""
    root = top.resolve()
    for folder, folders, names in os.walk(top, onerror=onerror, followlinks=linked):
        if linked:
            folders[:] = [name for name in folders if not _met(Path(folder, name), root)]
        yield folder, folders, names


def _met(path: Path, root: Path) -> bool:
    if not path.is_symlink():
        return False
    return path.resolve().is_relative_to(root) or any(path.samefile(parent) for parent in path.parents)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Receipt:
    """Counts and, where a digest is expected, hashes the bytes of one object on their way into a file."""

    def __init__(self, sha256: str | None, size_bytes: int | None) -> None:
        self._expected_sha256 = sha256
        self._expected_bytes = size_bytes
        self._hash = hashlib.sha256() if sha256 else None
        self._bytes = 0

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Take note of the next bytes."""
        self._bytes += len(data)
        if self._hash:
            self._hash.update(data)

    def add_from(self, file: BinaryIO, size_bytes: int) -> None:
        """Take note of the next ``size_bytes`` of ``file``. Raises OSError."""
        left = size_bytes
        while chunk := file.read(min(CHUNK_BYTES, left)):
            self.add(chunk)
            left -= len(chunk)

    def expects_at_most(self, size_bytes: int) -> bool:
        """Whether the size is known beforehand, and no larger."""
        return self._expected_bytes is not None and self._expected_bytes <= size_bytes

    def check_size(self, where: str, size_bytes: int) -> None:
        """Raises IntegrityError where ``where`` is known to have another size than expected."""
        check_size(where, size_bytes, self._expected_bytes)

    def check(self, where: str) -> None:
        """Raises IntegrityError where size or digest differ from what was expected of ``where``."""
        self.check_size(where, self._bytes)
        if self._hash and self._hash.hexdigest() != self._expected_sha256:
            raise IntegrityError(
                f"{where} has the SHA-256 {self._hash.hexdigest()}",
                f"{self._expected_sha256}",
                "the object is damaged or was replaced: restore it or make it anew",
            )


def copy(source: BinaryIO, target: BinaryIO, receipt: Receipt, progress: Progress | None) -> None:
    """Copy what is left of ``source``, noting it in ``receipt``. Raises OSError."""
    while chunk := source.read(CHUNK_BYTES):
        target.write(chunk)
        receipt.add(chunk)
        if progress:
            progress(len(chunk))


def check_size(where: str, size_bytes: int, expected_bytes: int | None) -> None:
    """Raises IntegrityError where the sizes differ; None expects nothing."""
    if expected_bytes is not None and size_bytes != expected_bytes:
        raise IntegrityError(
            f"{where} has {size_bytes} bytes",
            f"{expected_bytes} bytes",
            "the object is cut off or was replaced: restore it or make it anew",
        )


def _typed(error: OSError, where: str) -> StoreError:
    cause = f"{where}: {error.strerror or error}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR:
            return ObjectNotFoundError(cause, "a file")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StoreAccessError(
                cause, "a folder that this user may use", "change its permissions or choose another"
            )
        case errno.ENOSPC | errno.EDQUOT:
            return StoreError(cause, "room on the disk", "free some space or choose another folder")
    return StoreError(cause)
