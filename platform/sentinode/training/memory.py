"""Freed memory stays with a process that trains on a CPU."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 256 << 20
_LARGEST_FROM_HEAP_BYTES: Final = 32 << 20
"""The largest that glibc takes."""


def keep_freed_memory() -> bool:
    """Let glibc keep up to 256 MiB of freed memory, for the whole process; False under another C library.

    Each step of training frees its activations, some megabytes each, and glibc gives them back to the kernel, which
    has to clear every page again for the next step: at times a quarter of a step of the seed CNN on 128 patches, as
    the heap happens to lie. Parameters as in mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    )
