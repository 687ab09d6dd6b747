"""Training as a command: leaks are refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_parts import write_lesson

from sentinode import cli
from sentinode.data.manifest import MANIFEST_NAME, Manifest
from sentinode.schema import Split
from sentinode.storage import open_store


def leaking(url: str) -> None:
    """A data set whose validation shards are training shards under another name."""
    manifest = write_lesson(url)
    store = open_store(url)
    train = next(shard for shard in manifest.shards if shard.split is Split.TRAIN)
    copy = train.model_copy(update={"split": Split.VALID, "name": "shards/copy-valid-000000.tar"})
    store.put(copy.name, store.get(train.name))
    kept = tuple(shard for shard in manifest.shards if shard.split is Split.TRAIN)
    values = manifest.model_dump() | {"shards": [s.model_dump() for s in (*kept, copy)]}
    store.put(MANIFEST_NAME, Manifest.model_validate(values).to_json())


def test_an_exact_leak_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaking(str(tmp_path / "data"))
    code = cli.run_step("train", ["--data", str(tmp_path / "data"), "--run", str(tmp_path / "run")])
    shown = capsys.readouterr().err
    assert code == 1
    assert "exact duplicate" in shown
    assert not (tmp_path / "run").exists()


def test_the_audit_names_the_leak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaking(str(tmp_path / "data"))
    assert cli.run_step("audit", [str(tmp_path / "data"), "--json-file", str(tmp_path / "audit.json")]) == 1
    assert "LEAK" in capsys.readouterr().err
    assert b'"exact duplicate"' in (tmp_path / "audit.json").read_bytes()


def test_a_clean_data_set_passes_the_audit(tmp_path: Path) -> None:
    write_lesson(str(tmp_path / "data"))
    assert cli.run_step("audit", [str(tmp_path / "data"), "--no-near-duplicates"]) == 0
