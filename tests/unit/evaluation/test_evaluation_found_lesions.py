"""Lesions and detections of a heat map, against shapes of known size."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sentinode.errors import EvaluationError
from sentinode.evaluation import found_lesions
from sentinode.evaluation.cells_table import cells_table, read_cells
from sentinode.evaluation.found_lesions import find_lesions, find_peaks
from sentinode.schema import NodeClass
from sentinode.slides.geojson import read_geojson, write_geojson

CELL_UM, UM_PX = 32.0, 0.25
CELL_PX = CELL_UM / UM_PX


def _map(*squares: tuple[int, int, int, float]) -> NDArray[np.float32]:
    """A heat map of 0.01 with squares (row, column, cells a side, probability)."""
    heat = np.full((120, 150), 0.01, np.float32)
    for row, column, side, probability in squares:
        heat[row : row + side, column : column + side] = probability
    return heat


def test_lesions_are_measured_classed_and_ordered() -> None:
    heat = _map((5, 5, 60, 0.8), (10, 100, 10, 0.95), (90, 100, 3, 0.7), (110, 10, 1, 0.99))
    heat[30, 30] = 0.9
    found, left_out = find_lesions(heat, 0.5, CELL_PX, UM_PX)
    assert left_out == 0
    assert [f.lesion.size for f in found] == [NodeClass.MICRO, NodeClass.MACRO, NodeClass.ITC]
    assert [f.score for f in found] == pytest.approx([0.95, 0.9, 0.7])
    assert [f.mean for f in found] == pytest.approx([0.95, 0.8 + 0.1 / 3600, 0.7])
    for lesion, side in zip(found, (10, 60, 3), strict=True):
        assert lesion.lesion.longest_diameter_um == pytest.approx(side * CELL_UM * 2**0.5)
        assert lesion.lesion.area_um2 == pytest.approx((side * CELL_UM) ** 2)
    assert found[0].lesion.tumour.bounds == (100 * CELL_PX, 10 * CELL_PX, 110 * CELL_PX, 20 * CELL_PX)
    single, _ = find_lesions(heat, 0.5, CELL_PX, UM_PX, min_cells=1)
    assert single[0].score == pytest.approx(0.99)


def test_pieces_within_75_um_are_one_lesion() -> None:
    heat = _map((5, 5, 3, 0.8), (5, 10, 3, 0.9), (5, 16, 3, 0.6))
    found, _ = find_lesions(heat, 0.5, CELL_PX, UM_PX)
    assert [round(f.lesion.area_um2 / CELL_UM**2) for f in found] == [18, 9]


def test_a_rim_of_false_alarms_does_not_swallow_what_lies_within() -> None:
    heat = _map((5, 5, 80, 0.6), (7, 7, 76, 0.01), (40, 40, 8, 0.9))
    found, _ = find_lesions(heat, 0.5, CELL_PX, UM_PX)
    assert [f.lesion.size for f in found] == [NodeClass.MICRO, NodeClass.MACRO]
    assert [round(f.lesion.area_um2 / CELL_UM**2) for f in found] == [64, 80**2 - 76**2]
    assert found[1].mean == pytest.approx(0.6)


def test_what_was_not_scored_is_no_lesion() -> None:
    heat = _map((5, 5, 20, 0.9))
    heat[:, :10] = np.nan
    (found,), _ = find_lesions(heat, 0.5, CELL_PX, UM_PX)
    assert found.lesion.tumour.bounds[0] == 10 * CELL_PX
    nothing = np.full((4, 4), np.nan, np.float32)
    assert find_lesions(nothing, 0.5, CELL_PX, UM_PX) == ((), 0)
    assert find_lesions(nothing, 0.0, CELL_PX, UM_PX) == ((), 0)


def test_a_map_of_noise_is_cut_off_at_the_highest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_lesions, "MAX_PIECES", 3)
    squares = [(10, 5 + 12 * i, 2, 0.6 + i / 100) for i in range(8)]
    found, left_out = find_lesions(_map(*squares), 0.5, CELL_PX, UM_PX)
    assert left_out == 5
    assert [f.score for f in found] == pytest.approx([0.67, 0.66, 0.65])


def test_lesions_survive_geojson_with_their_measurements() -> None:
    found, _ = find_lesions(_map((5, 5, 60, 0.8), (90, 100, 3, 0.7)), 0.5, CELL_PX, UM_PX)
    back = read_geojson(write_geojson([f.region() for f in found]), "lesions.geojson")
    for region, lesion in zip(back, found, strict=True):
        assert region.shape.equals(lesion.lesion.tumour)
        assert region.label == lesion.lesion.size
        assert region.measurements["Score"] == pytest.approx(lesion.score)
        assert region.measurements["Area um^2"] == pytest.approx(lesion.lesion.area_um2)


def test_peaks_stand_apart_and_fall() -> None:
    heat = _map((5, 5, 3, 0.8), (60, 60, 1, 0.4), (110, 140, 2, 0.9))
    peaks = find_peaks(heat, 0.05, CELL_PX, CELL_UM)
    assert peaks.confidences_D == pytest.approx([0.9, 0.8, 0.4])
    assert peaks.xy_D2.tolist() == [
        [(140.5) * CELL_PX, 110.5 * CELL_PX],
        [5.5 * CELL_PX, 5.5 * CELL_PX],
        [60.5 * CELL_PX, 60.5 * CELL_PX],
    ]
    everywhere = find_peaks(np.full((60, 60), 0.5, np.float32), 0.05, CELL_PX, CELL_UM)
    gaps = np.linalg.norm(everywhere.xy_D2[:, None] - everywhere.xy_D2[None], axis=-1) * UM_PX
    assert gaps[gaps > 0].min() > 180
    assert len(find_peaks(heat, 0.95, CELL_PX, CELL_UM).confidences_D) == 0


def test_cells_come_back_exactly() -> None:
    heat = _map((5, 5, 3, 0.8))
    heat[40:] = np.nan
    whole, cell_um = read_cells(cells_table(heat, CELL_UM, CELL_PX), "cells.parquet")
    np.testing.assert_array_equal(whole, heat)
    assert cell_um == CELL_UM


def test_what_is_no_table_of_cells_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no table of cells"):
        read_cells(b"PAR1 nothing", "x.parquet")
