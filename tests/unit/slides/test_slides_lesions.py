"""Lesions: what is joined, how long, how large, what a point hits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import MultiPolygon, Polygon, box

from sentinode.errors import ConfigError
from sentinode.schema import NodeClass
from sentinode.slides.lesions import (
    ellipse_axis,
    lesion_at,
    lesions_of,
    longest_diameter,
    node_class_of,
    size_of,
)


def circle(radius: float, x: float = 0, y: float = 0) -> Polygon:
    return shapely.Point(x, y).buffer(radius, quad_segs=256)


class TestLesions:
    @pytest.mark.parametrize(("gap_um", "lesions"), [(74, 1), (76, 2)])
    def test_pieces_closer_than_75_um_are_one(self, gap_um: float, lesions: int) -> None:
        um_px = 0.25
        second = 400 + gap_um / um_px
        pieces = MultiPolygon([box(0, 0, 400, 400), box(second, 0, second + 400, 400)])
        found = lesions_of(pieces, um_px)
        assert len(found) == lesions
        assert sum(lesion.area_um2 for lesion in found) == pytest.approx(2 * 100 * 100)

    def test_a_chain_is_one(self) -> None:
        assert len(lesions_of(MultiPolygon([box(60 * i, 0, 60 * i + 10, 10) for i in range(20)]), 1.0)) == 1

    def test_a_piece_in_a_large_hole_belongs_to_the_ring(self) -> None:
        ring = box(0, 0, 2000, 2000).difference(box(500, 500, 1500, 1500))
        (found,) = lesions_of(MultiPolygon([ring, box(990, 990, 1010, 1010)]), 1.0)
        assert found.area_um2 == pytest.approx(3e6 + 400)
        assert lesion_at([found], np.array([[750.0, 750.0]])).tolist() == [0]

    def test_the_longest_diameter_is_that_of_the_tumour_not_of_its_surroundings(self) -> None:
        (found,) = lesions_of(box(0, 0, 300, 400), 0.5)
        assert found.longest_diameter_um == pytest.approx(250)
        assert found.size is NodeClass.MICRO

    def test_points_hit_the_widened_lesion(self) -> None:
        lesions = lesions_of(MultiPolygon([box(0, 0, 100, 100), box(1000, 0, 1100, 100)]), 1.0)
        points = np.array([[50.0, 50.0], [-37.0, 50.0], [-38.0, 50.0], [1050.0, 137.0], [500.0, 50.0]])
        assert lesion_at(lesions, points).tolist() == [0, 0, -1, 1, -1]

    def test_no_tumour_no_lesion(self) -> None:
        assert lesions_of(MultiPolygon(), 0.25) == ()
        assert node_class_of(()) is NodeClass.NEGATIVE

    def test_the_largest_lesion_names_the_node(self) -> None:
        slide = MultiPolygon([circle(50), circle(1100, 5000)])
        assert node_class_of(lesions_of(slide, 1.0)) is NodeClass.MACRO

    @pytest.mark.parametrize("um_px", [0, -1, math.nan, math.inf, 11])
    def test_a_pixel_size_is_needed(self, um_px: float) -> None:
        with pytest.raises(ConfigError, match="um/px"):
            lesions_of(box(0, 0, 1, 1), um_px)


@pytest.mark.parametrize(
    ("um", "size"),
    [(1, "itc"), (200, "itc"), (200.1, "micro"), (2000, "micro"), (2000.1, "macro")],
)
def test_sizes(um: float, size: str) -> None:
    assert size_of(um) == size


class TestLongestDiameter:
    def test_rectangle(self) -> None:
        assert longest_diameter(box(0, 0, 3, 4)) == 5

    def test_triangle(self) -> None:
        assert longest_diameter(Polygon([(0, 0), (7, 1), (2, 1)])) == pytest.approx(math.hypot(7, 1))

    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 10_000), st.integers(4, 60), st.sampled_from([3, 10, 1000, 100_000]))
    def test_agrees_with_all_pairs(self, seed: int, count: int, size: int) -> None:
        points = np.random.default_rng(seed).integers(0, size, (count, 2)).astype(float)
        hull = shapely.convex_hull(shapely.MultiPoint(points))
        if isinstance(hull, Polygon):
            pairs = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
            assert longest_diameter(hull) == pytest.approx(pairs.max(), rel=1e-12)

    @pytest.mark.parametrize("corners", range(3, 25))
    def test_regular_polygons(self, corners: int) -> None:
        angles = 2 * np.pi * np.arange(corners) / corners
        points = 1e5 + np.stack([np.cos(angles), np.sin(angles)], 1)
        pairs = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
        assert longest_diameter(Polygon(points)) == pytest.approx(pairs.max(), rel=1e-9)


class TestEllipseAxis:
    def test_circle(self) -> None:
        assert ellipse_axis(circle(10, 1e5, 2e5)) == pytest.approx(20, rel=1e-4)

    def test_rectangle(self) -> None:
        assert ellipse_axis(box(0, 0, 2, 6)) == pytest.approx(4 * math.sqrt(36 / 12))

    def test_turned_and_mirrored(self) -> None:
        turned = Polygon([(0, 0), (4, 3), (3.4, 3.8), (-0.6, 0.8)])
        assert ellipse_axis(turned) == pytest.approx(4 * math.sqrt(25 / 12))
        assert ellipse_axis(shapely.reverse(turned)) == pytest.approx(4 * math.sqrt(25 / 12))
