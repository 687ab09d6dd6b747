"""Slide scores: pooling by hand, the logistic model against scikit-learn, slide AUROC and workload."""

from __future__ import annotations

import math

import numpy as np
import pytest
from evaluation_parts import make_predictions, warm_slides
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sentinode.errors import EvaluationError
from sentinode.evaluation.heat_map import CLUSTER_FEATURES, FEATURES, HeatMap, features_of
from sentinode.evaluation.slide_level import (
    SAMPLED,
    SlideLevelConfig,
    SlideLevelResult,
    evaluate_slides,
    labels_from_patches,
)
from sentinode.evaluation.slide_pooling import (
    Pooling,
    PoolingConfig,
    SlideLogistic,
    fit_slide_logistic,
    heat_maps_of,
    scores_of,
    slide_score,
)
from sentinode.schema import Split

FEW = SlideLevelConfig(resamples=200)


def maps(count: int, seed: int = 0, placed: bool = True) -> tuple[dict[str, HeatMap], dict[str, bool]]:
    found, labels = warm_slides(count, seed, 250.0)
    return found if placed else {name: HeatMap.of(one.probabilities_N) for name, one in found.items()}, labels


class TestPooling:
    heat = HeatMap.of([0.1, 0.5, 0.9, 0.2])

    @pytest.mark.parametrize(
        ("method", "k", "score"),
        [("max", 1, 0.9), ("top-k mean", 2, 0.7), ("top-k mean", 10, 0.425), ("top-k mean", 1, 0.9)],
    )
    def test_by_hand(self, method: str, k: int, score: float) -> None:
        assert slide_score(self.heat, PoolingConfig(method=Pooling(method), top_k=k)) == pytest.approx(score)

    def test_noisy_or(self) -> None:
        score = slide_score(self.heat, PoolingConfig(method=Pooling.NOISY_OR))
        assert -math.expm1(-score) == pytest.approx(1 - 0.9 * 0.5 * 0.1 * 0.8)

    def test_noisy_or_still_orders_slides_whose_chance_is_1_in_floating_point(self) -> None:
        config = PoolingConfig(method=Pooling.NOISY_OR)
        more, most = HeatMap.of(np.full(1000, 0.5)), HeatMap.of(np.append(np.full(1000, 0.5), 1.0))
        assert slide_score(more, config) < slide_score(most, config) < math.inf

    def test_logistic_needs_a_model(self) -> None:
        with pytest.raises(EvaluationError, match="fitted"):
            slide_score(self.heat, PoolingConfig(method=Pooling.LOGISTIC))

    def test_patches_are_grouped_by_slide(self) -> None:
        predictions = make_predictions(60, slides=7)
        grouped = heat_maps_of(predictions)
        assert len(grouped) == 7
        for slide, heat in grouped.items():
            assert (
                heat.probabilities_N.tolist()
                == predictions.probabilities[predictions.slides == slide].tolist()
            )

    def test_patches_without_slide(self) -> None:
        with pytest.raises(EvaluationError, match="without slide"):
            heat_maps_of(make_predictions(10))

    @pytest.mark.parametrize("p", [[], [1.5], [float("nan")], [[0.5]]])
    def test_bad_probabilities(self, p: list[float]) -> None:
        with pytest.raises(EvaluationError):
            HeatMap.of(p)

    def test_cells_have_a_size(self) -> None:
        with pytest.raises(EvaluationError, match="cells"):
            HeatMap.of([0.5], [[0, 0]])


class TestFeatures:
    def test_the_largest_cluster_by_hand(self) -> None:
        # At 0.5 or more: a diagonal of three that touch by corners, and one cell apart.
        cells = [[0, 0], [1, 1], [2, 2], [9, 9], [2, 1]]
        found = features_of(HeatMap.of([0.9, 0.5, 0.6, 0.99, 0.4], cells, 500.0))
        assert found["cluster_mm"] == 1.5
        assert found["log_cluster_mm2"] == pytest.approx(math.log1p(3 * 0.25))
        assert found["share_50"] == 0.8
        assert found["share_90"] == 0.4
        assert found["mean"] == pytest.approx(0.678)
        assert found["max_logit"] == pytest.approx(math.log(99))
        assert tuple(found) == FEATURES + CLUSTER_FEATURES

    def test_nothing_warm(self) -> None:
        found = features_of(HeatMap.of([0.0, 0.1], [[0, 0], [0, 1]], 500.0))
        assert (found["cluster_mm"], found["log_cluster_mm2"]) == (0, 0)

    def test_certainty_stays_finite(self) -> None:
        assert all(math.isfinite(v) for p in (0.0, 1.0) for v in features_of(HeatMap.of([p])).values())


class TestLogistic:
    @pytest.mark.parametrize("placed", [True, False])
    def test_agrees_with_scikit_learn(self, placed: bool) -> None:
        heat, labels = maps(60, placed=placed)
        mine = fit_slide_logistic(heat, labels, Split.VALID)
        x = np.array([[features_of(h)[n] for n in mine.features] for h in heat.values()])
        x = (x - x.mean(axis=0)) / x.std(axis=0)
        y = np.array(list(labels.values()))
        theirs = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x, y)
        assert mine.weights == pytest.approx(theirs.coef_[0], abs=1e-4)
        assert mine.bias == pytest.approx(theirs.intercept_[0], abs=1e-4)
        scores = [mine.score(h) for h in heat.values()]
        assert scores == pytest.approx(theirs.predict_proba(x)[:, 1], abs=1e-4)
        assert mine.features == (FEATURES + CLUSTER_FEATURES if placed else FEATURES)

    def test_slides_that_are_easily_told_apart_do_not_break_it(self) -> None:
        heat = {f"s{i}": HeatMap.of([0.0 if i < 5 else 1.0] * 4) for i in range(10)}
        model = fit_slide_logistic(heat, {s: int(s[1:]) >= 5 for s in heat}, Split.VALID)
        scores = scores_of(heat, PoolingConfig(method=Pooling.LOGISTIC), model)
        assert max(scores[f"s{i}"] for i in range(5)) < 0.5 < min(scores[f"s{i}"] for i in range(5, 10))

    @pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST, Split.UNLABELLED])
    def test_is_fitted_on_validation_only(self, split: Split) -> None:
        with pytest.raises(EvaluationError, match="validation"):
            fit_slide_logistic(*maps(10), split)

    def test_refuses_missing_labels_and_one_class(self) -> None:
        heat, labels = maps(10)
        with pytest.raises(EvaluationError, match="no label"):
            fit_slide_logistic(heat, {}, Split.VALID)
        with pytest.raises(EvaluationError, match="one class"):
            fit_slide_logistic(heat, dict.fromkeys(labels, True), Split.VALID)

    def test_wants_the_features_it_was_fitted_on(self) -> None:
        model = fit_slide_logistic(*maps(10), Split.VALID)
        with pytest.raises(EvaluationError, match="no log_cluster_mm2"):
            model.score(HeatMap.of([0.5]))

    def test_is_a_record(self) -> None:
        model = fit_slide_logistic(*maps(10), Split.VALID)
        assert SlideLogistic.from_json(model.to_json(), "slide_model.json") == model


class TestSlideLevel:
    def test_agrees_with_scikit_learn(self) -> None:
        heat, labels = maps(80, seed=3)
        scores = scores_of(heat, PoolingConfig())
        found = evaluate_slides(scores, labels, FEW, sampled=False)
        assert found.auroc.value == pytest.approx(roc_auc_score(list(labels.values()), list(scores.values())))
        assert found.auroc.low is not None
        assert found.auroc.high is not None
        assert found.auroc.low < found.auroc.value < found.auroc.high
        assert (found.slides, found.positives, found.negatives, found.unlabelled) == (80, 40, 40, 0)
        assert SlideLevelResult.from_json(found.to_json(), "slides.json") == found

    def test_workload_by_hand(self) -> None:
        scores = {"n1": 0.1, "n2": 0.2, "t1": 0.3, "n3": 0.4, "t2": 0.9}
        labels = {slide: slide.startswith("t") for slide in scores}
        found = evaluate_slides(
            scores, labels, SlideLevelConfig(resamples=200, sensitivities=(0.5, 1.0)), sampled=False
        )
        assert [(w.threshold, w.set_aside.value) for w in found.workload] == [
            (0.9, 1.0),
            (0.3, pytest.approx(2 / 3)),
        ]
        assert found.auroc.value == pytest.approx(5 / 6)

    def test_samples_are_called_an_estimate(self) -> None:
        heat, labels = maps(300, seed=1)
        scores = scores_of(heat, PoolingConfig())
        assert evaluate_slides(scores, labels, FEW, sampled=True).cautions == (SAMPLED,)
        assert evaluate_slides(scores, labels, FEW, sampled=False).cautions == ()

    def test_few_tumour_slides_are_said_to_be_few(self) -> None:
        heat, labels = maps(20)
        (caution,) = evaluate_slides(scores_of(heat, PoolingConfig()), labels, FEW, sampled=False).cautions
        assert caution.startswith("Tumour slides: only 10.")

    def test_nodes_of_a_patient_go_together(self) -> None:
        heat, labels = maps(40, seed=2)
        scores = scores_of(heat, PoolingConfig())
        alone = evaluate_slides(scores, labels, FEW, sampled=False).auroc
        patients = {slide: f"p{int(slide[1:]) // 10}" for slide in labels}
        together = evaluate_slides(scores, labels, FEW, sampled=False, patients=patients).auroc
        assert alone.value == together.value
        assert (alone.low, alone.high) != (together.low, together.high)

    def test_one_class_is_not_estimable(self) -> None:
        found = evaluate_slides({"a": 0.5, "b": 0.6}, {"a": True, "b": True}, FEW, sampled=False)
        assert found.auroc.value is None
        assert [w.threshold for w in found.workload] == [None] * 3
        assert any("one class" in caution for caution in found.cautions)

    def test_slides_without_label_are_counted(self) -> None:
        scores = {"a": 0.5, "b": 0.6, "c": 0.1}
        assert evaluate_slides(scores, {"a": False, "b": True}, FEW, sampled=False).unlabelled == 1

    def test_labelled_slides_without_score_are_no_silent_negatives(self) -> None:
        with pytest.raises(EvaluationError, match="1 labelled slides have no score"):
            evaluate_slides({"a": 0.5}, {"a": True, "b": False}, FEW, sampled=False)
        with pytest.raises(EvaluationError, match="no labelled slide"):
            evaluate_slides({}, {}, FEW, sampled=False)

    def test_labels_from_patches(self) -> None:
        predictions = make_predictions(40, slides=4)
        assert labels_from_patches(predictions) == {
            "valid_000": False, "valid_001": True, "valid_002": False, "valid_003": True
        }  # fmt: skip
