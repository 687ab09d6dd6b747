from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from sentinode.cli import run_step
from sentinode.commands import compare as compare_step
from sentinode.commands import evaluate as evaluate_step
from sentinode.commands.compare import CompareCommand
from sentinode.commands.evaluate import EvaluateCommand, evaluate_file
from sentinode.commands.evaluate_keep import refuse_early
from sentinode.commands.predictions_input import read_lesion_sizes, read_predictions
from sentinode.errors import ConfigError, EvaluationError
from sentinode.evaluation import report_words
from sentinode.evaluation.comparison import ComparisonConfig, ComparisonReport
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationConfig, EvaluationReport
from sentinode.evaluation.split_use import TEST_USE_KEY, check_test_use, keep_test_use
from sentinode.storage import open_store

QUICK = EvaluationConfig(resamples=100, prevalence=0.05)


def table(
    folder: Path, name: str = "mine.csv", splits: tuple[str, ...] = ("valid", "test"), noise: int = 0
) -> str:
    rng = np.random.default_rng(3)
    lines = ["id,probability,label,slide,centre,split"]
    for split in splits:
        for i in range(240):
            p = 1 / (1 + np.exp(-rng.normal() - 2 * (i % 2) + 1 - noise * ((i * 7) % 5 - 2)))
            lines.append(f"{split}{i},{p},{i % 2},{split}_{i % 24},c{i % 2},{split}")
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_a_file_of_another_system_gets_the_whole_report(tmp_path: Path) -> None:
    sizes = tmp_path / "sizes.csv"
    sizes.write_text("test_1,Tumor,IDC,Macro\ntest_3,Tumor,IDC,Micro\ntest_2,Normal,None,None\n")
    config = EvaluateCommand(predictions=table(tmp_path), evaluation=QUICK, lesion_sizes=str(sizes))
    report, where = evaluate_file(config, config.predictions or "")
    page = Path(where.removeprefix("file://"))
    assert page.name == "report.html"
    kept = EvaluationReport.from_json((page.parent / "report.json").read_bytes(), where)
    assert kept == report
    assert report.test is not None
    assert report.calibration.kind == "temperature"
    assert report.calibration_at_prevalence is not None
    assert report.test_uses == 1
    assert {s.kind for s in report.test.strata} == {"slide", "centre", "lesion size"}
    assert report.test.workload
    assert report.test.measures["auroc_delong"].method == "DeLong over slides"
    promise = report.operating_points[0].guarantee
    assert promise is not None
    assert (promise.kind, promise.unit, promise.units) == ("none", "slide", 12)
    assert any("No guarantee" in warning for warning in report.warnings)


def test_test_is_measured_once(tmp_path: Path) -> None:
    config = EvaluateCommand(predictions=table(tmp_path), evaluation=QUICK)
    assert evaluate_step.run(config) == 0
    with pytest.raises(ConfigError, match="--again"):
        evaluate_step.run(config)
    report, _ = evaluate_file(config.model_copy(update={"again": True}), config.predictions or "")
    assert report.test_uses == 2
    assert open_store(str(tmp_path)).stat(TEST_USE_KEY) is not None


def test_a_run_is_refused_before_it_is_predicted_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    refuse_early(store, "m" * 64, "d" * 64, again=False)  # nothing was predicted yet
    test = Predictions.from_logits(
        keys=["a", "b"],
        logits=[0.0, 1.0],
        labels=[0, 1],
        split="test",
        model_digest="m" * 64,
        manifest_digest="d" * 64,
    )
    test.write(store, "predictions/test.parquet")
    refuse_early(store, "m" * 64, "d" * 64, again=False)  # predicted, but never measured
    keep_test_use(store, check_test_use(store, test, again=False))
    with pytest.raises(ConfigError, match="--again"):
        refuse_early(store, "m" * 64, "d" * 64, again=False)
    refuse_early(store, "m" * 64, "d" * 64, again=True)
    refuse_early(store, "m" * 64, "e" * 64, again=False)  # another data set
    refuse_early(store, "n" * 64, "d" * 64, again=False)  # another model


def test_another_folder_for_the_report_does_not_reset_the_count(tmp_path: Path) -> None:
    config = EvaluateCommand(predictions=table(tmp_path), evaluation=QUICK, out=str(tmp_path / "a"))
    assert evaluate_step.run(config) == 0
    with pytest.raises(ConfigError, match=r"before \(once"):
        evaluate_step.run(config.model_copy(update={"out": str(tmp_path / "b")}))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("given", "strange"),
    [
        ({"run": "r", "out": "o"}, "out does not go with run"),
        ({"run": "r", "reference": "data"}, "reference does not go with run"),
        ({"predictions": "p.csv", "data": "data"}, "data does not go with predictions"),
        ({"predictions": "p.csv", "point": "high"}, "point does not go with predictions"),
        ({"slides": "s", "reference": "x", "evaluation": QUICK}, "evaluation does not go with slides"),
        ({"slides": "s", "reference": "x", "again": True}, "again does not go with slides"),
    ],
)
def test_a_setting_that_would_go_unheard_is_refused(given: dict[str, object], strange: str) -> None:
    with pytest.raises(ValidationError, match=strange):
        EvaluateCommand.model_validate(given)


def test_the_predictions_of_a_run_are_counted_in_the_run(tmp_path: Path) -> None:
    run = open_store(str(tmp_path))
    mine = read_predictions(table(tmp_path))
    test = mine.select(mine.splits == "test")
    test.write(run, "predictions/test.parquet")
    url = str(tmp_path / "predictions" / "test.parquet")
    config = EvaluateCommand(predictions=url, evaluation=QUICK, again=True)
    assert evaluate_file(config, url)[0].test_uses == 1, "a folder of that name, but of no run"
    run.put("run.json", b"{}")
    keep_test_use(run, check_test_use(run, test, again=False))
    with pytest.raises(ConfigError, match="--again"):
        evaluate_step.run(config.model_copy(update={"again": False}))
    assert evaluate_file(config, url)[0].test_uses == 2
    assert run.stat("report.json") is None, "the report stays with the file"


def test_a_file_beside_a_run_leaves_the_report_of_the_run_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    config = EvaluateCommand(predictions=table(tmp_path / "run"), evaluation=QUICK)
    with pytest.raises(ConfigError, match="holds a run") as found:
        evaluate_step.run(config)
    assert "--out" in found.value.remedy
    with pytest.raises(ConfigError, match="holds a run"):
        evaluate_step.run(config.model_copy(update={"out": str(tmp_path / "run")}))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"run.json", "mine.csv"}
    assert evaluate_step.run(config.model_copy(update={"out": str(tmp_path / "theirs")})) == 0
    assert (tmp_path / "theirs" / "report.json").exists()


def test_a_lone_test_split_is_told_apart_from_validation_and_counted(tmp_path: Path) -> None:
    config = EvaluateCommand(predictions=table(tmp_path, splits=("test",)), evaluation=QUICK)
    report, where = evaluate_file(config, config.predictions or "")
    assert "the test patches had to serve as validation" in report.warnings[0]
    assert "no validation split of its own" in Path(where.removeprefix("file://")).read_text()
    assert report.test_uses == 1
    with pytest.raises(ConfigError, match="--again"):
        evaluate_file(config, config.predictions or "")


def test_card_and_checklists_of_another_system_say_what_is_not_known(tmp_path: Path) -> None:
    assert evaluate_step.run(EvaluateCommand(predictions=table(tmp_path), evaluation=QUICK)) == 0
    card = (tmp_path / "model_card.md").read_text()
    assert "| Architecture | not reported |" in card
    assert "| test | 240 patches |" in card
    lists = (tmp_path / "checklists.md").read_text()
    assert "| 15b | How it was developed: training, validation, test, with sizes | not reported |" in lists
    assert "| 30 | Cross table of index test and reference | not reported |" not in lists


@pytest.mark.parametrize("pooling", ["max", "top-k mean", "noisy-or", "logistic"])
def test_slides_are_pooled_as_asked(tmp_path: Path, pooling: str) -> None:
    settings = QUICK.model_validate(QUICK.model_dump() | {"slide_pooling": {"method": pooling}})
    report, where = evaluate_file(
        EvaluateCommand(predictions=table(tmp_path), evaluation=settings), table(tmp_path)
    )
    assert report.slide_level is not None
    assert report.slide_level.config.pooling.method == pooling
    assert any(caution.startswith("An estimate") for caution in report.slide_level.cautions)
    assert report_words.pooling(settings.slide_pooling) in Path(where.removeprefix("file://")).read_text()


def test_a_logistic_slide_score_needs_slides_to_fit_on(tmp_path: Path) -> None:
    settings = QUICK.model_validate(QUICK.model_dump() | {"slide_pooling": {"method": "logistic"}})
    url = table(tmp_path, splits=("valid",))
    with pytest.raises(EvaluationError, match="one split only"):
        evaluate_file(EvaluateCommand(predictions=url, evaluation=settings), url)
    assert not (tmp_path / "report.json").exists()


def test_one_split_alone_warns_that_it_chose_the_thresholds(tmp_path: Path) -> None:
    config = EvaluateCommand(predictions=table(tmp_path, splits=("valid",)), evaluation=QUICK)
    report, _ = evaluate_file(config, config.predictions or "")
    assert report.test is None
    assert "They flatter the model" in report.warnings[0]


def test_a_submission_meets_a_reference_table(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("id,label\n" + "".join(f"i{i},{i % 2}\n" for i in range(60)))
    scores = "".join(f"i{i},{(i * 13 % 31 + 9 * (i % 2)) / 40}\n" for i in range(60))
    (tmp_path / "submission.csv").write_text("id,label\n" + scores)
    command = EvaluateCommand(
        predictions=str(tmp_path / "submission.csv"),
        reference=str(tmp_path / "r.csv"),
        out=str(tmp_path / "out"),
        evaluation=QUICK,
    )
    assert evaluate_step.run(command) == 0
    assert (tmp_path / "out" / "report.json").exists()


def test_wrong_inputs_are_refused(tmp_path: Path) -> None:
    assert run_step("evaluate", []) == 2
    three = table(tmp_path, splits=("valid", "test", "other"))
    with pytest.raises(ConfigError, match="the splits other, test, valid"):
        evaluate_file(EvaluateCommand(predictions=three), three)
    only = table(tmp_path, "train.csv", splits=("train",))
    with pytest.raises(ConfigError, match="no split to measure"):
        evaluate_file(EvaluateCommand(predictions=only), only)
    for bad in (b"a,b,c\n", b"", b"\xff\xfe\xa6"):
        (tmp_path / "sizes.csv").write_bytes(bad)
        with pytest.raises(EvaluationError, match="lesion sizes"):
            read_lesion_sizes(str(tmp_path / "sizes.csv"))
    with pytest.raises(ConfigError, match=r"predictions in notes\.txt"):
        read_predictions(str(tmp_path / "notes.txt"))
    with pytest.raises(ConfigError, match="no reference labels at"):
        read_predictions(only, str(tmp_path / "nowhere"))
    with (tmp_path / "huge.csv").open("wb") as file:
        file.truncate(3 * 2**30)  # a sparse file: it takes no room
    with pytest.raises(ConfigError, match="has 3,072 MiB"):
        read_predictions(str(tmp_path / "huge.csv"))


def test_two_files_are_compared(tmp_path: Path) -> None:
    a, b = table(tmp_path, "a.csv"), table(tmp_path, "b.csv", noise=1)
    out = tmp_path / "comparison.json"
    config = CompareCommand(a=a, b=b, comparison=ComparisonConfig(resamples=100), out=str(out))
    assert compare_step.run(config) == 0
    report = ComparisonReport.from_json(out.read_bytes(), str(out))
    assert report.patches == 240
    assert (report.differences["auroc"].difference or 0) > 0
    page = (tmp_path / "comparison.html").read_text()
    assert "A is a.csv, B is b.csv" in page
    assert "http" not in page.replace("http-equiv", "")
    assert f"Verdicts differ on {len(report.disagreements)} patches" in page
    assert report.disagreements[0].key in page
    lines = compare_step.describe(report)
    assert any(report.disagreements[0].key in line for line in lines)
    assert any(line.startswith("auroc_delong:") and "DeLong over slides" in line for line in lines)


def test_what_cannot_be_compared_is_told(tmp_path: Path) -> None:
    a = table(tmp_path, "a.csv")
    with pytest.raises(ConfigError, match="holds no evaluation of test") as found:
        compare_step.run(CompareCommand(a=a, b=str(tmp_path / "nowhere")))
    assert "sentinode evaluate --run" in found.value.remedy
    with pytest.raises(ConfigError, match="has no patch in other"):
        compare_step.run(CompareCommand(a=a, b=a, split="other"))
    with pytest.raises(ValidationError, match=r"folder/comparison\.json"):
        CompareCommand(a=a, b=a, out=str(tmp_path / "folder"))


def test_runs_are_compared_at_their_own_thresholds(tmp_path: Path) -> None:
    thresholds = []
    for name, noise in (("a", 0), ("b", 1)):
        folder = tmp_path / name
        folder.mkdir()
        url = table(folder, noise=noise)
        report, _ = evaluate_file(EvaluateCommand(predictions=url, evaluation=QUICK), url)
        predictions: Predictions = read_predictions(url)
        store = open_store(str(folder))
        predictions.select(predictions.splits == "test").write(store, "predictions/test.parquet")
        thresholds.append(report.verdict_point.threshold)
    out = tmp_path / "comparison.json"
    config = CompareCommand(
        a=str(tmp_path / "a"), b=str(tmp_path / "b"), comparison=ComparisonConfig(resamples=100), out=str(out)
    )
    assert compare_step.run(config) == 0
    found = ComparisonReport.from_json(out.read_bytes(), str(out)).mcnemar
    assert [found.threshold_a, found.threshold_b] == thresholds
