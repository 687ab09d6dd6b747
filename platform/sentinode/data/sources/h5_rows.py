"""Random access to the patches of an HDF5 file without HDF5's per-read cost.

PCam's ``x`` is one array [N, 96, 96, 3]. Where its rows lie uncompressed and whole in the file, each has a
byte offset and is read by one ``pread``. Otherwise (gzip chunks, or the whole file gzipped) the array is
unpacked once per node, in contiguous blocks in file order, into a raw scratch file; a row's offset is then
its number times its size.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
import numpy.typing as npt

from sentinode.data.sources.base import Pixels
from sentinode.errors import SourceError
from sentinode.schema import PATCH_BYTES, PATCH_PX

PIXELS_KEY: Final = "x"
_SHAPE = (PATCH_PX, PATCH_PX, 3)
_BLOCK_ROWS = 1024
_COPY_BYTES = 4 << 20


@dataclass(frozen=True)
class Rows:
    """Where each of the N patches lies: ``offsets`` int64, byte offsets in the file ``path``."""

    path: Path
    offsets: npt.NDArray[np.int64]

    def read(self, rows: Iterable[int]) -> Iterator[tuple[int, Pixels]]:
        """(row, pixels uint8 [96, 96, 3]) in file order. Raises SourceError where the file ends too soon."""
        ordered = sorted(rows, key=lambda row: int(self.offsets[row]))
        with self.path.open("rb", buffering=0) as file:
            for row in ordered:
                data = os.pread(file.fileno(), PATCH_BYTES, int(self.offsets[row]))
                if len(data) != PATCH_BYTES:
                    raise SourceError(
                        f"{self.path.name} ends before row {row}", "a whole file", "fetch it again"
                    )
                yield row, np.frombuffer(data, np.uint8).reshape(_SHAPE)


def open_rows(path: Path) -> Rows:
    """The patches of ``path`` (``.h5`` or ``.h5.gz``), unpacked to scratch on this node where that is needed.

    Raises SourceError for a damaged file, a missing ``x``, or one that is not uint8 [N, 96, 96, 3].
    """
    if path.suffix != ".gz":
        with open_h5(path) as file:
            offsets = _offsets(_pixels(file, path))
        if offsets is not None:
            return Rows(path, offsets)
    raw = _unpack(path)
    return Rows(raw, np.arange(raw.stat().st_size // PATCH_BYTES, dtype=np.int64) * PATCH_BYTES)


def close_rows(path: Path) -> None:
    """Remove the scratch copy of ``path`` on this node, if there is one."""
    _scratch(path).unlink(missing_ok=True)


@contextmanager
def open_h5(path: Path) -> Iterator[Any]:
    """An HDF5 file for reading; h5py's errors become SourceError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        what = str(error).partition("(")[2].rstrip(")") or type(error).__name__
        raise SourceError(
            f"{path.name} cannot be read as HDF5 ({what})", "a whole file", "fetch it again"
        ) from error


@contextmanager
def gunzipped(path: Path) -> Iterator[Path]:
    """``path`` itself, or for ``.gz`` a temporary decompressed copy. Raises SourceError where it is
    damaged."""
    if path.suffix != ".gz":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="sentinode-") as folder:
        plain = Path(folder, path.stem)
        try:
            with gzip.open(path, "rb") as packed, plain.open("wb") as out:
                shutil.copyfileobj(packed, out, _COPY_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(
                f"{path.name} is damaged or cut short ({error})", "a whole gzip file", "fetch it again"
            ) from error
        except OSError as error:
            raise _no_room(path, error) from error
        yield plain


def _pixels(file: Any, path: Path) -> Any:
    if PIXELS_KEY not in file or not isinstance(file[PIXELS_KEY], h5py.Dataset):
        raise SourceError(f"{path.name} holds {sorted(file)}", f"an array named {PIXELS_KEY}")
    x = file[PIXELS_KEY]
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[1:] != _SHAPE:
        raise SourceError(f"x of {path.name} is {x.dtype} {list(x.shape)}", "uint8 [N, 96, 96, 3]")
    return x


def _offsets(x: Any) -> npt.NDArray[np.int64] | None:
    """Byte offset of each row in the file, or None where rows do not lie there plain and whole."""
    count = x.shape[0]
    if x.chunks is None:
        start = x.id.get_offset()
        return None if start is None or x.external else start + np.arange(count, dtype=np.int64) * PATCH_BYTES
    if x.id.get_create_plist().get_nfilters() or x.chunks[1:] != _SHAPE:
        return None
    rows = x.chunks[0]
    offsets = np.full(count, -1, np.int64)

    def place(chunk: Any) -> None:
        first = chunk.chunk_offset[0]
        last = min(first + rows, count)
        offsets[first:last] = chunk.byte_offset + np.arange(last - first) * PATCH_BYTES

    x.id.chunk_iter(place)
    return None if (offsets < 0).any() else offsets


def _scratch(path: Path) -> Path:
    """The node-local place of ``path``'s raw patches; another size or date of ``path`` gives another
    place."""
    stat = path.stat()
    name = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir(), f"sentinode-unpacked-{os.getuid()}", f"{name}.raw")


def _unpack(path: Path) -> Path:
    raw = _scratch(path)
    raw.parent.mkdir(mode=0o700, exist_ok=True)
    if raw.parent.stat().st_uid != os.getuid():
        raise SourceError(
            f"{raw.parent} belongs to another user", "a folder of one's own", "point TMPDIR elsewhere"
        )
    with raw.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one process of the node unpacks, the others wait for it
        if not raw.exists():
            with gunzipped(path) as plain, open_h5(plain) as file:
                _copy_rows(_pixels(file, path), raw, path)
    return raw


def _copy_rows(x: Any, raw: Path, path: Path) -> None:
    part = raw.with_suffix(".part")
    try:
        with part.open("wb") as out:
            for start in range(0, x.shape[0], _BLOCK_ROWS):
                out.write(np.ascontiguousarray(x[start : start + _BLOCK_ROWS]).data)
        part.replace(raw)
    except OSError as error:
        if error.errno is None:
            raise  # from HDF5: a damaged chunk
        raise _no_room(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _no_room(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{path.name} cannot be unpacked into {tempfile.gettempdir()} ({error.strerror or error})",
        "room for the unpacked patches on each node",
        "point TMPDIR at a larger disk, or unpack the file yourself",
    )
