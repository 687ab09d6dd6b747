"""Log lines for people and machines."""

from __future__ import annotations

import json
import logging

import pytest

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
    for name in ("SENTINODE_LOG", "RAY_JOB_ID", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    assert logs.log_format() == "plain"
    monkeypatch.setenv("RAY_JOB_ID", "1")
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
