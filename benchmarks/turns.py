"""Cases in processes of their own, which are stopped but for their turns."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

Case = Callable[[], Iterator[int]]
"""Opens an endless iterator that yields how many items it has just done; picklable."""


@dataclass(frozen=True)
class Turn:
    """What a case did in one turn."""

    done: int
    wall_s: float
    cpu_s: float
    """Of its process and those it started."""
    rss_mib: float | None
    """The most memory its process had so far."""


@contextmanager
def interpreter(python: Path | None) -> Iterator[None]:
    """Processes that start within run ``python``, with the packages it finds (None: as this one)."""
    if python is None:
        yield
        return
    asked = [str(python), "-c", "import json, sys; print(json.dumps(sys.path[1:]))"]
    found = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    ours = sys.path[:]
    multiprocessing.set_executable(str(python))
    sys.path[:] = [str(Path(__file__).parent), *found]
    try:
        yield
    finally:
        sys.path[:] = ours
        multiprocessing.set_executable(sys.executable)


class Worker:
    """One case in a process that is stopped, with those it starts, but for its turns."""

    def __init__(self, case: Case, core: int | None) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, case, core))
        self._process.start()
        theirs.close()
        self.refusal: str | None = self._pipe.recv()
        self._signal(signal.SIGSTOP)

    def run(self, seconds: float) -> Turn:
        """For ``seconds``, and at least one step of the case."""
        self._signal(signal.SIGCONT)
        self._pipe.send(seconds)
        turn: Turn = self._pipe.recv()
        self._signal(signal.SIGSTOP)
        return turn

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.join()

    def _signal(self, number: signal.Signals) -> None:
        if self._process.pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _serve(pipe: Connection, case: Case, core: int | None) -> None:
    # A group, for processes that the case starts; not a session, which Linux would schedule on its own.
    os.setpgid(0, 0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        work = case()
        next(work)
    except ImportError as error:
        pipe.send(f"not installed ({error})")
        return
    pipe.send(None)
    while True:
        seconds = pipe.recv()
        began, began_cpu, done = time.perf_counter(), _cpu_s(), 0
        while not done or time.perf_counter() - began < seconds:
            done += next(work)
        took_s, cpu_s = time.perf_counter() - began, _cpu_s() - began_cpu
        pipe.send(Turn(done, took_s, cpu_s, _peak_mib()))


def _cpu_s() -> float:
    """CPU time of this process and of all it started, ended or alive."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total_s = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            total_s += sum(child.cpu_times()[:4])  # user and system, of itself and of its own ended children
    return total_s


def _peak_mib() -> float | None:
    """The most memory this process had (not its parent, which ``getrusage`` takes in)."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else None
