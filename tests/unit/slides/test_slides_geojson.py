"""GeoJSON as QuPath writes it: round trip, old and new forms, hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from slide_parts import square

from sentinode.errors import SourceError
from sentinode.slides.annotations import Region, tumour_of
from sentinode.slides.asap_xml import read_asap_xml
from sentinode.slides.geojson import read_geojson, write_geojson

RING = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]


def feature(geometry: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "id": "7f", "geometry": geometry, "properties": properties}


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def read(value: Any) -> tuple[Region, ...]:
    return read_geojson(json.dumps(value).encode(), "a.geojson")


class TestRoundTrip:
    def test_keeps_geometry_class_name_and_measurements(self) -> None:
        rng = np.random.default_rng(0)
        ring = shapely.convex_hull(shapely.MultiPoint(rng.uniform(0, 1e5, (40, 2)))).exterior.coords
        holed = shapely.Polygon(ring, [[(5e4, 5e4), (5.1e4, 5e4), (5e4, 5.1e4)]])
        two = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(3, 3, 4.1, 4.7)])
        wrote = [Region(holed, "Tumor", "lesion 1", {"Area µm^2": 12.5}), Region(two, None)]
        found = read_geojson(write_geojson(wrote), "a.geojson")
        for a, b in zip(wrote, found, strict=True):
            assert a.shape.equals_exact(b.shape, 0)
            assert (a.label, a.name, dict(a.measurements)) == (b.label, b.name, dict(b.measurements))

    def test_is_what_qupath_writes(self) -> None:
        (found,) = json.loads(write_geojson([Region(shapely.box(0, 0, 1, 1), "Tumor", "a", {"p": 0.5})]))[
            "features"
        ]
        assert found["type"] == "Feature"
        assert found["geometry"]["type"] == "Polygon"
        assert found["geometry"]["coordinates"][0][0] == found["geometry"]["coordinates"][0][-1]
        assert found["properties"] == {
            "objectType": "annotation",
            "name": "a",
            "classification": {"name": "Tumor", "color": [200, 0, 0]},
            "measurements": {"p": 0.5},
        }

    def test_each_class_has_a_colour_without_which_qupath_opens_no_file(self) -> None:
        labels = ("Tissue", "Ignore*", "_0", "macro", "Stroma")
        wrote = write_geojson([Region(shapely.box(0, 0, 1, 1), label) for label in labels])
        for found in json.loads(wrote)["features"]:
            assert len(found["properties"]["classification"]["color"]) == 3

    @pytest.mark.real_data
    @pytest.mark.parametrize("name", ["tumor_005", "tumor_064"])
    def test_real_lesions(self, real_data: Path, name: str) -> None:
        file = real_data / "camelyon16_asap_xml" / f"{name}.xml"
        wrote = read_asap_xml(file.read_bytes(), file.name)
        assert all(region.shape.is_valid for region in wrote)
        found = read_geojson(write_geojson(wrote), "a.geojson")
        assert [r.shape.wkb for r in found] == [r.shape.wkb for r in wrote]


class TestForms:
    @pytest.mark.parametrize("wrap", [lambda f: f, lambda f: [f], lambda f: {"features": [f]}])
    def test_collection_list_or_one_feature(self, wrap: Any) -> None:
        (region,) = read(wrap(feature(polygon(RING), classification={"name": "Tumor", "colorRGB": -3670016})))
        assert (region.label, region.shape.area) == ("Tumor", 100)

    def test_measurements_of_old_releases_and_ones_that_failed(self) -> None:
        old = [{"name": "Area", "value": 3.5}, {"name": "Score", "value": float("nan")}]
        assert read([feature(polygon(RING), measurements=old)])[0].measurements == {"Area": 3.5}
        assert read([feature(polygon(RING), measurements={"a": 1, "b": None})])[0].measurements == {"a": 1.0}

    def test_a_class_as_text_and_one_made_of_several(self) -> None:
        forms = ("Tumor", {"names": ["Tumor", "Positive"], "color": [1, 2, 3, 4]}, {}, None)
        found = read([feature(polygon(RING), classification=form) for form in forms])
        assert [region.label for region in found] == ["Tumor", "Tumor: Positive", None, None]

    def test_a_third_coordinate_is_dropped(self) -> None:
        assert read([feature(polygon([[x, y, 7] for x, y in RING]))])[0].shape.bounds == (0, 0, 10, 10)

    def test_overlapping_parts_are_joined(self) -> None:
        parts = {"type": "MultiPolygon", "coordinates": [[RING], [[[5, 0], [15, 0], [15, 10], [5, 10]]]]}
        assert read([feature(parts)])[0].shape.area == 150

    def test_points_and_lines_are_passed_over(self, caplog: pytest.LogCaptureFixture) -> None:
        assert read([feature({"type": "Point", "coordinates": [1, 2]})]) == ()
        assert "passed over" in caplog.text

    def test_classes_decide_what_is_tumour(self) -> None:
        regions = read(
            [
                feature(polygon(square(0, 0, 10)), classification={"name": "Tumor"}),
                feature(polygon(square(0, 0, 5)), classification={"name": "Ignore*"}),
                feature(polygon(square(50, 0, 5)), classification={"name": "Stroma"}),
            ]
        )
        assert tumour_of(regions, "a.geojson").area == 75

    def test_an_unclassified_region_is_no_silent_negative(self) -> None:
        with pytest.raises(SourceError, match="without a class"):
            tumour_of(read([feature(polygon(RING))]), "a.geojson")


class TestHostileFiles:
    @pytest.mark.parametrize(
        "value",
        [
            3,
            {"type": "FeatureCollection"},
            {"features": {}},
            [None],
            [{}],
            [feature(None)],
            [feature({"type": "Polygon"})],
            [feature({"type": "Polygon", "coordinates": []})],
            [feature(polygon([]))],
            [feature(polygon([1, 2, 3]))],
            [feature(polygon([["a", "b"]] * 4))],
            [feature(polygon([[0, 0], [1, 1]]))],
            [feature(polygon([[0, 0], [1, float("nan")], [1, 0]]))],
            [feature(polygon([[0, 0], [1, float("inf")], [1, 0]]))],
            [feature(polygon([[0, 0], [1, 10**400], [1, 0]]))],
            [feature({"type": "MultiPolygon", "coordinates": 3})],
            [feature({"type": "GeometryCollection", "geometries": []})],
            [feature(polygon(RING), classification=["Tumor"])],
            [feature(polygon(RING), classification={"names": [3]})],
            [feature(polygon(RING), classification={"name": 3})],
            [feature(polygon(RING), name=[1])],
            [feature(polygon(RING), measurements=[3])],
            [feature(polygon(RING), measurements={"a": "wide"})],
        ],
    )
    def test_broken(self, value: Any) -> None:
        with pytest.raises(SourceError):
            read(value)

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 200_000])
    def test_not_json(self, data: bytes) -> None:
        with pytest.raises(SourceError, match="not JSON"):
            read_geojson(data, "a.geojson")
