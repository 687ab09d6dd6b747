"""What a search says in a log: lines of a width that stays readable, with no value apart from its name."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from search_parts import sweep_record, trial

from sentinode.commands.tune_told import STANDING_EVERY_S, SweepTold
from sentinode.logs import configure_logging
from sentinode.search.records import SweepRecord, TrialState
from sentinode.search.spaces import SPACES
from sentinode.search.sweep import Sweep
from sentinode.storage import open_store

CHOICES = SPACES["two-core"].starts[1]


@pytest.fixture
def record() -> SweepRecord:
    return sweep_record(
        trial(0, 0.8, 0.9, choices=CHOICES),
        trial(1, choices=CHOICES, latency_ms=None, state=TrialState.RUNNING),
        trial(2, 0.7, choices=CHOICES, state=TrialState.STOPPED),
    )


@pytest.fixture
def told(tmp_path: Path, record: SweepRecord, monkeypatch: pytest.MonkeyPatch) -> SweepTold:
    monkeypatch.setenv("SENTINODE_LOG", "plain")
    now = time.monotonic()
    told = SweepTold(Sweep.begin(open_store(str(tmp_path)), record))
    monkeypatch.setattr(time, "monotonic", lambda: now + 2 * STANDING_EVERY_S)
    return told


def test_a_log_has_readable_lines(
    told: SweepTold, record: SweepRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging()
    with told:
        told.begun(record.trials[1])
        told.epoch(record.trials[0])
        told.over(record.trials[2])
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert max(map(len, lines)) < 100
    assert said.replace("\n", "").isprintable()
    assert "trial 1 begins: seed-cnn, optimizer adamw, lr 0.003" in lines[0], "the family first"
    for name, value in CHOICES.items():
        short = name.rpartition(".")[2]
        assert short == "family" or f"{short} {value}" in said, "on one line"


def test_the_standing_in_a_log_has_headings_above_its_columns(
    told: SweepTold, record: SweepRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging()
    with told:
        told.epoch(record.trials[0])
    head, *rows = capsys.readouterr().err.splitlines()[2:]
    assert len(rows) == 3
    ends = head.index("quality") + len("quality")
    assert [row[:ends].split()[-1] for row in rows] == ["–", "0.9000", "0.7000"]
    starts = head.index("state")
    assert [row[starts:].split()[0] for row in rows] == ["running", "finished", "stopped"]


def test_json_keeps_one_object_for_one_event(
    told: SweepTold,
    record: SweepRecord,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SENTINODE_LOG", "json")
    configure_logging()
    with told:
        told.begun(record.trials[1])
    (line,) = capsys.readouterr().err.splitlines()
    assert "widths 4-8-16" in json.loads(line)["message"]
