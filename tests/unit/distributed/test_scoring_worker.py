"""One slide scored in this process, by real ONNX Runtime: the stitched map is what its patches give one by one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
from dense_parts import TINY, detector, seal_detector
from numpy.typing import NDArray
from slide_files import tissue, write_pyramid

from sentinode.bundle.bundle import open_bundle, read_card
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.distributed import slide_files
from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.distributed.slide_worker import SlidePlan, SlideWorker, lesion_point
from sentinode.distributed.tile_scorer import ReadAhead, method_for
from sentinode.errors import BundleError, ConfigError, EvaluationError, SourceError, StoreError
from sentinode.evaluation.cells_table import cells_of, read_cells
from sentinode.evaluation.detections import read_detections
from sentinode.evaluation.slide_record import SlideScore, file_key, record_key
from sentinode.models.families import SeedCnnConfig
from sentinode.schema import PATCH_PX
from sentinode.slides.geojson import read_geojson
from sentinode.slides.listing import SlideFile, list_slides
from sentinode.slides.model_pixels import read_model_pixels
from sentinode.slides.reader import open_slide
from sentinode.slides.score_grid import Tile
from sentinode.storage import Store, open_store


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("registry")))


@pytest.fixture(scope="module")
def dense(registry: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    return seal_detector(registry, tmp_path_factory.mktemp("dense"), detector(TINY), mpp_um_px=0.972)


@pytest.fixture(scope="module")
def padded(registry: Store, tmp_path_factory: pytest.TempPathFactory) -> str:
    return seal_detector(registry, tmp_path_factory.mktemp("padded"), detector(SeedCnnConfig()))


def _settings(**changes: object) -> ScoringSettings:
    tissue_settings = {"min_sharpness": 0, "least_mm2": 0.01}
    return ScoringSettings.model_validate({"tissue": tissue_settings, **changes})


def _slide(folder: Path, mpp: float = 0.972, **options: object) -> SlideFile:
    folder.mkdir(parents=True, exist_ok=True)
    path = write_pyramid(folder / "node.tif", tissue(), (mpp, mpp), levels=1, **options)  # type: ignore[arg-type]
    (file,) = list_slides(str(path))
    return file


def _score(worker: SlideWorker, file: SlideFile) -> tuple[SlidePlan, NDArray[np.float32], SlideScore]:
    plan = worker.plan(file)
    logits = np.full((plan.grid.rows, plan.grid.columns), np.nan, np.float32)
    for tile, part in zip(plan.tiles, worker.score(file, plan.grid, plan.tiles), strict=True):
        logits[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.columns] = part
    return plan, logits, worker.finish(file, plan, logits, began=0.0)


@pytest.mark.parametrize("mpp", [0.972, 0.7])
@pytest.mark.parametrize("tile_cells", [3, 10])
def test_stitched_map_is_patch_by_patch_scoring(
    registry: Store, dense: str, tmp_path: Path, mpp: float, tile_cells: int
) -> None:
    file = _slide(tmp_path / "in", mpp)
    worker = SlideWorker(
        registry.url, dense, _settings(), str(tmp_path / "out"), Compute(tile_cells=tile_cells)
    )
    plan, logits, record = _score(worker, file)
    assert record.method == "dense"
    assert len(plan.tiles) > 1
    bundle = open_bundle(registry, dense, tmp_path / "bundle")
    patches = OnnxModel(bundle.onnx_path)
    rows, columns = np.nonzero(~np.isnan(logits))
    assert 30 < len(rows) < logits.size
    with open_slide(file.url) as slide:
        alone = np.stack(
            [
                read_model_pixels(
                    slide,
                    plan.grid,
                    32 * c + 16 - PATCH_PX // 2,
                    32 * r + 16 - PATCH_PX // 2,
                    PATCH_PX,
                    PATCH_PX,
                )
                for r, c in zip(rows, columns, strict=True)
            ]
        )
    # A resampled pixel may be rounded to the next grey level in another region.
    tolerance = 1e-4 if mpp == 0.972 else 0.02
    np.testing.assert_allclose(logits[rows, columns], patches.logits(alone), atol=tolerance, rtol=1e-4)
    assert logits[rows, columns].std() > 0.1


def test_both_methods_give_the_same_map(registry: Store, dense: str, tmp_path: Path) -> None:
    file = _slide(tmp_path / "in")
    maps = {}
    for method in ("dense", "patches"):
        out = str(tmp_path / method)
        worker = SlideWorker(registry.url, dense, _settings(method=method), out, Compute())
        _, _, record = _score(worker, file)
        assert record.method == method
        maps[method], _ = read_cells(open_store(out).get(file_key("node", "cells.parquet")), "cells")
    np.testing.assert_allclose(maps["dense"], maps["patches"], atol=1e-4, rtol=0)


def test_only_tissue_is_judged_whatever_the_tiles(registry: Store, dense: str, tmp_path: Path) -> None:
    file = _slide(tmp_path / "in")
    maps = []
    for tile_cells in (1, 3, 32):
        out = open_store(str(tmp_path / str(tile_cells)))
        worker = SlideWorker(registry.url, dense, _settings(), out.url, Compute(tile_cells=tile_cells))
        plan, logits, record = _score(worker, file)
        heat, _ = read_cells(out.get(file_key("node", "cells.parquet")), "cells")
        maps.append(heat)
        np.testing.assert_array_equal(~np.isnan(heat), plan.wanted)
        assert record.cells == plan.wanted.sum()
    assert np.isfinite(logits).sum() > record.cells  # the last tile is a rectangle around all tissue
    np.testing.assert_allclose(maps[1], maps[0], atol=1e-4, rtol=0)
    np.testing.assert_allclose(maps[2], maps[0], atol=1e-4, rtol=0)


def test_files_of_a_slide(registry: Store, dense: str, tmp_path: Path) -> None:
    file, out = _slide(tmp_path / "in"), open_store(str(tmp_path / "out"))
    worker = SlideWorker(registry.url, dense, _settings(lesion_threshold=0.5), out.url, Compute())
    plan, logits, record = _score(worker, file)
    assert SlideScore.from_json(out.get(record_key("node")), "record") == record
    heat, cell_um = read_cells(out.get(file_key("node", "cells.parquet")), "cells")
    card = read_card(registry, dense)
    scored = ~np.isnan(heat)
    np.testing.assert_allclose(
        heat[scored], card.calibration.probabilities(logits[scored]), atol=1e-6, rtol=0
    )
    assert (record.cells, record.blurred_of_tissue) == (scored.sum(), plan.tissue.blurred_of_tissue)
    assert record.score == pytest.approx(np.sort(heat[scored])[-10:].mean())
    lesions = read_geojson(out.get(file_key("node", "lesions.geojson")), "lesions")
    assert record.lesions == len(lesions) == (record.macro or 0) + (record.micro or 0) + (record.itc or 0)
    assert record.tumour_mm2 == pytest.approx(sum(r.measurements["Area um^2"] for r in lesions) / 1e6)
    peaks = read_detections(out.get("detections/node.csv"), "node.csv")
    assert peaks.confidences_D[0] == pytest.approx(float(heat[scored].max()))
    with openslide.OpenSlide(str(Path(out.url, file_key("node", "heat_map.tif")))) as opened:
        assert opened.dimensions == (plan.grid.columns, plan.grid.rows)
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(cell_um, rel=1e-4)
    assert out.get(file_key("node", "overview.png")).startswith(b"\x89PNG")
    assert out.stat(file_key("node", "tissue.geojson")) is not None


def test_a_record_stands_for_no_files_of_another_scoring(
    registry: Store, dense: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = _slide(tmp_path / "in"), open_store(str(tmp_path / "out"))
    worker = SlideWorker(registry.url, dense, _settings(), out.url, Compute())
    _, _, record = _score(worker, file)
    assert np.isfinite(cells_of(out, record)[0]).sum() == record.cells

    later = SlideWorker(registry.url, dense, _settings(min_lesion_cells=3), out.url, Compute())

    def full(*_: object) -> bytes:
        raise StoreError("the disk is full")

    monkeypatch.setattr(slide_files, "overview_png", full)
    with pytest.raises(StoreError):
        _score(later, file)
    assert out.stat(record_key("node")) is None
    with pytest.raises(EvaluationError, match="another scoring"):
        cells_of(out, record)


def test_networks_without_dense_form_are_scored_patch_by_patch(
    registry: Store, padded: str, tmp_path: Path
) -> None:
    file = _slide(tmp_path / "in")
    worker = SlideWorker(registry.url, padded, _settings(stride_px=48), str(tmp_path / "out"), Compute())
    plan, logits, record = _score(worker, file)
    assert record.method == "patches"
    assert record.stride_um == pytest.approx(48 * 0.972)
    assert np.isfinite(logits[plan.wanted]).all()
    assert plan.wanted.sum() == record.cells


def test_slide_without_tissue_is_refused_unless_all_is_asked_for(
    registry: Store, dense: str, tmp_path: Path
) -> None:
    path = write_pyramid(tmp_path / "glass.tif", np.full((300, 400, 3), 244, np.uint8), (0.972, 0.972))
    (file,) = list_slides(str(path))
    out = str(tmp_path / "out")
    with pytest.raises(SourceError, match="shows no tissue"):
        SlideWorker(registry.url, dense, _settings(), out, Compute()).plan(file)
    worker = SlideWorker(registry.url, dense, _settings(whole_slide=True), out, Compute())
    plan, _, record = _score(worker, file)
    assert record.blurred_of_tissue == 0
    assert record.cells == plan.grid.rows * plan.grid.columns
    assert "nearly_nothing" in record.flags


def test_size_of_pixels_is_never_guessed(registry: Store, dense: str, tmp_path: Path) -> None:
    path = write_pyramid(tmp_path / "node.tif", tissue(), mpp=None)
    (file,) = list_slides(str(path))
    out = str(tmp_path / "out")
    with pytest.raises(SourceError, match="how large its pixels are"):
        SlideWorker(registry.url, dense, _settings(), out, Compute()).plan(file)
    plan = SlideWorker(registry.url, dense, _settings(mpp_um_px=0.5), out, Compute()).plan(file)
    assert plan.grid.level_um_px == pytest.approx(1.0)


def test_what_a_bundle_cannot_do_is_said(registry: Store, dense: str, padded: str) -> None:
    able, unable = read_card(registry, dense), read_card(registry, padded)
    with pytest.raises(ConfigError, match="has no dense form"):
        method_for(unable, 32, "dense")
    with pytest.raises(ConfigError, match="--stride-px 32"):
        method_for(able, 30)
    assert (method_for(able, 30, "patches"), method_for(able, 64), method_for(unable, 30)) == (
        "patches",
        "dense",
        "patches",
    )
    with pytest.raises(ConfigError, match="one of balanced, sensitive"):
        lesion_point(able, _settings(operating_point="absent"))
    assert lesion_point(able, _settings()).name == "balanced"


def test_reading_ahead_keeps_order_and_raises_at_the_tile() -> None:
    tiles = [Tile(i, 0, 1, 1) for i in range(9)]

    def read(tile: Tile) -> NDArray[np.uint8]:
        if tile.column == 7:
            raise SourceError("tile 7 is damaged")
        return np.full((1, 1, 3), tile.column, np.uint8)

    seen = []

    def take() -> None:
        for tile, pixels in ahead.over(read, tiles):
            assert pixels[0, 0, 0] == tile.column
            seen.append(tile.column)

    with ReadAhead(3, ahead=4) as ahead, pytest.raises(SourceError, match="tile 7"):
        take()
    assert seen == [0, 1, 2, 3, 4, 5, 6]


def test_a_bundle_that_is_damaged_is_said_when_it_is_loaded(
    registry: Store, dense: str, tmp_path: Path
) -> None:
    copied = open_store(str(tmp_path / "registry"))
    for info in registry.list(f"bundles/{dense}/"):
        data = registry.get(info.key)
        copied.put(info.key, data[:-1] if info.key.endswith("dense.onnx") else data)
    worker = SlideWorker(copied.url, dense, _settings(), str(tmp_path / "out"), Compute())
    with pytest.raises(BundleError, match=r"dense\.onnx"):
        worker.where()


def test_scoring_needs_no_pytorch(repository: Path) -> None:
    code = "import sys, sentinode.commands.score, sentinode.distributed.slide_worker; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(repository / "platform")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=240)
