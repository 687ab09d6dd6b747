"""What the driver tells of a run that ranks write."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from sentinode.distributed import watch
from sentinode.distributed.lost_workers import NotesLostWorkers
from sentinode.distributed.watch import NoOnlooker, watched
from sentinode.storage import open_store
from sentinode.training.keeper import PROGRESS_KEY
from sentinode.training.metrics import ProgressRecord


class Listener(NoOnlooker):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def progress(self, record: ProgressRecord) -> None:
        self.steps.append(record.step)


def progress(step: int) -> str | bytes:
    values = {"epoch": 1, "step": step, "steps": 9, "epochs": 2, "loss": 0.5, "patches_per_s": 9.0}
    return ProgressRecord.model_validate(values | {"wait_fraction": 0.0, "world_size": 1}).canonical_json()


def test_progress_of_a_killed_process_is_not_told_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "WATCH_S", 0.02)
    store, listener = open_store(str(tmp_path)), Listener()
    store.put(PROGRESS_KEY, progress(5))
    with watched(store, listener):
        time.sleep(0.2)
        assert listener.steps == []
        store.put(PROGRESS_KEY, progress(7))
        deadline = time.monotonic() + 10
        while not listener.steps and time.monotonic() < deadline:
            time.sleep(0.02)
    assert listener.steps == [7]


def test_workers_that_are_lost_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "WATCH_S", 0.02)
    run = str(tmp_path)
    notes = NotesLostWorkers(run)
    notes.after_exception(None, {0: RuntimeError("of a killed process")})
    with caplog.at_level(logging.WARNING), watched(open_store(run), NoOnlooker()):
        notes.after_exception(None, {3: RuntimeError("the actor\n died"), 1: RuntimeError("its\nnode  died")})
        deadline = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.2)
    assert caplog.messages == [
        "lost the worker of rank 1, 3 (its node died); all go on from the last checkpoint as soon as they can"
    ]
