"""A search in W&B, offline: one group, a summary run with the Pareto table and the importance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from search_parts import sweep_record, trial
from tracking_parts import config, history, of_kind, read_records

from sentinode.distributed.search_tracked import COLUMNS, told, track_sweep
from sentinode.search.records import SweepRecord, TrialState
from sentinode.search.sweep import Sweep, spread_of
from sentinode.storage import open_store
from sentinode.tracking import Bars, Chart, Table


@pytest.fixture
def record() -> SweepRecord:
    trials = [
        trial(n, 0.7 + n / 100, latency_ms=1.0 + n, choices={"depth": n % 2, "lr": 0.1 * n}) for n in range(6)
    ]
    return sweep_record(*trials, trial(6, state=TrialState.FAILED), spread=spread_of([0.8, 0.9]))


def test_what_is_told_of_a_search(record: SweepRecord) -> None:
    values = told(record)
    table, front, bars = values["search/pareto"], values["search/front"], values["search/importance"]
    assert isinstance(table, Table)
    assert table.columns == COLUMNS
    assert [row[:3] for row in table.rows][5:] == [(5, True, True), (6, False, False)]
    assert isinstance(front, Chart)
    assert front.lines["Pareto front"][0] == pytest.approx([1, 2, 3, 4, 5, 6])
    assert isinstance(bars, Bars)
    assert set(bars.bars) == {"depth", "lr"}


def test_it_is_kept_offline_below_the_search_for_a_later_sync(
    record: SweepRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    track_sweep(Sweep.begin(open_store(str(tmp_path)), record))
    (kept,) = (tmp_path / "wandb").glob("offline-run-*")
    records = read_records(kept)
    (run,) = of_kind(records, "run")
    assert (run.run_group, run.job_type) == ("test", "search")
    assert config(records)["config"]["space"] == record.config.space
    (row,) = history(records)
    assert {"search/pareto", "search/front_table", "search/importance_table"} <= {
        k.partition(".")[0] for k in row
    }
    tables = {
        path.name.partition("_")[0]: json.loads(path.read_bytes()) for path in kept.rglob("*.table.json")
    }
    assert tables["pareto"]["columns"] == list(COLUMNS)
    assert len(tables["pareto"]["data"]) == 7
