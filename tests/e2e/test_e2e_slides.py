"""The whole way of slides, with the real parts: made, sampled, trained on, scored, listed, measured."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest

from sentinode.cohort.synthetic.config import SlideContents, SynthesizeConfig
from sentinode.cohort.synthetic.write import synthesize, write_slide
from sentinode.commands.evaluate import EvaluateCommand
from sentinode.commands.evaluate import run as evaluate
from sentinode.commands.evaluate_slides import SLIDES_JSON
from sentinode.commands.promote import PromoteCommand
from sentinode.commands.promote import run as promote
from sentinode.commands.worklist import WORKLIST_CSV, WorklistCommand
from sentinode.commands.worklist import run as worklist
from sentinode.data.augment import AugmentConfig
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.ingest import ingest
from sentinode.distributed.scaling import ScalingSettings
from sentinode.distributed.scoring import score_slides
from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.distributed.trainer import train
from sentinode.evaluation.records import EvaluationConfig
from sentinode.evaluation.scored_slides import ScoredSlidesReport
from sentinode.experiment import Experiment
from sentinode.models.families import ValidCnnConfig, usual_preprocess
from sentinode.schema import NodeClass
from sentinode.slides.annotations import Region
from sentinode.slides.asap_xml import write_asap_xml
from sentinode.slides.listing import list_slides
from sentinode.training.config import Recipe, TrainConfig

UM_PX = 0.972
MODEL = ValidCnnConfig(equivariant=False, widths=(12, 16, 24), blocks=(1, 0, 0), tail_width=24, dropout=0.0)
SETTINGS = TrainConfig(
    epochs=12, batch_size=32, optimizer="adamw", lr=3e-3, schedule="cosine", warmup_epochs=0.5
)


def make_slides(folder: Path) -> None:
    """Four tumour slides and two normal ones to learn from, and Camelyon16's test folder: one macro, one normal."""
    for number in range(6):
        tumour = number < 4
        contents = SlideContents(
            width_px=1300, height_px=1300, um_px=UM_PX, micro=2 * tumour, centre=number % 2, seed=70 + number
        )
        name = f"{'tumor' if tumour else 'normal'}_{501 + number}"
        plan = write_slide(contents, folder / f"{name}.tif")
        if tumour:
            regions = [Region(lesion, "_0") for lesion in plan.lesions]
            (folder / f"{name}.xml").write_bytes(write_asap_xml(regions))
    config = SynthesizeConfig(
        out=str(folder), training=0, testing=2, width_px=3100, height_px=3100, um_px=UM_PX, seed=7
    )
    synthesize(config, quiet)


def quiet(step: str, done: float, total: int, note: str = "") -> None:
    """Progress that nobody watches."""


@pytest.mark.timeout(900)
def test_every_macro_metastasis_of_synthetic_slides_is_found_and_froc_is_computed(tmp_path: Path) -> None:
    slides, run, registry, scores = (str(tmp_path / name) for name in ("slides", "run", "registry", "scores"))
    began = time.perf_counter()

    def took(step: str) -> None:
        print(f"{step}: {time.perf_counter() - began:.0f} s since the start")

    Path(slides).mkdir()
    make_slides(Path(slides))
    took("slides")
    with ray_session("local", num_cpus=2):
        manifest = ingest(
            IngestConfig(
                source=slides, out=str(tmp_path / "data"), kind="slides", dataset="slides", valid_fraction=0.3,
                slides=SamplingConfig(patches_per_slide=300),
            ),
            quiet,
        )  # fmt: skip
        assert {split.value for split in manifest.splits} == {"train", "valid", "test"}
        took("ingest")
        recipe = Recipe(
            model=MODEL, preprocess=usual_preprocess(MODEL), train=SETTINGS,
            augment=AugmentConfig(brightness=0.05, contrast=0.1, hed=0.05),
        )  # fmt: skip
        train(Experiment.of(recipe, str(tmp_path / "data"), run), ScalingSettings(num_workers=1), Silent())
        took("train")
        assert (
            evaluate(EvaluateCommand(run=run, evaluation=EvaluationConfig(screening_sensitivity=0.95))) == 0
        )
        assert promote(PromoteCommand(run=run, registry=registry, force="a test")) == 0
        took("promote")
        score_slides(
            list_slides(f"{slides}/testing/images"),
            registry,
            "candidate",
            scores,
            ScoringSettings(),
            Compute(),
            quiet,
        )
        took("score")
    assert worklist(WorklistCommand(scores=scores, registry=registry)) == 0
    assert evaluate(EvaluateCommand(slides=scores, reference=slides, registry=registry)) == 0
    took("evaluate")

    with Path(scores, WORKLIST_CSV).open() as file:
        first, second = csv.DictReader(file)
    assert (first["slide"], first["group"]) == ("test_501", "read")
    assert second["slide"] == "test_502"
    report = ScoredSlidesReport.from_json(Path(scores, SLIDES_JSON).read_bytes(), SLIDES_JSON)
    assert report.slides.auroc.value == 1.0
    assert Path(scores, "slides_report.html").read_text().count("<svg") == 2
    assert report.screening is not None
    assert report.screening.kept.count == report.screening.kept.of == 1
    assert report.froc is not None
    macro = next(row for row in report.sizes if row.size is NodeClass.MACRO)
    assert macro.found.count == macro.found.of == 1, "every macro-metastasis is found"
    assert [point.fp_per_slide for point in report.froc.points] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0]
    assert report.froc.score.value is not None
    assert report.froc.points[-1].sensitivity.value == 1.0


class Silent:
    """Told of a training by nobody's wish."""

    def epoch(self, record: object) -> None:
        """Nothing."""

    def progress(self, record: object) -> None:
        """Nothing."""
