"""Slides scored over a real two-CPU Ray, from and to an object store: broken ones, resume, kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
from dense_parts import TINY, detector, seal_detector
from slide_files import tissue, write_pyramid

from sentinode.distributed import scoring
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.scoring import score_slides
from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.evaluation.cells_table import read_cells
from sentinode.evaluation.slide_record import SlideScore, file_key, read_slides_table, record_key
from sentinode.slides.listing import list_slides
from sentinode.storage import open_store
from sentinode.storage.embedded import EmbeddedStore

SETTINGS = ScoringSettings.model_validate({"tissue": {"min_sharpness": 0, "least_mm2": 0.01}})
FLAGS = ["--tissue.min-sharpness", "0", "--tissue.least-mm2", "0.01"]
DEADLINE_S = 240


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[str]:
    """A local Ray whose workers reach an embedded object store; the store's URL."""
    with pytest.MonkeyPatch.context() as environment, EmbeddedStore() as store:
        for name, value in store.environment.items():
            environment.setenv(name, value)
        with ray_session("local", num_cpus=2):
            yield store.url


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def bundle(registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    return seal_detector(open_store(registry), tmp_path_factory.mktemp("parts"), detector(TINY))


def _slides(folder: Path, count: int, width: int = 700, height: int = 600) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        rgb = tissue(width, height, seed=number)
        write_pyramid(folder / f"patient_003_node_{number}.tif", rgb, (0.972, 0.972), compression="deflate")


class Progress:
    """A progress that remembers, and tells from which thread it was called."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, str]] = []
        self.threads: set[int] = set()

    def __call__(self, step: str, done: float, total: int, note: str = "") -> None:
        assert step == "score"
        self.seen.append((done, total, note))
        self.threads.add(threading.get_ident())


def _run(
    slides: str, registry: str, bundle: str, out: str, settings: ScoringSettings = SETTINGS, **compute: int
) -> tuple[tuple[SlideScore, ...], Progress]:
    progress = Progress()
    found = score_slides(
        list_slides(slides), registry, bundle, out, settings, Compute.model_validate(compute), progress
    )
    return found, progress


def test_a_bucket_of_slides_with_broken_ones(bucket: str, registry: str, bundle: str, tmp_path: Path) -> None:
    _slides(tmp_path / "slides", 2)
    whole = (tmp_path / "slides" / "patient_003_node_0.tif").read_bytes()
    (tmp_path / "slides" / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "slides" / "text.svs").write_text("no slide")
    (tmp_path / "slides" / "notes.txt").write_text("is passed over")
    store = open_store(f"{bucket}/slides-in")
    for path in (tmp_path / "slides").iterdir():
        store.upload(path, path.name)
    out = f"{bucket}/slides-out"
    found, progress = _run(store.url, registry, bundle, out)
    by_name = {record.slide: record for record in found}
    assert sorted(by_name) == ["cut", "patient_003_node_0", "patient_003_node_1", "text"]
    assert [by_name[n].status for n in sorted(by_name)] == ["failed", "done", "done", "failed"]
    assert "what to do" in by_name["cut"].reason
    assert "does not know" in by_name["text"].reason
    assert progress.seen[-1][:2] == (4, 4)
    assert all(a[0] <= b[0] + 1e-9 for a, b in zip(progress.seen, progress.seen[1:], strict=False))
    assert progress.threads == {threading.get_ident()}
    results = open_store(out)
    assert read_slides_table(results.get("slides.parquet"), "slides.parquet") == found
    assert results.stat("stages.csv") is None

    before = {info.key: info.etag for info in results.list("slides/patient")}
    assert len(before) == 2 * 7
    again, _ = _run(store.url, registry, bundle, out)
    assert [record.status for record in again] == ["failed", "done", "done", "failed"]
    assert {info.key: info.etag for info in results.list("slides/patient")} == before

    (changed, *_), _ = _run(
        f"{store.url}/patient_003_node_1.tif",
        registry,
        bundle,
        out,
        SETTINGS.model_copy(update={"stride_px": 64}),
    )
    assert changed.stride_um == pytest.approx(64 * 0.972)


def test_a_size_of_pixels_given_by_hand_for_one_slide_holds(
    registry: str, bundle: str, tmp_path: Path
) -> None:
    slides, out = tmp_path / "slides", str(tmp_path / "out")
    _slides(slides, 1)
    silent = write_pyramid(slides / "silent.tif", tissue(700, 600), mpp=None)

    def table() -> dict[str, str]:
        data = open_store(out).get("slides.parquet")
        return {record.slide: record.status for record in read_slides_table(data, "slides.parquet")}

    (_, failed), _ = _run(str(slides), registry, bundle, out)
    assert "--mpp-um-px" in failed.reason
    by_hand = SETTINGS.model_copy(update={"mpp_um_px": 0.972})
    (alone,), _ = _run(str(silent), registry, bundle, out, by_hand)
    assert table() == {"patient_003_node_0": "done", "silent": "done"}
    (_, again), _ = _run(str(slides), registry, bundle, out)
    assert again == alone
    assert table() == {"patient_003_node_0": "done", "silent": "done"}
    _run(str(silent), registry, bundle, out, by_hand.model_copy(update={"stride_px": 64}))
    assert table() == {"silent": "done"}, "scores of other cells do not compare"


def test_two_actors_share_one_slide(registry: str, bundle: str, tmp_path: Path) -> None:
    _slides(tmp_path / "slides", 1, 1600, 1200)
    maps = []
    for actors in (1, 2):
        out = str(tmp_path / f"out{actors}")
        (record,), _ = _run(str(tmp_path / "slides"), registry, bundle, out, actors=actors, tile_cells=4)
        assert record.status == "done"
        maps.append(read_cells(open_store(out).get(file_key(record.slide, "cells.parquet")), "cells")[0])
    np.testing.assert_array_equal(maps[0], maps[1])


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is told often: a fast machine is done with a small slide before it would be told the first time."""
    monkeypatch.setattr(scoring, "_POLL_S", 0.01)


@pytest.mark.usefixtures("often")
def test_an_interrupted_slide_has_not_failed(registry: str, bundle: str, tmp_path: Path) -> None:
    _slides(tmp_path / "slides", 1, 1600, 1200)
    out = str(tmp_path / "out")

    def interrupt(step: str, done: float, total: int, note: str = "") -> None:
        if 0 < done < 1:
            raise KeyboardInterrupt

    files = list_slides(str(tmp_path / "slides"))
    with pytest.raises(KeyboardInterrupt):
        score_slides(files, registry, bundle, out, SETTINGS, Compute(actors=1, tile_cells=2), interrupt)
    assert open_store(out).stat(record_key(files[0].name)) is None


def test_a_killed_run_goes_on_where_it_was(registry: str, bundle: str, tmp_path: Path) -> None:
    _slides(tmp_path / "slides", 5, 1600, 1200)
    out = open_store(str(tmp_path / "out"))
    command = [
        sys.executable,
        "-c",
        "import sys; from sentinode.cli import main; main(sys.argv[1:])",
        "score",
    ]
    command += ["--slides", str(tmp_path / "slides"), "--registry", registry, "--bundle", bundle]
    command += ["--out", out.url, "--actors", "1", "--tile-cells", "4", *FLAGS]
    command += ["--ray-address", ray.get_runtime_context().gcs_address]
    first = subprocess.Popen(command, env={**os.environ, "SENTINODE_LOG": "plain"}, start_new_session=True)
    try:
        _wait(lambda: any(info.key.endswith("score.json") for info in out.list("slides/")), first)
        os.killpg(first.pid, signal.SIGKILL)
    finally:
        first.kill()
        first.wait()
    done = {i.key: i.etag for i in out.list("slides/") if i.key.endswith("score.json")}
    assert out.stat("slides.parquet") is None
    assert 1 <= len(done) < 5
    second = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert second.returncode == 0, second.stderr
    assert f"{len(done)} slides are done already" in second.stderr
    assert "slides scored: 5, failed: 0" in second.stderr
    assert "Research use only" in second.stderr
    after = {info.key: info.etag for info in out.list("slides/")}
    assert all(after[key] == etag for key, etag in done.items())
    assert len(read_slides_table(out.get("slides.parquet"), "slides.parquet")) == 5
    assert out.get("stages.csv").startswith(b"patient,stage\npatient_003.zip,")


@pytest.mark.usefixtures("often")
def test_a_process_that_dies_is_replaced(registry: str, bundle: str, tmp_path: Path) -> None:
    _slides(tmp_path / "slides", 1, 1600, 1200)
    killed = []

    def kill_when_scoring(step: str, done: float, total: int, note: str = "") -> None:
        if 0 < done < 1 and not killed:
            workers = [p for p in psutil.process_iter(["cmdline"]) if _is_worker(p)]
            for process in workers:
                process.kill()
                killed.append(process.pid)

    (record,) = score_slides(
        list_slides(str(tmp_path / "slides")),
        registry,
        bundle,
        str(tmp_path / "out"),
        SETTINGS,
        Compute(actors=1, tile_cells=2),
        kill_when_scoring,
    )
    assert killed
    assert record.status == "done", record.reason
    assert open_store(str(tmp_path / "out")).stat(record_key(record.slide)) is not None


def _is_worker(process: psutil.Process) -> bool:
    """An actor of this test's Ray: other sessions of this machine are left alone."""
    ours = {p.pid for p in psutil.Process().children(recursive=True)}
    return process.pid in ours and "SlideWorker" in " ".join(process.info["cmdline"] or [])


def _wait(condition: object, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < ends
        time.sleep(0.02)
