"""What sampling slides tells, and when: before a Ray is started, and of slides that need not be sampled again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sentinode.cohort.synthetic.config import SlideContents
from sentinode.cohort.synthetic.write import write_slide
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.distributed import ingest as ingest_module
from sentinode.distributed import slide_samples
from sentinode.errors import SourceError
from sentinode.storage import open_store


def here(
    function: Callable[..., tuple[Any, None]], calls: Iterable[tuple[str, tuple[Any, ...]]]
) -> Iterator[tuple[str, Any, None]]:
    """``run_tasks`` without Ray."""
    for name, arguments in calls:
        yield name, function(*arguments)[0], None


def config(source: Path, out: Path) -> IngestConfig:
    return IngestConfig(
        source=str(source), out=str(out), kind="slides", slides=SamplingConfig(patches_per_slide=5)
    )


def test_a_missing_annotation_is_told_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "tumor_501.tif").write_bytes(b"not looked at")
    monkeypatch.setattr(ingest_module, "ray_session", lambda: pytest.fail("Ray was started"))
    with pytest.raises(SourceError, match="tumor_501 has no annotation"):
        ingest_module.ingest(config(tmp_path / "slides", tmp_path / "out"), lambda *_: None)


def test_a_resumed_run_says_how_many_slides_it_need_not_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "slides").mkdir()
    for seed, name in enumerate(("normal_501", "normal_502")):
        contents = SlideContents(width_px=900, height_px=800, um_px=0.972, seed=seed)
        write_slide(contents, tmp_path / "slides" / f"{name}.tif")
    sampled: list[str] = []
    monkeypatch.setattr(
        slide_samples,
        "run_tasks",
        lambda function, calls: here(function, ((sampled.append(call[0]), call)[1] for call in calls)),
    )
    settings, store = config(tmp_path / "slides", tmp_path / "out"), open_store(str(tmp_path / "out"))
    cohort = slide_samples.list_slides(settings, lambda *_: None)
    caplog.set_level(logging.INFO)
    slide_samples.sample_slides(settings, cohort, store, lambda *_: None)
    assert len(sampled) == 2
    assert "need not" not in caplog.text, "nothing was sampled before"
    store.delete(sampled[0])
    slide_samples.sample_slides(settings, cohort, store, lambda *_: None)
    assert sampled[2:] == sampled[:1]
    assert "1 of 2 slides were sampled before and need not be again" in caplog.text


def test_a_slide_without_microns_per_pixel_names_the_flag_that_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slides").mkdir()
    pixels = np.full((512, 512, 3), 240, np.uint8)
    tifffile.imwrite(tmp_path / "slides" / "normal_501.tif", pixels, tile=(256, 256), photometric="rgb")
    monkeypatch.setattr(slide_samples, "run_tasks", here)
    settings, store = config(tmp_path / "slides", tmp_path / "out"), open_store(str(tmp_path / "out"))
    cohort = slide_samples.list_slides(settings, lambda *_: None)
    with pytest.raises(SourceError, match=r"1 of 1 slides cannot be used(?s:.*)--slides.um-px"):
        slide_samples.sample_slides(settings, cohort, store, lambda *_: None)
