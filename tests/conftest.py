"""Fixtures that every test may ask for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real patches (SENTINODE_TEST_DATA, else ../shared/data); skips, visibly, where there is none."""
    asked = os.environ.get("SENTINODE_TEST_DATA")
    folder = Path(asked) if asked else ROOT.parent / "shared" / "data"
    if not (folder / "kaggle" / "train_labels.csv").is_file():
        pytest.skip("no real patches: set SENTINODE_TEST_DATA to a folder with kaggle/ and pcam_jpeg/")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reaches W&B, and none leaves shards in the user's cache."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("SENTINODE_CACHE", str(tmp_path / "shard-cache"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Tests that draw with torch draw the same each time; those without torch do not import it for that."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
