"""Corrections as a file: round trips, QuPath's own exports, hostile ones."""

from __future__ import annotations

import json

import pytest
import shapely

from sentinode.errors import SourceError
from sentinode.slides.annotations import Region
from sentinode.slides.corrections import CorrectedSlide, Correction, Corrections, Mark, read_corrections
from sentinode.slides.geojson import read_geojson, write_geojson

ABOUT = CorrectedSlide(slide="tumor_501", slide_url="s3://bucket/tumor_501.tif", um_px=0.25, bundle="ab" * 32)


def region(x: float, side: float = 100, **changes: object) -> Region:
    return Region(shapely.box(x, 0, x + side, side), **({"label": "macro", "name": "lesion 1"} | changes))  # type: ignore[arg-type]


def corrections() -> Corrections:
    return Corrections(
        ABOUT,
        (
            Correction.of(
                region(0, measurements={"Score": 0.9}), Mark(action="accept", lesion=1, by="reader 2")
            ),
            Correction.of(
                region(200), Mark(action="reject", lesion=2, note="histiocytes", at="2026-11-26T10:00:00Z")
            ),
            Correction.of(region(400), Mark(), tumour=True),
            Correction.of(region(450), Mark(), tumour=False),
        ),
    )


def test_marks_shapes_and_the_slide_come_back() -> None:
    found = read_corrections(corrections().to_geojson(), "a", "other name")
    assert found.slide == ABOUT
    assert [c.mark for c in found.corrections] == [c.mark for c in corrections().corrections]
    assert [c.region.label for c in found.corrections] == ["Tumor", "Ignore*", "Tumor", "Ignore*"]
    assert found.corrections[0].region.measurements == {"Score": 0.9}
    for one, other in zip(found.corrections, corrections().corrections, strict=True):
        assert shapely.equals(one.region.shape, other.region.shape)


def test_what_is_tumour_and_what_is_not() -> None:
    found = corrections()
    assert found.tumour.area == 100 * 100 + 50 * 100
    assert found.healthy.area == 2 * 100 * 100


def of(*marked: tuple[Region, Mark, bool]) -> Corrections:
    return Corrections(
        ABOUT, tuple(Correction.of(shape, mark, is_tumour) for shape, mark, is_tumour in marked)
    )


def test_what_is_drawn_stands_above_what_was_judged_wherever_it_stands_in_the_file() -> None:
    rejected = (region(0), Mark(action="reject", lesion=1, at="2026-01-02T10:00:00+00:00"), False)
    drawn = (region(20, 40), Mark(at="2026-01-01T10:00:00+00:00"), True)
    for found in (of(rejected, drawn), of(drawn, rejected)):
        assert (found.tumour.area, found.healthy.area, found.overlaps) == (1600, 100 * 100 - 1600, 1)
    beside = of(rejected, (region(100), Mark(), True))
    assert (beside.tumour.area, beside.healthy.area, beside.overlaps) == (10_000, 10_000, 0)


def test_of_two_drawn_ones_the_later_stands_above() -> None:
    def drawn(side: float, is_tumour: bool, at: str) -> tuple[Region, Mark, bool]:
        return region(0, side), Mark(at=at), is_tumour

    whole, hole, island = drawn(100, True, "2026-01-01"), drawn(50, False, "2026-01-02"), drawn(10, True, "")
    for found in (of(whole, hole, island), of(island, hole, whole)):
        assert found.tumour.area == 100 * 100 - 50 * 50 + 10 * 10
        assert found.healthy.area == 50 * 50 - 10 * 10
    undated = of(drawn(100, True, ""), drawn(50, False, ""), drawn(10, True, ""))
    assert undated.tumour.area == found.tumour.area
    assert undated.overlaps == 2


def test_in_an_export_of_qupath_ignore_is_taken_away_also_where_it_comes_first() -> None:
    data = write_geojson(
        [region(0, 50, label="Ignore*"), region(0, label="Tumor"), region(0, label="Stroma")]
    )
    found = read_corrections(data, "a", "tumor_501")
    again = read_corrections(found.to_geojson(), "a", "tumor_501")
    for one in (found, again):
        assert (one.tumour.area, one.healthy.area) == (100 * 100 - 50 * 50, 50 * 50)


def test_qupath_reads_the_file_as_annotations() -> None:
    regions = read_geojson(corrections().to_geojson(), "a")
    assert [r.label for r in regions] == ["Tumor", "Ignore*", "Tumor", "Ignore*"]


def test_a_plain_export_of_qupath_counts_as_drawn() -> None:
    data = write_geojson([region(0, label="Tumor"), region(200, label="Ignore*"), region(400, label="micro")])
    found = read_corrections(data, "a", "tumor_501")
    assert found.slide == CorrectedSlide(slide="tumor_501")
    assert {c.mark.action for c in found.corrections} == {"draw"}
    assert found.tumour.area == 20_000
    assert found.healthy.area == 10_000


@pytest.mark.parametrize(
    ("label", "kept"),
    [
        ("macro", "Tumor"),
        ("tumour", "Tumor"),
        ("Normal", "Ignore*"),
        ("None", "Ignore*"),
        ("Stroma", "Stroma"),
    ],
)
def test_reading_makes_one_of_two_classes_of_what_means_one(label: str, kept: str) -> None:
    (found,) = read_corrections(write_geojson([region(0, label=label)]), "a", "a").corrections
    assert (found.region.label, found.region.name) == (kept, "lesion 1")


def damaged(**changes: object) -> bytes:
    whole = json.loads(corrections().to_geojson())
    return json.dumps(whole | changes).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "is not JSON"),
        (b'{"type": "FeatureCollection"}', "holds no features"),
        (damaged(sentinode={"schema_version": 2, "slide": "a"}), "schema_version 2"),
        (damaged(sentinode={"slide": "a", "password": "x"}), "password"),
        (damaged(sentinode=[1]), "a"),
        (damaged(features=[1]), "holds no features"),
        (damaged(features=[{"properties": {"sentinode": {"action": "delete"}}}]), "action"),
        (write_geojson([region(0, label="mystery")]), "mystery"),
        (write_geojson([region(0, label=None)]), "without a class"),
    ],
)
def test_what_is_no_file_of_corrections_is_a_clear_error(data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_corrections(data, "a.geojson", "a")
