"""Tracking by W&B: offline without a key, and never in the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentinode.tracking import Tracker, tracking_mode


def test_mode_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert tracking_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")
    assert tracking_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking_mode() == "disabled"


def test_disabled_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = Tracker("run", "id1", {}, tmp_path / "wandb")
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert not (tmp_path / "wandb").exists()


def test_offline_run_is_kept_below_the_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker("run", "id1", {"lr": 0.1}, tmp_path)
    assert tracker.active
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert caplog.text == ""


def test_a_fault_is_logged_and_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    tracker = Tracker("run", "id1", {}, blocked / "wandb")
    tracker.log({"loss": 1.0}, 1)
    tracker.finish()
    assert not tracker.active
    assert "untracked" in caplog.text
