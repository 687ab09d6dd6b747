"""Freed memory stays with the process. In a process of its own: the setting cannot be taken back."""

from __future__ import annotations

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
    run = subprocess.run(
        [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True, timeout=120
    )
    return int(run.stdout)


def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    kept = page_faults("kept")
    if kept < 0:
        pytest.skip("this C library is not glibc")
    pages = 10 * 20 * (4 << 20) // 4096
    assert kept < pages / 100
    assert page_faults("as it comes") > pages / 10
