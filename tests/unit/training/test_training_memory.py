"""Freed memory stays with the process. In a process of its own: the setting cannot be taken back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from sentinode.training.memory import keep_freed_memory

def faults(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        kept = [torch.ones(1 << 20) for _ in range(20)]
        del kept
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
if sys.argv[1] == "kept" and not keep_freed_memory():
    print(-1)
else:
    faults(5)
    print(faults(10))
"""


def page_faults(how: str) -> int:
    # Else glibc comes to keep memory by itself in some runs, after what it has seen freed.
    start = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", FAULTS, how]
    run = subprocess.run(
        command, env={**os.environ, **start}, capture_output=True, text=True, check=True, timeout=120
    )
    return int(run.stdout)


def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    kept = page_faults("kept")
    if kept < 0:
        pytest.skip("this C library is not glibc")
    assert kept < page_faults("given back") / 10
