"""Candidates by PCam's rule, on polygons, on synthetic slides and against real Camelyon16 annotations."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import shapely
from shapely import MultiPolygon, box

from sentinode.cohort.choose import choose, even, shares
from sentinode.cohort.folder import Cohort, CohortSlide, find_slides
from sentinode.cohort.sample import (
    Grid,
    SlideSample,
    check_outlines,
    read_tumour,
    sample_digest,
    sample_slide,
)
from sentinode.cohort.source import SlideSource
from sentinode.cohort.synthetic.config import SlideContents
from sentinode.cohort.synthetic.write import write_slide
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.data.places import parse_reference, reference
from sentinode.data.sources.base import BadImage
from sentinode.errors import ConfigError, SourceError
from sentinode.schema import PATCH_MPP_UM_PX, Split
from sentinode.slides.annotations import FloatArray, Region
from sentinode.slides.asap_xml import read_asap_xml, write_asap_xml
from sentinode.slides.geojson import write_geojson
from sentinode.slides.reader import open_slide
from sentinode.slides.slide import Slide
from sentinode.storage import open_store

SLIDE = CohortSlide(name="a", key="a.tif", size_bytes=1, annotation="a.xml", negatives=True, split=None)
LEVEL0 = PATCH_MPP_UM_PX / 4


def grid(size: int, seed: int = 0) -> Grid:
    """Over a slide of four times a patch's resolution, as Camelyon16's."""
    return Grid((size, size), LEVEL0, np.random.default_rng(seed))


def centre_of(corner: tuple[int, int]) -> shapely.Polygon:
    """The central 32x32 patch pixels at level 0."""
    x, y = corner
    return box(x + 128, y + 128, x + 256, y + 256)


class TestRule:
    tissue = MultiPolygon([box(500, 500, 9500, 9500)])
    tumour = MultiPolygon(
        [box(3000, 3000, 3900, 3500).difference(box(3300, 3150, 3600, 3350)), box(8000, 8000, 8010, 8010)]
    )

    def draw(self, config: SamplingConfig, slide: CohortSlide = SLIDE) -> SlideSample:
        return grid(10_000).draw(slide, config, self.tissue, self.tumour)

    def test_a_patch_is_tumour_if_its_centre_holds_tumour(self) -> None:
        sample = self.draw(SamplingConfig(patches_per_slide=100_000))
        assert sample.patch_px == 384
        assert len(sample.positives) > 25
        # Corners are rounded to pixels, cells are not: a pixel's share of doubt.
        for corner in sample.positives:
            assert shapely.buffer(centre_of(corner), 1).intersects(self.tumour)
        for corner in (*sample.near, *sample.negatives):
            assert not shapely.buffer(centre_of(corner), -1).intersects(self.tumour)

    def test_every_place_is_a_candidate_once(self) -> None:
        sample = self.draw(SamplingConfig(patches_per_slide=100_000, min_tissue=1.0))
        corners = {*sample.positives, *sample.near, *sample.negatives}
        assert len(corners) == len(sample.positives) + len(sample.near) + len(sample.negatives)
        assert len(corners) == pytest.approx((9000 / 128 - 2) ** 2, rel=0.04)

    def test_hard_negatives_lie_near_the_tumour_and_others_do_not(self) -> None:
        sample = self.draw(SamplingConfig(patches_per_slide=100_000, near_um=200))
        near = [centre_of(c).distance(self.tumour) * LEVEL0 for c in sample.near]
        far = [centre_of(c).distance(self.tumour) * LEVEL0 for c in sample.negatives]
        assert max(near) < 200 < 200 - 32 + min(far) + 32
        assert min(far) > 150

    def test_patches_are_tissue_and_lie_on_the_slide(self) -> None:
        sample = self.draw(SamplingConfig(patches_per_slide=100_000, min_tissue=0.5))
        for x, y in (*sample.positives, *sample.near, *sample.negatives):
            assert box(x, y, x + 384, y + 384).intersection(self.tissue).area > 0.4 * 384**2
            assert 0 <= x <= 10_000 - 384
            assert 0 <= y <= 10_000 - 384

    def test_nothing_is_negative_where_annotation_is_not_exhaustive(self) -> None:
        sample = self.draw(SamplingConfig(), SLIDE.model_copy(update={"negatives": False}))
        assert sample.positives
        assert sample.near == sample.negatives == ()

    def test_a_slide_smaller_than_a_patch_has_none(self) -> None:
        sample = grid(300).draw(SLIDE, SamplingConfig(), self.tissue, self.tumour)
        assert sample.positives == sample.negatives == ()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One small tumour slide and a normal one, at two resolutions."""
    path = tmp_path_factory.mktemp("slides")
    tumour = SlideContents(width_px=2400, height_px=2400, um_px=0.5, micro=1, seed=5)
    plan = write_slide(tumour, path / "tumor_501.tif")
    (path / "tumor_501.xml").write_bytes(write_asap_xml([Region(lesion, "_0") for lesion in plan.lesions]))
    write_slide(SlideContents(width_px=1100, height_px=1200, um_px=0.972, seed=6), path / "normal_501.tif")
    return path


class TestSlides:
    def test_candidates_patches_and_labels_of_synthetic_slides(self, folder: Path) -> None:
        store = open_store(str(folder))
        config = SamplingConfig(patches_per_slide=40)
        cohort = find_slides(store)
        samples = [sample_slide(store, slide, config) for slide in cohort.slides]
        listing = choose(cohort, samples, config)
        assert (listing.labels == 1).sum() == (listing.labels == 0).sum() == 40
        assert set(listing.slides.names) == {"normal_501", "tumor_501"}
        tumour = read_tumour(store, "tumor_501.xml")
        source = SlideSource(str(folder))
        items = listing.items(range(len(listing)))
        for item, pixels in source.read(items):
            assert not isinstance(pixels, BadImage)
            assert pixels.shape == (96, 96, 3)
            assert pixels.mean() < 235
            key, (x, y), side = parse_reference(item.ref)
            third = side / 3
            centre = box(x + third, y + third, x + 2 * third, y + 2 * third)
            if key == "normal_501.tif":
                assert (item.label, side) == (0, 96)
            elif item.label:
                assert shapely.buffer(centre, 1).intersects(tumour)
            else:
                assert not shapely.buffer(centre, -1).intersects(tumour)
                assert side == 187

    def test_a_patch_is_the_area_it_names(self, folder: Path) -> None:
        item = choose_one(folder)
        key, (x, y), side = parse_reference(item.ref)
        [(_, pixels)] = SlideSource(str(folder)).read([item])
        with open_slide(str(folder / key)) as slide:
            whole = slide.read_region(x, y, 0, (side, side))
        shrunk = (
            whole[: side // 2 * 2, : side // 2 * 2].reshape(side // 2, 2, side // 2, 2, 3).mean(axis=(1, 3))
        )
        assert abs(shrunk.mean() - np.asarray(pixels).mean()) < 1.0

    def test_candidates_are_the_same_each_time_and_others_with_another_seed(self, folder: Path) -> None:
        store = open_store(str(folder))
        slide = find_slides(store).slides[0]
        one, two, three = (sample_slide(store, slide, SamplingConfig(seed=s)) for s in (0, 0, 1))
        assert one == two
        assert one.negatives != three.negatives

    def test_settings_annotation_and_slide_change_the_digest(self, folder: Path) -> None:
        slide = find_slides(open_store(str(folder))).slides[0]
        digests = {
            sample_digest(slide, b"", SamplingConfig()),
            sample_digest(slide, b"x", SamplingConfig()),
            sample_digest(slide, b"", SamplingConfig(min_tissue=0.4)),
            sample_digest(slide.model_copy(update={"size_bytes": 2}), b"", SamplingConfig()),
        }
        assert len(digests) == 4
        assert sample_digest(slide, b"", SamplingConfig(positive_share=0.4)) in digests

    def test_a_slide_that_is_gone_gives_bad_images(self, folder: Path, tmp_path: Path) -> None:
        item = choose_one(folder)
        (tmp_path / "tumor_501.tif").write_bytes(b"II*\0 broken")
        [(_, bad)] = SlideSource(str(tmp_path)).read([item])
        assert isinstance(bad, BadImage)

    def test_a_coarse_slide_is_refused(self, folder: Path) -> None:
        store = open_store(str(folder))
        with pytest.raises(SourceError, match="2 um/px"):
            sample_slide(store, find_slides(store).slides[0], SamplingConfig(um_px=2.0))


def choose_one(folder: Path):  # type: ignore[no-untyped-def]
    store = open_store(str(folder))
    slide = next(s for s in find_slides(store).slides if s.name == "tumor_501")
    config = SamplingConfig(patches_per_slide=5)
    listing = choose(Cohort((slide,), ()), [sample_slide(store, slide, config)], config)
    return listing.items([0])[0]


class TestBalance:
    @staticmethod
    def sample(positives: int, near: int, negatives: int) -> SlideSample:
        corners = tuple((i, i) for i in range(max(positives, near, negatives)))
        return SlideSample(
            slide="a", key="a.tif", patch_px=96,
            positives=corners[:positives], near=corners[:near], negatives=corners[:negatives],
        )  # fmt: skip

    def test_classes_are_balanced_and_slides_share_evenly(self) -> None:
        samples = [self.sample(0, 0, 100), self.sample(0, 0, 10), self.sample(90, 20, 100)]
        assert shares(samples, SamplingConfig(patches_per_slide=100)) == [(0, 40), (0, 10), (90, 40)]

    def test_what_there_is_too_much_of_is_left_out(self) -> None:
        samples = [self.sample(50, 0, 5), self.sample(10, 5, 10)]
        assert shares(samples, SamplingConfig(patches_per_slide=100)) == [(10, 5), (10, 15)]

    def test_another_share_of_positives(self) -> None:
        taken = shares([self.sample(100, 0, 90)], SamplingConfig(patches_per_slide=100, positive_share=0.25))
        assert taken == [(30, 90)]

    def test_one_class_alone_is_taken_whole(self) -> None:
        assert shares([self.sample(0, 0, 7)], SamplingConfig()) == [(0, 7)]

    def test_even_takes_all_where_there_is_not_enough(self) -> None:
        for seed in range(50):
            rng = np.random.default_rng(seed)
            available = rng.integers(0, 20, rng.integers(1, 9))
            total = int(rng.integers(0, 120))
            taken = even(available, total)
            assert taken.sum() == min(total, available.sum())
            assert (taken <= available).all()
            spare = taken < available
            if spare.any():
                assert taken[spare].max() - taken[spare].min() <= 1
                assert taken.max() <= taken[spare].max() + 1

    def test_test_slides_are_balanced_by_themselves(self) -> None:
        train = SLIDE.model_copy(update={"name": "tumor_501"})
        test = SLIDE.model_copy(update={"name": "test_501", "split": Split.TEST})
        samples = [self.sample(10, 5, 20), self.sample(4, 5, 20)]
        listing = choose(Cohort((train, test), ()), samples, SamplingConfig())
        of_test = listing.splits == 2
        assert of_test.sum() == 8
        assert (listing.labels[of_test] == 1).sum() == 4
        assert (listing.labels[~of_test] == 1).sum() == 10

    def test_hard_negatives_are_those_that_a_model_takes_for_tumour(self) -> None:
        samples = [self.sample(20, 4, 40)]
        config = SamplingConfig(hard_share=0.5)

        def right_is_suspicious(slide: str, points: FloatArray) -> FloatArray:
            assert slide == "a"
            return points[:, 0] / 100

        listing = choose(Cohort((SLIDE,), ()), samples, config, right_is_suspicious)
        negatives = [
            parse_reference(item.ref)[1][0] for item in listing.items(range(len(listing))) if not item.label
        ]
        assert sorted(negatives[:10], reverse=True) == list(range(39, 29, -1))
        assert len(negatives) == 20
        by_place = choose(Cohort((SLIDE,), ()), samples, config)
        assert by_place.digest() != listing.digest()

    def test_with_a_model_the_others_still_come_from_afar(self) -> None:
        near, far = tuple((i, 0) for i in range(100)), tuple((i, 1) for i in range(100))
        sample = self.sample(50, 0, 0).model_copy(update={"near": near, "negatives": far})
        listing = choose(
            Cohort((SLIDE,), ()),
            [sample],
            SamplingConfig(hard_share=0.3),
            lambda _, points: points[:, 0] / 100,
        )
        corners = [
            parse_reference(item.ref)[1] for item in listing.items(range(len(listing))) if not item.label
        ]
        assert sum(y == 1 and x < 90 for x, y in corners) >= 0.7 * len(corners) - 1 > 30

    def test_unreadable_slides_end_the_run_or_are_listed(self) -> None:
        samples = [
            self.sample(3, 1, 3),
            SlideSample(slide="b", key="b.tif", patch_px=0, fault="b.tif is truncated"),
        ]
        cohort = Cohort((SLIDE, SLIDE.model_copy(update={"name": "b"})), ())
        with pytest.raises(SourceError, match=r"b: b\.tif is truncated"):
            choose(cohort, samples, SamplingConfig())
        listing = choose(cohort, samples, SamplingConfig(max_bad_slides=1))
        assert listing.warnings == ("b was left out: b.tif is truncated",)


def test_references_come_back_and_others_are_refused() -> None:
    assert parse_reference(reference("a/b #1.tif", (3, 4), 187)) == ("a/b #1.tif", (3, 4), 187)
    with pytest.raises(ConfigError):
        parse_reference("a.tif")


def test_real_patches_have_the_class_that_real_annotations_give(real_data: Path) -> None:
    """Camelyon16 patches of 256 px at level 0 whose label somebody else derived from the same annotations."""
    store = open_store(str(real_data / "camelyon16_asap_xml"))
    with (real_data / "camelyon16_patches_256" / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 80
    tumours = {name: read_tumour(store, f"{name}.xml") for name in {row["slide"] for row in rows}}
    agreed = 0
    for row in rows:
        x, y = int(row["x"]), int(row["y"])
        hit = tumours[row["slide"]].intersects(box(x, y, x + 256, y + 256))
        agreed += hit == (row["label"] in ("1", "tumor"))
    assert agreed == len(rows)


def test_cells_of_a_real_lesion_cover_it(real_data: Path) -> None:
    store = open_store(str(real_data / "camelyon16_asap_xml"))
    tumour = read_tumour(store, "tumor_064.xml")
    cells = Grid((100_000, 200_000), 0.243, np.random.default_rng(0))
    hit = cells.holding(tumour)
    assert hit.sum() * cells.cell**2 >= tumour.area
    rows, columns = np.nonzero(hit)
    left, top, _, bottom = tumour.bounds
    assert columns.min() * cells.cell <= left <= columns.max() * cells.cell + 2 * cells.cell
    assert abs((rows.max() + 1) * cells.cell - bottom) < 2 * cells.cell
    assert abs(rows.min() * cells.cell - top) < 2 * cells.cell


class _Sized:
    url = "a.tif"
    level_dimensions = ((100, 80),)


def test_outlines_that_may_be_counted_from_elsewhere_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(folder / "tumor_501.tif", tmp_path / "a.tif")
    regions = read_asap_xml((folder / "tumor_501.xml").read_bytes(), "tumor_501.xml")
    (tmp_path / "a.geojson").write_bytes(write_geojson(regions))
    store = open_store(str(tmp_path))
    drawn = SLIDE.model_copy(update={"annotation": "a.geojson"})
    config = SamplingConfig(patches_per_slide=5)
    assert "shifted" not in sample_slide(store, drawn, config).flags
    # As MRXS has it, of which there is none here.
    bounds = {"openslide.bounds-x": "300", "openslide.bounds-y": "0"}
    monkeypatch.setattr(Slide, "properties", property(lambda _: bounds, lambda *_: None), raising=False)
    sample = sample_slide(store, drawn, config)
    listing = choose(Cohort((drawn,), ()), [sample], config)
    assert any("--no-crop (a)" in warning for warning in listing.warnings)


def test_an_annotation_of_another_slide_is_refused() -> None:
    over_the_edge = box(90, 70, 120, 90)
    check_outlines(MultiPolygon([over_the_edge]), _Sized())  # type: ignore[arg-type]
    check_outlines(MultiPolygon(), _Sized())  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="1 of 2 annotated outlines lie beside"):
        check_outlines(MultiPolygon([over_the_edge, box(300, 0, 310, 9)]), _Sized())  # type: ignore[arg-type]
