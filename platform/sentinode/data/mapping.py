"""One stretch of address space into which many files are mapped side by side.

``mmap.mmap`` cannot choose an address and keeps a descriptor per file open, so this calls the C library. A
mapping keeps its file's description alive, and with it a shared lock taken on it (a lease of the node
cache), until it is taken out.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from typing import BinaryIO

import torch

from sentinode.errors import StoreError

ALIGNMENT_BYTES = 2 << 20
"""Files are best mapped at multiples of this: the kernel then maps what lies in huge pages of its cache as
such, which spares most misses of the TLB in a random gather. Address space costs nothing.
"""

_PROT_NONE = 0
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000 if os.uname().sysname == "Linux" else 0x40
_MAP_POPULATE = 0x8000 if os.uname().sysname == "Linux" else 0
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int64,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


class Mapping:
    """``size_bytes`` of reserved address space, uint8 [size_bytes] as ``bytes_``. It takes no memory by
    itself.

    Reading where no file is mapped kills the process, as any stray pointer does: callers keep account.
    """

    def __init__(self, size_bytes: int) -> None:
        reserved_bytes = (-(-size_bytes // ALIGNMENT_BYTES) + 1) * ALIGNMENT_BYTES
        address = self._map(None, reserved_bytes, _PROT_NONE, _reserved(), -1)
        self._release = weakref.finalize(self, _libc.munmap, address, reserved_bytes)
        self._base = -(-address // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        # Tensors made from this view do not keep the address space; they must not outlive the mapping.
        view = (ctypes.c_uint8 * size_bytes).from_address(self._base)
        self.bytes_ = torch.frombuffer(view, dtype=torch.uint8)

    def place(self, file: BinaryIO, offset_bytes: int, size_bytes: int) -> None:
        """Map the first ``size_bytes`` of ``file``, read-only, at ``offset_bytes`` (whole pages)."""
        # All pages at once: met one by one, each costs a fault of several microseconds.
        flags = mmap.MAP_PRIVATE | _MAP_FIXED | _MAP_POPULATE
        self._map(self._base + offset_bytes, size_bytes, mmap.PROT_READ, flags, file.fileno())

    def clear(self, offset_bytes: int, size_bytes: int) -> None:
        """Take a file out again, which ends its lease; the address space stays reserved."""
        self._map(self._base + offset_bytes, size_bytes, _PROT_NONE, _reserved() | _MAP_FIXED, -1)

    def close(self) -> None:
        """Give the address space back and end all leases. Tensors made from ``bytes_`` are void then."""
        self._release()

    def _map(self, address: int | None, size_bytes: int, protection: int, flags: int, descriptor: int) -> int:
        assert address is None or self._release.alive, "the mapping is closed"
        result = _libc.mmap(address, size_bytes, protection, flags, descriptor, 0)
        if result is None or result == _FAILED:
            cause = os.strerror(ctypes.get_errno())
            raise StoreError(
                f"{size_bytes} bytes cannot be mapped into memory: {cause}",
                "address space for all shards",
                "raise the limits on address space (ulimit -v) and on maps (sysctl vm.max_map_count)",
            )
        return int(result)


def _reserved() -> int:
    return mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
