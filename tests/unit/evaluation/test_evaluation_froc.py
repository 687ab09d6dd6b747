"""FROC: cases worked out by hand, and a brute-force raster reference in the manner of the contest's script."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from shapely import MultiPolygon, Polygon, box

from sentinode.errors import EvaluationError
from sentinode.evaluation.detections import Detections, read_detections
from sentinode.evaluation.froc import FrocConfig, FrocResult, FrocSlide, froc
from sentinode.schema import NodeClass
from sentinode.slides.lesions import lesions_of

BIG = box(0, 0, 400, 400)
"""At 1 um/px no ITC."""


def slide(name: str, tumour: Any, *detections: tuple[float, float, float], um_px: float = 1.0) -> FrocSlide:
    table = np.array(detections, np.float64).reshape(-1, 3)
    return FrocSlide(name, lesions_of(tumour, um_px), Detections.of(table[:, 0], table[:, 1:]))


def run(*slides: FrocSlide, **settings: Any) -> FrocResult:
    return froc(slides, FrocConfig(resamples=100, **settings))


def sensitivities(result: FrocResult) -> list[float | None]:
    return [point.sensitivity.value for point in result.points]


class TestByHand:
    def test_two_slides(self) -> None:
        # Three lesions. By falling confidence, with 2 slides:
        #   0.9 lesion A   0 FP, 1/3      0.8 false    1/2 FP, 1/3
        #   0.7 lesion B 1/2 FP, 2/3      0.6 false      1 FP, 2/3      (lesion C is missed)
        # At 1/4 FP: on the line from (0, 1/3) to (1/2, 1/3), that is 1/3; from 1/2 on: 2/3.
        tumour = MultiPolygon([BIG, box(2000, 0, 2400, 400), box(4000, 0, 4400, 400)])
        result = run(
            slide("tumor_001", tumour, (0.9, 100, 100), (0.8, 1000, 1000), (0.7, 2100, 100)),
            slide("normal_001", MultiPolygon(), (0.6, 5, 5)),
        )
        assert sensitivities(result) == pytest.approx([1 / 3] + [2 / 3] * 5)
        assert result.score.value == pytest.approx((1 / 3 + 5 * 2 / 3) / 6)
        assert np.array(result.curve) == pytest.approx(np.array([(0, 1 / 3), (0.5, 2 / 3), (1, 2 / 3)]))
        assert (result.slides, result.lesions, result.false_positives) == (2, 3, 2)
        assert [o.confidence for o in result.outcomes] == [0.9, 0.7, None]

    def test_only_the_best_detection_of_a_lesion_counts_and_the_rest_are_no_false_positives(self) -> None:
        result = run(slide("a", BIG, (0.2, 10, 10), (0.9, 20, 20), (0.5, 30, 30)))
        assert result.outcomes[0].confidence == 0.9
        assert result.false_positives == 0
        assert result.score.value == 1

    def test_false_positives_before_the_find(self) -> None:
        # 4 FP with more confidence than the only find, 1 slide: nothing before 4 FP; there the curve
        # rises upright from 0 to 1, so at 4 and at 8 FP the sensitivity is 1.
        false = [(0.9 - i / 100, 3000.0, 3000.0) for i in range(4)]
        assert sensitivities(run(slide("a", BIG, *false, (0.5, 10, 10)))) == [0, 0, 0, 0, 1, 1]

    def test_equal_confidences_enter_together(self) -> None:
        # A find and a false positive at 0.5: from (0, 0) straight to (1, 1).
        result = run(slide("a", BIG, (0.5, 10, 10), (0.5, 3000, 3000)))
        assert sensitivities(result) == [0.25, 0.5, 1, 1, 1, 1]

    def test_a_detection_within_half_the_joining_gap_is_a_find(self) -> None:
        result = run(slide("a", BIG, (0.9, 437, 200)), slide("b", BIG, (0.8, 438, 200)))
        assert [o.confidence for o in result.outcomes] == [0.9, None]
        assert result.false_positives == 1

    def test_distances_are_in_micrometres(self) -> None:
        result = run(slide("a", box(0, 0, 4000, 4000), (0.9, 4000 + 37 / 0.25, 200), um_px=0.25))
        assert result.outcomes[0].confidence == 0.9

    def test_pieces_closer_than_75_um_are_one_lesion(self) -> None:
        near = MultiPolygon([BIG, box(470, 0, 870, 400)])
        result = run(slide("a", near, (0.9, 10, 10), (0.8, 800, 10)))
        assert (result.lesions, result.score.value) == (1, 1)

    def test_nothing_found(self) -> None:
        result = run(slide("a", BIG), slide("b", BIG))
        assert result.score.value == 0
        assert sensitivities(result) == [0] * 6
        assert result.curve == ()

    def test_a_confidence_of_zero_finds_nothing(self) -> None:
        result = run(slide("a", BIG, (0.0, 10, 10), (0.0, 3000, 10)))
        assert (result.score.value, result.false_positives) == (0, 0)


class TestRules:
    cells = MultiPolygon([BIG, box(2000, 0, 2100, 100)])

    def test_isolated_tumour_cells_are_neither_lesion_nor_false_positive(self) -> None:
        result = run(slide("a", self.cells, (0.9, 10, 10), (0.8, 2050, 50)))
        assert (result.lesions, result.ignored_lesions, result.false_positives) == (1, 1, 0)
        assert result.score.value == 1
        assert [(o.size, o.counted) for o in result.outcomes] == [
            (NodeClass.MICRO, True),
            (NodeClass.ITC, False),
        ]

    def test_or_lesions_like_others(self) -> None:
        result = run(slide("a", self.cells, (0.9, 10, 10)), itc="counted")
        assert (result.lesions, result.ignored_lesions, result.score.value) == (2, 0, 0.5)

    def test_the_two_measures_of_isolated_tumour_cells_differ(self) -> None:
        # Widened by 37.5 um, 180 x 180 um is a rounded square of 255 um: its longest diameter, corner to
        # corner, is 254.6 + 75 = 329.6 um; the axis of a 255 um square's ellipse is 255 * 4 / sqrt(12) = 294.4,
        # of the rounded one less. With a limit of 300 um only the ellipse calls it ITC.
        tumour = MultiPolygon([BIG, box(2000, 0, 2180, 180)])
        by = {
            measure: run(slide("a", tumour), itc_below_um=300, itc_measure=measure).ignored_lesions
            for measure in ("ellipse axis", "longest diameter")
        }
        assert by == {"ellipse axis": 1, "longest diameter": 0}

    def test_test_114_is_left_out(self) -> None:
        result = run(slide("Test_114", BIG, (0.9, 5000, 5000)), slide("test_001", BIG, (0.9, 1, 1)))
        assert (result.slides, result.lesions, result.false_positives) == (1, 1, 0)
        assert result.left_out == ("Test_114",)
        assert run(slide("Test_114", BIG), left_out=()).slides == 1

    def test_the_rates_between_two_points_lie_on_a_line(self) -> None:
        # 3 slides, a find in each of two: (1/3, 1/2) and, 0.5 being held by both kinds, (2/3, 1).
        # At 1/2 FP: half way, 3/4. Before 1/3 FP: nothing, for the first point stands upright there.
        result = run(
            slide("a", BIG, (0.9, 5000, 0), (0.8, 1, 1)),
            slide("b", BIG, (0.5, 1, 1), (0.5, 5000, 0)),
            slide("c", MultiPolygon()),
            rates=(0.25, 1 / 3, 0.5, 1.0),
        )
        assert sensitivities(result) == pytest.approx([0, 0.5, 0.75, 1])

    def test_rates_are_a_setting(self) -> None:
        result = run(slide("a", BIG, (0.9, 5000, 5000), (0.8, 1, 1)), rates=(0.5, 1.0))
        assert sensitivities(result) == [0, 1]

    def test_no_lesion_is_an_error_not_a_number(self) -> None:
        with pytest.raises(EvaluationError, match="none of 1 slides"):
            run(slide("a", MultiPolygon(), (0.9, 1, 1)))
        with pytest.raises(EvaluationError, match="lesion"):
            run()

    def test_a_slide_comes_once(self) -> None:
        with pytest.raises(EvaluationError, match="slide a"):
            run(slide("a", BIG), slide("a", BIG))

    def test_the_result_is_a_record(self) -> None:
        result = run(slide("a", BIG, (0.9, 10, 10)))
        assert FrocResult.from_json(result.to_json(), "froc.json") == result


class TestInterval:
    def test_is_over_slides(self) -> None:
        rng = np.random.default_rng(0)
        slides = [
            slide(f"s{i}", BIG, *([(0.9, 10, 10)] if rng.random() < 0.6 else []), (rng.random(), 5000, 0))
            for i in range(60)
        ]
        first, again = (froc(slides, FrocConfig(resamples=500)).score for _ in range(2))
        assert first == again
        assert first.value is not None
        assert first.low is not None
        assert first.high is not None
        # The share of found slides has a standard error of about sqrt(0.24 / 60) = 0.063.
        assert first.low < first.value < first.high
        assert 0.15 < first.high - first.low < 0.35

    def test_certainty_is_not_claimed_where_all_was_found(self) -> None:
        score = run(slide("a", BIG, (0.9, 1, 1)), slide("b", BIG, (0.9, 1, 1))).score
        assert (score.value, score.low, score.high) == (1, None, None)


def blobs(rng: np.random.Generator, count: int, size: int) -> MultiPolygon:
    """Random stars, some of them with a hole."""
    union: Any = MultiPolygon()
    for _ in range(count):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
        x, y, r = *rng.uniform(0.15 * size, 0.85 * size, 2), rng.uniform(10, 130)
        radii = r * rng.uniform(0.5, 1, 12)
        star = Polygon(np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], 1)).buffer(0)
        union = union.union(star).difference(box(x, y, x + r / 5, y + r / 5))
    return union


def raster_froc(slides: list[tuple[Any, Any]], size: int, rates: tuple[float, ...]) -> tuple[float, int]:
    """Score and lesions on masks of 1 um pixels: widen, fill, label; every threshold counted anew."""
    import shapely

    xs, ys = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    finds, false, lesions = [], [], 0
    for tumour, detections in slides:
        mask = shapely.contains_xy(tumour, xs, ys)
        wide = ndimage.distance_transform_edt(~mask) < 37.5 if mask.any() else mask
        labels, count = ndimage.label(ndimage.binary_fill_holes(wide), np.ones((3, 3)))
        large = {n + 1 for n in range(count) if raster_axis(labels == n + 1) >= 275}
        best = dict.fromkeys(large, 0.0)
        for confidence, x, y in detections:
            label = labels[int(y), int(x)]
            if label == 0:
                false.append(confidence)
            elif label in large:
                best[label] = max(best[label], confidence)
        finds += list(best.values())
        lesions += len(large)
    curve = [(0.0, 0.0)]
    for threshold in sorted({c for c in finds + false if c > 0}, reverse=True):
        curve.append(
            (sum(c >= threshold for c in false) / len(slides), sum(c >= threshold for c in finds) / lesions)
        )
    fp, tp = np.array(curve).T
    return float(np.mean(np.interp(rates, fp, tp))), lesions


def raster_axis(mask: Any) -> float:
    ys, xs = np.nonzero(mask)
    covariance = np.cov(np.stack([xs, ys]), bias=True) + np.eye(2) / 12
    return 4 * float(np.sqrt(np.linalg.eigvalsh(covariance)[-1]))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = 1000
    slides = []
    for _ in range(3):
        tumour = blobs(rng, 5, size)
        detections = [(float(rng.random()), *rng.uniform(0, size, 2)) for _ in range(25)]
        reach = tumour.buffer(37.5)
        # A pixel on the border may fall either way.
        slides.append((tumour, [d for d in detections if reach.boundary.distance(box(*d[1:], *d[1:])) > 2]))
    result = run(*(slide(f"s{i}", tumour, *found) for i, (tumour, found) in enumerate(slides)))
    score, lesions = raster_froc(slides, size, result.config.rates)
    assert result.lesions == lesions
    assert result.score.value == pytest.approx(score, abs=1e-12)


class TestDetectionsFile:
    def test_reads_what_it_writes(self) -> None:
        wrote = Detections.of([0.1, 0.123456789012345678], [[1, 2], [3.5, 1e5 + 0.1]])
        found = read_detections(wrote.to_csv(), "a.csv")
        assert found.confidences_D.tolist() == wrote.confidences_D.tolist()
        assert found.xy_D2.tolist() == wrote.xy_D2.tolist()

    @pytest.mark.parametrize("data", [b"", b"\n", b"confidence,x,y\n", b"\xef\xbb\xbfConfidence, X, Y\r\n"])
    def test_nothing_found(self, data: bytes) -> None:
        assert len(read_detections(data, "a.csv").confidences_D) == 0

    @pytest.mark.parametrize(
        ("data", "found"),
        [
            (b"0.5,1\n", "line 1 has 2 columns"),
            (b"0.5,1,2,3\n", "4 columns"),
            (b"1.5,1,2\n", "confidence of 1.5"),
            (b"-0.1,1,2\n", "confidence of -0.1"),
            (b"nan,1,2\n", "confidence of nan"),
            (b"0.5,inf,2\n", "not finite"),
            (b"0.5,1,2\nconfidence,x,y\n", "could not convert"),
            (b"x,y,confidence\n", "could not convert"),
            (b"\xff\xfe", "decode"),
        ],
    )
    def test_broken(self, data: bytes, found: str) -> None:
        with pytest.raises(EvaluationError, match=found):
            read_detections(data, "a.csv")
