"""Log lines for people and machines."""

from __future__ import annotations

import io
import json
import logging
import re
import time

import pytest
from rich.console import Console

from sentinode import logs


def test_json_lines_are_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SENTINODE_LOG", "json")
    logs.configure_logging()
    logging.getLogger("sentinode.test").info("read %d patches\nand more", 3)
    entry = json.loads(capsys.readouterr().err)
    assert entry["message"] == "read 3 patches\nand more"
    assert entry["level"] == "info"
    assert entry["time"].endswith("Z")


def test_json_lines_carry_the_exception() -> None:
    try:
        raise ValueError("odd")
    except ValueError as error:
        record = logging.LogRecord(
            "x", logging.ERROR, "", 0, "m", (), (ValueError, error, error.__traceback__)
        )
    assert "ValueError: odd" in json.loads(logs.JsonFormatter().format(record))["exception"]


def test_a_job_logs_json_and_a_pipe_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SENTINODE_LOG", "RAY_JOB_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert logs.log_format() == "plain"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert logs.log_format() == "json"


def test_progress_in_a_job_is_a_line_at_the_end_of_a_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SENTINODE_LOG", "plain")
    logs.configure_logging()
    with logs.progress_bars() as progress:
        for done in range(101):
            progress("scan", done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("INFO ")[1] for line in lines] == ["scan: 100 of 100"]


def test_time_to_go_is_judged_by_work_seen_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SENTINODE_LOG", "plain")
    monkeypatch.setattr(logs, "PROGRESS_LINE_EVERY_S", 0.0)
    logs.configure_logging()
    with logs.progress_bars() as progress:
        progress("train", 0, 100, "starting")
        time.sleep(0.2)
        progress("train", 50, 100)  # of a former process
        progress("train", 50.5, 100, "loss 0.4")
    shown = capsys.readouterr().err
    assert not {"\r", "\x1b"} & set(shown)
    started, resumed, gone_on = (line.split("INFO ")[1] for line in shown.splitlines())
    assert (started, resumed) == ("train: 0 of 100; starting", "train: 50 of 100")
    rest_s = int(re.fullmatch(r"train: 50 of 100, about (\d+) s to go; loss 0\.4", gone_on)[1])  # type: ignore[index]
    assert rest_s < 10


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119.0, "119 s"), (150.0, "2 min"), (7199.0, "120 min"), (9000.0, "2.5 h")],
)
def test_durations_as_a_person_says_them(seconds: float, text: str) -> None:
    assert logs.duration(seconds) == text


def test_bar_and_figures_fit_a_narrow_terminal() -> None:
    console = Console(width=80, file=io.StringIO())
    display = logs._Display(console)
    note = "step 17 of 18, loss 0.411, AUROC 0.758, 1109 patches/s, waiting 3%, 2 workers"
    display.add_task("predict valid", total=32_768, completed=1_000, note="")
    display.add_task("train", total=60, completed=20.5, note=note)
    for part in display.get_renderables():
        console.print(part)
    bars, figures = console.file.getvalue().splitlines()[:2], console.file.getvalue().splitlines()[2:]  # type: ignore[attr-defined]
    assert all(len(bar) <= 80 and "-:--:--" in bar for bar in bars)
    assert figures == [f"  {note}"]
