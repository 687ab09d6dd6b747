"""``sentinode tune`` where a search cannot begin: what is said, and that nothing is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_parts import write_lesson

from sentinode import cli


def test_a_search_that_could_not_begin_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_lesson(str(tmp_path / "data"))
    flags = ["--data", str(tmp_path / "data"), "--sweep", str(tmp_path / "sweep")]
    for _ in range(2):
        assert cli.run_step("tune", [*flags, "--ray-address", "127.0.0.1:1"]) == 2
        assert "no Ray cluster answers" in capsys.readouterr().err
    assert not (tmp_path / "sweep" / "sweep.json").exists()


def test_tracking_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    for step, place in (("tune", "--sweep"), ("train", "--run")):
        assert cli.run_step(step, ["--data", str(tmp_path), place, str(tmp_path / "there")]) == 2
        assert "there is no API key" in capsys.readouterr().err
    assert not (tmp_path / "there").exists()
