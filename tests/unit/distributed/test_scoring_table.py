"""Which scored slides share a table, and what is written of them; without Ray, since all are done already."""

from __future__ import annotations

from pathlib import Path

import pytest
from dense_parts import TINY, detector, seal_detector
from slide_files import tissue, write_pyramid

from sentinode.commands.score import ScoreCommand, run
from sentinode.distributed.scoring import score_slides
from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.errors import ConfigError
from sentinode.evaluation.slide_record import (
    SLIDES_NAME,
    SlideScore,
    read_slides_table,
    record_key,
    slides_table,
)
from sentinode.schema import PATCH_PX, NodeClass
from sentinode.slides.listing import SlideFile
from sentinode.slides.model_pixels import read_model_pixels
from sentinode.slides.reader import open_slide
from sentinode.slides.score_grid import ScoreGrid
from sentinode.storage import Store, open_store

SETTINGS = ScoringSettings()
NODES = tuple(SlideFile(f"patient_001_node_{i}", f"/s/{i}.tif", f"{i}/100") for i in range(5))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("registry")))


@pytest.fixture(scope="module")
def bundle(registry: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    return seal_detector(registry, tmp_path_factory.mktemp("bundle"), detector(TINY), mpp_um_px=0.972)


def _record(file: SlideFile, bundle: str, settings: ScoringSettings = SETTINGS) -> SlideScore:
    return SlideScore(
        slide=file.name, url=file.url, status="done", key=settings.key(file, bundle), bundle=bundle,
        settings=settings.shared, score=0.5, stride_um=31.1, pooling="top-k mean", threshold=0.5,
        node_class=NodeClass.NEGATIVE,
    )  # fmt: skip


def _score(files: tuple[SlideFile, ...], registry: Store, bundle: str, out: Store) -> tuple[SlideScore, ...]:
    score_slides(files, registry.url, bundle, out.url, SETTINGS, Compute(), lambda *_, **__: None)
    return read_slides_table(out.get(SLIDES_NAME), SLIDES_NAME)


def test_key_changes_with_settings_model_and_file() -> None:
    file = SlideFile("a", "/s/a.tif", "1/100")
    base = ScoringSettings()
    keys = {
        base.key(file, "b"),
        base.key(file, "c"),
        base.key(file._replace(version="2/100"), "b"),
        ScoringSettings(stride_px=64).key(file, "b"),
    }
    assert len(keys) == 4
    assert base.key(file, "b") == ScoringSettings().key(file, "b")


def test_what_records_name_themselves_or_changes_no_score_is_no_shared_setting() -> None:
    base = ScoringSettings().shared
    each = {"mpp_um_px": 0.5, "method": "dense", "stride_px": 64, "operating_point": "balanced"}
    for name, value in {**each, "lesion_threshold": 0.3}.items():
        assert ScoringSettings.model_validate({name: value}).shared == base, name
    shared = {"pooling": {"top_k": 3}, "whole_slide": True, "min_lesion_cells": 4, "detections_from": 0.2}
    for name, value in {**shared, "tissue": {"um_px": 16}}.items():
        assert ScoringSettings.model_validate({name: value}).shared != base, name


@pytest.mark.parametrize(("tile_cells", "stride_px", "most"), [(16, 540, 15), (64, 129, 63), (9, 1024, 8)])
def test_tiles_that_are_not_read_at_once_are_refused_before_ray(
    tmp_path: Path, tile_cells: int, stride_px: int, most: int
) -> None:
    where = {"slides": str(tmp_path), "registry": str(tmp_path), "out": str(tmp_path)}
    command = ScoreCommand.model_validate(where | {"tile_cells": tile_cells, "stride_px": stride_px})
    with pytest.raises(ConfigError, match="at most 8,192 pixels") as caught:
        run(command)
    assert caught.value.remedy == f"--tile-cells {most}"
    Compute(tile_cells=most).check_tiles(stride_px)
    with open_slide(str(write_pyramid(tmp_path / "a.tif", tissue(300, 300), (0.972, 0.972)))) as slide:
        grid, side = ScoreGrid.of(slide, 0.972, stride_px), (most - 1) * stride_px + PATCH_PX
        assert read_model_pixels(slide, grid, 0, 0, side, side).shape == (side, side, 3)


def test_stages_of_an_earlier_table_do_not_stay_beside_another(
    registry: Store, bundle: str, tmp_path: Path
) -> None:
    out = open_store(str(tmp_path))
    for file in NODES:
        out.put(record_key(file.name), _record(file, bundle).to_json())
    _score(NODES, registry, bundle, out)
    assert out.get("stages.csv").startswith(b"patient,stage\npatient_001.zip,pN0")
    theirs = [r.model_copy(update={"bundle": "c" * 64}) for r in read_slides_table(out.get(SLIDES_NAME), "")]
    out.put(SLIDES_NAME, slides_table(theirs))
    assert len(_score(NODES[:4], registry, bundle, out)) == 4
    assert out.stat("stages.csv") is None


def test_slides_of_other_settings_leave_the_table_and_are_named(
    registry: Store, bundle: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = open_store(str(tmp_path))
    out.put(record_key(NODES[0].name), _record(NODES[0], bundle).to_json())
    other = ScoringSettings.model_validate({"pooling": {"top_k": 3}})
    old = _record(NODES[3], bundle).model_copy(update={"settings": ""})
    table = [_record(NODES[1], bundle, other), _record(NODES[2], bundle), old]
    out.put(SLIDES_NAME, slides_table(table))
    with caplog.at_level("WARNING"):
        kept = _score(NODES[:1], registry, bundle, out)
    assert [record.slide[-1] for record in kept] == ["0", "2", "3"], "a record of an earlier version stays"
    assert "leave the table: patient_001_node_1" in caplog.text


def test_a_record_of_an_earlier_version_that_still_counts_names_its_settings(
    registry: Store, bundle: str, tmp_path: Path
) -> None:
    out = open_store(str(tmp_path))
    old = _record(NODES[0], bundle).model_dump(mode="json", exclude={"settings"})
    out.put(
        record_key(NODES[0].name), SlideScore.model_validate(old).to_json().replace(b'"settings": "",', b"")
    )
    assert b"settings" not in out.get(record_key(NODES[0].name))
    (record,) = _score(NODES[:1], registry, bundle, out)
    assert record.settings == SETTINGS.shared
