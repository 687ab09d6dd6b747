"""The audit log and disks that are slow."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import TextIO

import pytest

from sentinode.serving import audit
from sentinode.serving.audit import AuditLog


class Stuck:
    """A file that takes nothing until it is let go."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.closed = False
        self.is_asked, self.may_go = threading.Event(), threading.Event()

    def write(self, text: str) -> None:
        self.is_asked.set()
        assert self.may_go.wait(30)
        self._file.write(text)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def record(log: AuditLog, number: int) -> float:
    """How long it took."""
    began_s = time.perf_counter()
    log.record(f"id-{number}", "anonymous", "predict", "a" * 64, ["tumour"])
    return time.perf_counter() - began_s


def test_requests_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log._file = stuck = Stuck(log._file)  # type: ignore[assignment]
    record(log, 0)
    assert stuck.is_asked.wait(30)
    threading.Timer(2.0, stuck.may_go.set).start()
    assert max(record(log, number) for number in range(1, 100)) < 1.0
    assert not stuck.may_go.is_set()
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert [line["request_id"] for line in lines] == [f"id-{number}" for number in range(100)]


def test_they_wait_once_too_many_entries_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_MOST_WAITING", 10)
    log = AuditLog(tmp_path / "audit.jsonl")
    log._file = stuck = Stuck(log._file)  # type: ignore[assignment]
    record(log, 0)
    assert stuck.is_asked.wait(30)
    threading.Timer(0.5, stuck.may_go.set).start()
    assert sum(record(log, number) for number in range(1, 11)) > 0.3
    log.close()
    assert len((tmp_path / "audit.jsonl").read_text().splitlines()) == 11
