"""The slide model: its promise on new slides, halves that do not meet, JSON, and what the commands do with it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from evaluation_parts import warm_slides

from sentinode.commands.evaluate_slides import measure_slides
from sentinode.commands.screen import ScreenCommand
from sentinode.commands.screen import run as screen
from sentinode.commands.worklist import WORKLIST_CSV, WorklistCommand
from sentinode.commands.worklist import run as worklist
from sentinode.distributed.scoring_config import PooledSettings, ScoringSettings
from sentinode.errors import ConfigError, EvaluationError, ManifestError
from sentinode.evaluation.cells_table import cells_table
from sentinode.evaluation.heat_map import HeatMap
from sentinode.evaluation.scored_slides import ScoredSlidesConfig
from sentinode.evaluation.slide_level import SlideLevelConfig
from sentinode.evaluation.slide_model import ScreeningConfig, SlideModel, choose_screening, fit_slide_model
from sentinode.evaluation.slide_pooling import Pooling, PoolingConfig
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, file_key, slides_table
from sentinode.slides.listing import SlideFile
from sentinode.storage import Store, open_store

BUNDLE = "ab" * 32
LOGISTIC = ScreeningConfig(pooling=PoolingConfig(method=Pooling.LOGISTIC), sensitivity=0.9)


def cohort(count: int, seed: int = 0) -> tuple[dict[str, HeatMap], dict[str, bool]]:
    return warm_slides(count, seed, 31.0)


def test_the_sensitivity_over_new_slides_is_kept_on_average_and_is_no_more_careful_than_it_need_be() -> None:
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(400):
        scores = {f"s{i}": float(v) for i, v in enumerate(rng.normal(1, 1, 49))}
        chosen = choose_screening(
            scores, dict.fromkeys(scores, True), {s: s for s in scores}, ScreeningConfig(sensitivity=0.9)
        )
        assert chosen.guarantee.kind == "expectation"
        assert chosen.guarantee.unit == "slide"
        kept.append((rng.normal(1, 1, 2000) >= chosen.threshold).mean())
    assert 0.9 <= np.mean(kept) < 0.93


def test_with_confidence_few_draws_fall_short() -> None:
    rng = np.random.default_rng(1)
    config = ScreeningConfig(sensitivity=0.9, guarantee="confidence")
    short = 0
    for _ in range(300):
        scores = {f"s{i}": float(v) for i, v in enumerate(rng.uniform(size=60))}
        chosen = choose_screening(scores, dict.fromkeys(scores, True), {s: s for s in scores}, config)
        short += 1 - chosen.threshold < 0.9
    assert short / 300 <= 0.05 + 0.03


def test_too_few_tumour_slides_promise_nothing_and_say_how_many_would() -> None:
    scores = {"a": 0.9, "b": 0.5, "c": 0.2}
    chosen = choose_screening(
        scores, {"a": True, "b": True, "c": False}, {s: s for s in scores}, ScreeningConfig()
    )
    assert chosen.guarantee.kind == "none"
    assert "the tumour slides that chose the threshold number 2, and at least 19 are needed" in chosen.promise
    assert chosen.threshold == pytest.approx(0.35)
    assert (chosen.kept, chosen.tumour, chosen.set_aside, chosen.negative) == (2, 2, 1, 1)


def test_slides_of_one_patient_are_one_unit() -> None:
    scores = {f"p{i}_{k}": 0.5 + i / 100 for i in range(30) for k in range(2)}
    units = {slide: slide.split("_")[0] for slide in scores}
    config = ScreeningConfig(sensitivity=0.9)
    chosen = choose_screening(scores, dict.fromkeys(scores, True), units, config)
    assert chosen.guarantee.units == 30
    assert "patient's tumour slides" in chosen.promise


def test_the_threshold_is_chosen_on_slides_that_the_logistic_model_has_not_seen() -> None:
    heat, labels = cohort(200)
    patients = {slide: f"patient {int(slide[1:]) // 4}" for slide in heat}
    model = fit_slide_model(heat, labels, patients, BUNDLE, LOGISTIC)
    assert model.logistic is not None
    assert model.logistic.slides == len(model.fitted_on) == len(model.chosen_on) == 100
    assert not {patients[s] for s in model.fitted_on} & {patients[s] for s in model.chosen_on}
    new, truth = cohort(2000, seed=7)
    scores = {slide: model.score(heat_map) for slide, heat_map in new.items()}
    kept = np.mean([scores[s] >= model.screening.threshold for s in scores if truth[s]])
    aside = np.mean([scores[s] < model.screening.threshold for s in scores if not truth[s]])
    assert kept > 0.85
    assert aside > 3 * (1 - kept), "it tells the two apart"
    again = fit_slide_model(heat, labels, patients, BUNDLE, LOGISTIC)
    assert again.to_json() == model.to_json()


def test_it_is_json_that_is_checked_when_it_is_read() -> None:
    model = fit_slide_model(*cohort(40), {}, BUNDLE, LOGISTIC)
    assert SlideModel.from_json(model.to_json(), "slide_model.json") == model
    with pytest.raises(ManifestError, match="pooling by logistic"):
        SlideModel.from_json(model.model_copy(update={"logistic": None}).to_json(), "slide_model.json")


def test_slides_without_tumour_or_label_are_refused() -> None:
    heat, labels = cohort(10)
    with pytest.raises(EvaluationError, match="no tumour slide among the 10"):
        fit_slide_model(heat, dict.fromkeys(labels, False), {}, BUNDLE, ScreeningConfig())
    with pytest.raises(EvaluationError, match="has no label"):
        fit_slide_model(heat, {}, {}, BUNDLE, ScreeningConfig())


def test_scoring_refuses_what_cannot_be_pooled_before_it_begins() -> None:
    model = fit_slide_model(*cohort(40), {}, BUNDLE, LOGISTIC)
    settings = PooledSettings(slide_model=model)
    settings.check_pooling(BUNDLE, 31.1)
    with pytest.raises(ConfigError, match="bundle abababababab, not cdcd"):
        settings.check_pooling("cd" * 32, 31.1)
    with pytest.raises(ConfigError, match="cells of 31 um"):
        settings.check_pooling(BUNDLE, 15.5)
    with pytest.raises(ConfigError, match="without a fitted slide model"):
        ScoringSettings(pooling=LOGISTIC.pooling).check_pooling(BUNDLE, 31.1)
    slide = SlideFile(name="a", url="a.tif", version="1")
    assert settings.key(slide, BUNDLE) != ScoringSettings().key(slide, BUNDLE)


class TestCommands:
    def _scored(self, store: Store, heat: dict[str, HeatMap]) -> None:
        scores = [
            SlideScore(
                slide=name, url=f"{name}.tif", status="done", key="k", bundle=BUNDLE, score=0.5, um_px=0.25,
                pooling="top-k mean",
            )
            for name in heat
        ]  # fmt: skip
        store.put(SLIDES_NAME, slides_table(scores))
        for name, heat_map in heat.items():
            grid = heat_map.probabilities_N.reshape(8, 8).astype(np.float32)
            store.put(file_key(name, "cells.parquet"), cells_table(grid, 31.0, 124.0))
            store.put(f"detections/{name}.csv", b"confidence,x,y\n")

    def _reference(self, folder: Path, labels: dict[str, bool]) -> None:
        folder.mkdir()
        lines = [f"{n},{'Tumor,IDC,Macro' if t else 'Normal,None,None'}" for n, t in labels.items()]
        (folder / "reference.csv").write_text("\n".join(lines) + "\n")

    def test_fitted_used_by_the_worklist_and_measured_on_other_slides(self, tmp_path: Path) -> None:
        heat, labels = cohort(120)
        valid = {f"valid_{n}": h for n, h in list(heat.items())[:80]}
        new = {f"new_{n}": h for n, h in list(heat.items())[80:]}
        self._scored(open_store(str(tmp_path / "valid")), valid)
        self._scored(open_store(str(tmp_path / "new")), valid | new)
        self._reference(
            tmp_path / "labels",
            {f"{part}_{n}": label for n, label in labels.items() for part in ("valid", "new")},
        )
        command = ScreenCommand(
            scores=str(tmp_path / "valid"), reference=str(tmp_path / "labels"), **dict(LOGISTIC)
        )
        assert screen(command) == 0
        model_url = str(tmp_path / "valid" / "slide_model.json")
        model = SlideModel.from_json(Path(model_url).read_bytes(), model_url)

        assert worklist(WorklistCommand(scores=str(tmp_path / "new"), slide_model=model_url)) == 0
        with (tmp_path / "new" / WORKLIST_CSV).open() as file:
            rows = {row["slide"]: row for row in csv.DictReader(file)}
        one = rows["new_s0081"]
        assert float(one["score"]) == pytest.approx(model.score(new["new_s0081"]), abs=1e-6)
        assert (one["group"] == "read") == (float(one["score"]) >= model.screening.threshold)
        assert "its score" in one["why"]
        text = (tmp_path / "new" / "worklist.html").read_text()
        assert "new tumour slides are not set aside" in text
        assert "chosen on patches" not in text

        few = ScoredSlidesConfig(slides=SlideLevelConfig(resamples=100))
        report, _ = measure_slides(
            str(tmp_path / "new"), str(tmp_path / "labels"), None, "screening", few, slide_model=model_url
        )
        assert report.slides.slides == 40
        assert report.screening is not None
        assert report.screening.kept.of == 20
        assert any("80 slides fitted the slide model: left out" in caution for caution in report.cautions)
        with pytest.raises(EvaluationError, match="all 80 scored slides fitted"):
            measure_slides(
                str(tmp_path / "valid"),
                str(tmp_path / "labels"),
                None,
                "screening",
                few,
                slide_model=model_url,
            )

    @pytest.mark.parametrize("name", ["test_001", "Test_001", "camelyon16_test_001", "test_of_ours"])
    def test_test_slides_choose_nothing(self, tmp_path: Path, name: str) -> None:
        heat, _ = cohort(1)
        self._scored(open_store(str(tmp_path)), {name: heat["s0000"]})
        with pytest.raises(EvaluationError, match="test slides by their name"):
            screen(ScreenCommand(scores=str(tmp_path), reference=str(tmp_path)))
