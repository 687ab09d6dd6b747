"""ASAP's XML: groups, holes, real lesions against real patches, hostile files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import shapely
from slide_parts import asap_xml, square

from sentinode.errors import SourceError
from sentinode.slides import annotations
from sentinode.slides.annotations import Classes, Region, tumour_of
from sentinode.slides.asap_xml import read_asap_xml, write_asap_xml


def area(data: bytes) -> float:
    return tumour_of(read_asap_xml(data, "a.xml"), "a.xml").area


class TestGroups:
    @pytest.mark.parametrize(
        ("tumour", "hole"),
        [("_0", "_2"), ("_1", "_2"), ("Tumor", "Exclusion"), ("Tumor", "None"), ("metastases", "normal")],
    )
    def test_holes_are_taken_from_the_tumour(self, tumour: str, hole: str) -> None:
        assert area(asap_xml((tumour, square(0, 0, 100)), (hole, square(40, 40, 20)))) == 10_000 - 400

    def test_a_hole_counts_wherever_it_stands_in_the_file(self) -> None:
        assert area(asap_xml(("_2", square(40, 40, 20)), ("_0", square(0, 0, 100)))) == 9_600

    def test_a_hole_across_the_edge_takes_only_what_is_tumour(self) -> None:
        assert area(asap_xml(("_0", square(0, 0, 100)), ("_2", square(90, 0, 100)))) == 9_000

    def test_overlapping_regions_count_once(self) -> None:
        assert area(asap_xml(("_0", square(0, 0, 100)), ("_1", square(50, 0, 100)))) == 15_000

    def test_no_annotation_is_no_tumour(self) -> None:
        assert area(asap_xml()) == 0

    def test_an_unknown_group_is_refused_until_its_meaning_is_told(self) -> None:
        regions = read_asap_xml(asap_xml(("lymphoma", square(0, 0, 10))), "a.xml")
        with pytest.raises(SourceError, match="lymphoma"):
            tumour_of(regions, "a.xml")
        assert tumour_of(regions, "a.xml", Classes(tumour=("lymphoma",))).area == 100


class TestOutlines:
    def test_points_are_taken_by_their_order(self) -> None:
        shuffled = [(2, 10, 10), (0, 0, 0), (3, 0, 10), (1, 10, 0)]
        points = "".join(f'<Coordinate Order="{o}" X="{x}" Y="{y}"/>' for o, x, y in shuffled)
        data = asap_xml(("_0", [])).replace(b"<Coordinates>", f"<Coordinates>{points}".encode())
        assert area(data) == 100

    def test_both_loops_of_a_crossing_outline_count(self) -> None:
        assert area(asap_xml(("_0", [(0, 0), (10, 10), (10, 0), (0, 10)]))) == 50

    def test_an_outline_drawn_over_its_start_keeps_the_overlap(self) -> None:
        twice_round = square(0, 0, 10) + square(0, 0, 10)[:3] + [(5, 5)]
        assert area(asap_xml(("_0", twice_round))) == 100

    def test_a_closed_outline_may_repeat_its_first_point(self) -> None:
        assert area(asap_xml(("_0", [*square(0, 0, 10), (0, 0)]))) == 100

    def test_dots_and_rulers_have_no_area(self, caplog: pytest.LogCaptureFixture) -> None:
        assert area(asap_xml(("_0", [(1, 1)]), kind="Dot")) == 0
        assert "passed over" in caplog.text


class TestHostileFiles:
    @pytest.mark.parametrize(
        ("data", "found"),
        [
            (b"", "not whole XML"),
            (b"\x00\xff\xfe", "not whole XML"),
            (b'<?xml version="1.0" encoding="foo"?><ASAP_Annotations/>', "unknown encoding: foo"),
            (asap_xml(("_0", square(0, 0, 10)))[:-40], "not whole XML"),
            (b"<Annotations/>", "root element Annotations"),
            (b"<svg><Annotation/></svg>", "root element svg"),
            (asap_xml(("_0", [(0, 0), (1, 1)])), "2 points"),
            (asap_xml(("_0", [(0, 0), (1, 1), (0, 0), (1, 1)])), "fewer than three"),
            (asap_xml(("_0", [])), "0 points"),
            (asap_xml(("_0", [(0, 0), (1, 1), (2, 2)])), "encloses no area"),
            (asap_xml(("_0", [(0, 0), (float("nan"), 1), (2, 0)])), "finite"),
            (asap_xml(("_0", [(0, 0), (float("inf"), 1), (2, 0)])), "finite"),
            (asap_xml(("_0", [(0, 0), (1e12, 1), (2, 0)])), "coordinate of 1000000000000"),
            (asap_xml(("_0", square(0, 0, 10))).replace(b'X="0"', b'X="0,5"'), "0,5"),
            (asap_xml(("_0", square(0, 0, 10))).replace(b'X="0"', b""), "coordinate"),
            (asap_xml(("_0", square(0, 0, 10))).replace(b' PartOfGroup="_0"', b""), "no group"),
            (asap_xml(("_0", square(0, 0, 10)), kind="Ellipse"), "Ellipse"),
            (
                b"<ASAP_Annotations><Annotation><Annotation/></Annotation></ASAP_Annotations>",
                "within another",
            ),
        ],
    )
    def test_broken(self, data: bytes, found: str) -> None:
        with pytest.raises(SourceError, match=found):
            area(data)

    def test_entity_bomb(self) -> None:
        levels = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
        bomb = f'<!DOCTYPE bomb [<!ENTITY e0 "lol">{levels}]><ASAP_Annotations>&e9;</ASAP_Annotations>'
        with pytest.raises(SourceError, match="document type"):
            read_asap_xml(bomb.encode(), "bomb.xml")

    def test_other_files_are_not_read(self) -> None:
        data = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><ASAP_Annotations>&x;</ASAP_Annotations>'
        with pytest.raises(SourceError, match="document type"):
            read_asap_xml(data, "a.xml")

    def test_too_many_points(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(annotations, "MAX_POINTS", 7)
        with pytest.raises(SourceError, match="more than"):
            area(asap_xml(("_0", square(0, 0, 10)), ("_0", square(0, 0, 10))))

    def test_too_many_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(annotations, "MAX_BYTES", 100)
        with pytest.raises(SourceError, match="bytes"):
            area(asap_xml(("_0", square(0, 0, 10))))

    def test_a_tangle_of_crossings_is_refused_before_it_takes_the_memory(self) -> None:
        tangle = np.random.default_rng(0).uniform(0, 1000, (1300, 2)).tolist()
        with pytest.raises(SourceError, match="crosses itself"):
            area(asap_xml(("_0", tangle)))

    def test_deep_nesting_costs_nothing(self) -> None:
        deep = b"<ASAP_Annotations>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</ASAP_Annotations>"
        assert read_asap_xml(deep, "deep.xml") == ()


@pytest.mark.real_data
def test_real_patches_lie_where_their_labels_say(real_data: Path) -> None:
    folder = real_data / "camelyon16_patches_256"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    tumours = {}
    for slide in {row["slide"] for row in rows}:
        file = real_data / "camelyon16_asap_xml" / f"{slide}.xml"
        tumours[slide] = tumour_of(read_asap_xml(file.read_bytes(), file.name), file.name)
    assert len(rows) == 89
    for row in rows:
        x, y = int(row["x"]), int(row["y"])
        touches = tumours[row["slide"]].intersects(shapely.box(x, y, x + 256, y + 256))
        assert touches == (row["label"] == "1"), row["file"]


class TestWriting:
    def test_holes_and_parts_come_back(self) -> None:
        ring = shapely.Polygon(square(0.25, 0, 100), [square(40, 40, 20)])
        both = shapely.MultiPolygon([ring, shapely.Polygon(square(200, 0, 10))])
        data = write_asap_xml([Region(both, "_0"), Region(shapely.Polygon(square(300, 0, 5)), 'a "b" <c>')])
        regions = read_asap_xml(data, "a.xml")
        assert [region.label for region in regions] == ["_0", "_0", 'a "b" <c>', "_2"]
        known = [region for region in regions if region.label in ("_0", "_2")]
        assert shapely.equals(tumour_of(known, "a.xml"), both)

    def test_nothing_is_an_empty_file(self) -> None:
        assert read_asap_xml(write_asap_xml([]), "a.xml") == ()
