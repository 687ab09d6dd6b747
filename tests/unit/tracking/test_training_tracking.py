"""Tracking by W&B: offline without a key, whole in its own folder, and never in the way."""

from __future__ import annotations

import json
import logging
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from tracking_parts import config, history, of_kind, read_records, summary

from sentinode.errors import ConfigError
from sentinode.tracking import (
    Artefact,
    Chart,
    ConfusionMatrix,
    Picture,
    Tracker,
    check_tracking,
    tracking_mode,
)

SECRETS = {"WANDB_API_KEY": "local-" + "5ec0e7" * 7, "AWS_SECRET_ACCESS_KEY": "not-to-be-told"}
PIXELS = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)


class Offline(NamedTuple):
    """A run that has ended, and what was there when it had."""

    records: list[Any]
    files: dict[str, bytes]
    home: list[Path]
    warnings: list[str]


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Offline:
    """One offline run, of which all is noted that can be, and some that cannot."""
    folder, home = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("home")
    warnings: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger(Tracker.__module__)
    log.addHandler(handler)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WANDB_MODE", "offline")
        environment.setenv("HOME", str(home))
        for name, value in SECRETS.items():
            environment.setenv(name, value)
        before = dict(os.environ)
        tracker = Tracker(folder)
        with tracker.run("first", "id1", {"train": {"lr": 0.1, "mix": {"cutmix": 0.5}}}):
            assert tracker.active
            tracker.log_input(Artefact("pcam", "dataset", "s3://bucket/pcam/manifest.json", "a" * 64))
            tracker.log({"loss": 2.0}, 1)
            for step in (2, 3):
                tracker.log({"bad": Chart("Bad", "x", "y", {"uneven": ([0.0], [])})}, step)
            tracker.log(
                {
                    "loss": 1.0,
                    "valid/roc": Chart(
                        "ROC", "fpr", "tpr", {"model": ([0.0, 0.5], [0.0, 1.0]), "chance": ([0.0], [0.0])}
                    ),
                    "valid/confusion": ConfusionMatrix("At 0.5", ("negative", "tumour"), ((5, 1), (2, 4))),
                    "valid/errors": [Picture(PIXELS, "a patch"), Picture(PIXELS // 2, "a dark one")],
                },
                4,
            )
            tracker.summarise({"best": {"loss": 1.0}})
            weights = folder / "best.safetensors"
            weights.write_bytes(b"weights")
            tracker.log_output(Artefact("pcam-net", "model", str(weights), "b" * 64, {"data": "pcam"}))
        assert dict(os.environ) == before
        files = {path.relative_to(folder / "wandb").as_posix(): path.read_bytes() for path in tracker.files()}
    log.removeHandler(handler)
    (kept,) = (folder / "wandb").glob("offline-run-*-id1")
    return Offline(read_records(kept), files, list(home.rglob("*")), warnings)


def artefact(offline: Offline, name: str) -> Any:
    (found,) = (a for a in of_kind(offline.records, "artifact") if a.name == name)
    return found


def media(offline: Offline, path: str) -> bytes:
    (content,) = (content for key, content in offline.files.items() if key.endswith(f"/files/{path}"))
    assert path in {file.path for files in of_kind(offline.records, "files") for file in files.files}
    return content


def test_mode_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert tracking_mode() == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "not-a-key")
    assert tracking_mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking_mode() == "disabled"


def test_what_cannot_be_tracked_as_asked_is_told_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "onlin")
    with pytest.raises(ConfigError, match="WANDB_MODE is 'onlin'"):
        check_tracking()
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ConfigError, match=r"no API key for https://api\.wandb\.ai"):
        check_tracking()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password kept-by-wandb-login\n")
    assert check_tracking() == "online, https://api.wandb.ai"
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(ConfigError, match=r"no API key for https://wandb\.example\.org"):
        check_tracking()
    monkeypatch.setenv("WANDB_API_KEY", SECRETS["WANDB_API_KEY"])
    assert check_tracking() == "online, https://wandb.example.org"
    for mode, words in (("offline", "offline, to be sent"), ("disabled", "nothing is tracked")):
        monkeypatch.setenv("WANDB_MODE", mode)
        assert check_tracking().startswith(words)


@pytest.mark.parametrize(("asked", "project"), [(None, "sentinode"), ("nodes", "nodes")])
def test_the_project_is_the_environment_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asked: str | None, project: str
) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    if asked:
        monkeypatch.setenv("WANDB_PROJECT", asked)
    tracker = Tracker(tmp_path)
    with tracker.run("one", "id2", {}, group="together"):
        (folder,) = {path.parent for path in tracker.files() if path.suffix == ".wandb"}
    (begun,) = of_kind(read_records(folder), "run")
    assert (begun.project, begun.run_group, begun.display_name) == (project, "together", "one")


def test_disabled_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tracker = Tracker(tmp_path / "wandb")
    with tracker.run("run", "id1", {}):
        tracker.log({"loss": 1.0}, 1)
    assert not (tmp_path / "wandb").exists()
    assert not list(tracker.files())


def test_figures_stand_at_their_steps(offline: Offline) -> None:
    rows = [(row["_step"], row["loss"]) for row in history(offline.records) if "loss" in row]
    assert rows == [(1, 2.0), (4, 1.0)]
    assert summary(offline.records)["best"] == {"loss": 1.0}


def test_config_stays_nested(offline: Offline) -> None:
    assert config(offline.records)["train"] == {"lr": 0.1, "mix": {"cutmix": 0.5}}


def test_charts_travel_as_media_files(offline: Offline) -> None:
    row = history(offline.records)[-1]
    roc = json.loads(media(offline, row["valid/roc_table.path"]))
    assert roc["columns"] == ["fpr", "tpr", "line"]
    assert roc["data"] == [[0, 0, "model"], [0.5, 1, "model"], [0, 0, "chance"]]
    counts = json.loads(media(offline, row["valid/confusion_table.path"]))["data"]
    assert counts == [
        ["negative", "negative", 5],
        ["negative", "tumour", 1],
        ["tumour", "negative", 2],
        ["tumour", "tumour", 4],
    ]
    drawn = {
        item.nested_key[-1]: json.loads(item.value_json)["panel_config"]["panelDefId"]
        for change in of_kind(offline.records, "config")
        for item in change.update
        if list(item.nested_key[:2]) == ["_wandb", "visualize"]
    }
    assert drawn == {"valid/roc": "wandb/line/v0", "valid/confusion": "wandb/confusion_matrix/v1"}


def test_pictures_travel_as_media_files(offline: Offline, tmp_path: Path) -> None:
    row = history(offline.records)[-1]
    assert row["valid/errors.captions"] == ["a patch", "a dark one"]
    file = tmp_path / "first.png"
    file.write_bytes(media(offline, row["valid/errors.filenames"][0]))
    np.testing.assert_array_equal(np.asarray(Image.open(file)), PIXELS)


def test_artefacts_refer_to_storage_and_need_no_staged_bytes(offline: Offline) -> None:
    data, model = artefact(offline, "pcam"), artefact(offline, "pcam-net")
    assert len(of_kind(offline.records, "artifact")) == 2
    assert data.use_after_commit
    assert not model.use_after_commit
    assert json.loads(model.metadata) == {"data": "pcam"}
    (entry,) = data.manifest.contents
    assert (entry.path, entry.ref) == (f"manifest-{'a' * 12}.json", "s3://bucket/pcam/manifest.json")
    assert not entry.local_path
    (entry,) = model.manifest.contents
    assert entry.path == f"best-{'b' * 12}.safetensors"
    assert entry.ref.startswith("file:///")
    assert not entry.local_path


def test_the_system_is_measured(offline: Offline) -> None:
    names = {item.key for stats in of_kind(offline.records, "stats") for item in stats.item}
    assert "memory_percent" in names


def test_no_secret_is_told(offline: Offline) -> None:
    assert len(offline.files) > 4
    told = [key for key, content in offline.files.items() for s in SECRETS.values() if s.encode() in content]
    assert told == []


def test_the_home_stays_clean(offline: Offline) -> None:
    assert offline.home == []


def test_a_failure_is_logged_once_and_tracking_goes_on(offline: Offline) -> None:
    assert len(offline.warnings) == 1
    assert "training goes on" in offline.warnings[0]


def test_what_cannot_begin_is_not_tracked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    tracker = Tracker(blocked / "wandb")
    with tracker.run("run", "id1", {}):
        tracker.log({"loss": 1.0}, 1)
        assert not tracker.active
    assert not list(tracker.files())
    assert "training goes on" in caplog.text


def test_a_server_out_of_reach_means_an_offline_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as nobody:  # bound, but not listening
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", SECRETS["WANDB_API_KEY"])
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setattr("sentinode.tracking.tracker.INIT_TIMEOUT_S", 0.2)
        tracker = Tracker(tmp_path)
        with tracker.run("run", "id2", {}):
            tracker.log({"loss": 1.0}, 1)
    assert "start online" in caplog.text
    assert not tracker.is_sent
    (folder,) = tmp_path.glob("wandb/offline-run-*-id2")
    assert folder / "run-id2.wandb" in set(tracker.files())
    assert [row["loss"] for row in history(read_records(folder))] == [1.0]
