"""Scored slides beside the pathologists' reference: slide AUROC, screening, lesions (FROC), patient stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from sentinode.config import Frozen, Record
from sentinode.data.sources.base import slide_columns
from sentinode.errors import EvaluationError
from sentinode.evaluation.detections import Detections
from sentinode.evaluation.froc import FrocConfig, FrocResult, FrocSlide, froc
from sentinode.evaluation.intervals import clopper_pearson
from sentinode.evaluation.patient_stage import NODE_NAME, NODES, StageAgreement, stage_agreement, stages_of
from sentinode.evaluation.resampled import Resampled
from sentinode.evaluation.slide_level import SlideLevelConfig, SlideLevelResult, evaluate_slides
from sentinode.evaluation.slide_record import SlideScore
from sentinode.evaluation.slide_reference import ItcPolicy, Stage, tumour_labels
from sentinode.evaluation.worklist import ScreeningRule, may_be_set_aside
from sentinode.schema import RESEARCH_USE_ONLY, NodeClass
from sentinode.slides.lesions import Lesion

FEW_LESIONS = 30
"""Below it a share of lesions says little: of 30, an exact 95 % interval is up to 37 points wide."""
NODE_CLASSES = tuple(NodeClass)


class ScoredSlidesConfig(Frozen):
    """How scored slides are measured."""

    itc: ItcPolicy = "negative"
    """What a slide with isolated tumour cells only counts as."""
    slides: SlideLevelConfig = SlideLevelConfig()
    """Slide AUROC and reading saved."""
    froc: FrocConfig = FrocConfig()
    """Lesions."""


class Counted(Frozen):
    """A share with its exact interval (Clopper and Pearson 1934); no share of nothing."""

    count: int
    of: int
    share: Resampled

    @classmethod
    def out_of(cls, count: int, of: int, level: float) -> Counted:
        """``count`` of ``of``."""
        low, high = clopper_pearson(count, of, level) if of else (None, None)
        return cls(count=count, of=of, share=Resampled(value=count / of if of else None, low=low, high=high))


class ScreeningResult(Frozen):
    """What the screening point does on these slides; its threshold was chosen elsewhere."""

    rule: ScreeningRule
    kept: Counted
    """Tumour slides that are not set aside: the sensitivity."""
    set_aside: Counted
    """Negative slides that are set aside: reading saved."""
    missed: tuple[str, ...]
    """Tumour slides that are set aside."""


class SizeRow(Frozen):
    """Lesions of one size class that the FROC counts or ignores."""

    size: NodeClass
    found: Counted
    """With a detection of any confidence in them."""


class ScoredSlidesReport(Record):
    """All figures of scored slides."""

    config: ScoredSlidesConfig
    models: tuple[str, ...]
    """Digests of the bundles."""
    slides: SlideLevelResult
    classes: tuple[tuple[int, ...], ...]
    """Slides by reference class (rows) and found class (columns), both in the order of ``class_names``."""
    class_names: tuple[NodeClass, ...] = NODE_CLASSES
    screening: ScreeningResult | None
    froc: FrocResult | None
    sizes: tuple[SizeRow, ...]
    stages: StageAgreement | None
    failed: tuple[str, ...]
    """Slides that were not scored; no figure includes them."""
    summary: str
    cautions: tuple[str, ...]
    notice: str = Field(default=RESEARCH_USE_ONLY)


def evaluate_scored(
    scores: Sequence[SlideScore],
    highest: Mapping[str, float],
    detections: Mapping[str, Detections],
    classes: Mapping[str, NodeClass],
    lesions: Mapping[str, Sequence[Lesion]],
    stages: Mapping[str, Stage],
    rule: ScreeningRule | None,
    config: ScoredSlidesConfig | None = None,
    notes: Sequence[str] = (),
) -> ScoredSlidesReport:
    """Measure. ``highest`` is the highest probability of a cell and ``detections`` the points, by scored slide;
    ``classes`` and ``lesions`` are the reference by slide, ``stages`` by patient.

    Raises EvaluationError where no scored slide has a reference.
    """
    config = config or ScoredSlidesConfig()
    done = {score.slide: score for score in scores if score.status == "done" and score.score is not None}
    labels = {s: label for s, label in tumour_labels(classes, config.itc).items() if s in done}
    if not labels:
        raise EvaluationError("no scored slide with a reference", "the pathologists' label of scored slides")
    _, _, patients = slide_columns(list(done))
    by_patient = {name: patient for i, name in enumerate(done) if (patient := patients[i]) is not None}
    slides = evaluate_slides(
        {name: float(score.score or 0.0) for name, score in done.items()},
        labels,
        config.slides,
        sampled=False,
        patients=by_patient,
    )
    lesion_slides = [
        FrocSlide(name, tuple(lesions[name]), detections[name])
        for name in done
        if name in lesions and name in detections
    ]
    countable = any(slide.lesions for slide in lesion_slides)
    found = _froc(lesion_slides, config.froc) if countable else None
    screening = _screening(done, highest, labels, rule, config.slides.level) if rule else None
    failed = tuple(score.slide for score in scores if score.slide not in done)
    cautions = [*slides.cautions, *notes, *_cautions(failed, screening, found)]
    return ScoredSlidesReport(
        config=config,
        models=tuple(sorted({score.bundle for score in done.values()})),
        slides=slides,
        classes=_class_table(done, classes),
        screening=screening,
        froc=found,
        sizes=_sizes(found, config.slides.level),
        stages=_stages(done, stages, config.slides),
        failed=failed,
        summary=_summary(slides, screening, found),
        cautions=tuple(cautions),
    )


def _froc(slides: Sequence[FrocSlide], config: FrocConfig) -> FrocResult | None:
    try:
        return froc(slides, config)
    except EvaluationError:  # only isolated tumour cells, which its rules do not seek
        return None


def _screening(
    done: Mapping[str, SlideScore],
    highest: Mapping[str, float],
    labels: Mapping[str, bool],
    rule: ScreeningRule,
    level: float,
) -> ScreeningResult:
    aside = {name for name in labels if may_be_set_aside(done[name], highest.get(name), rule)}
    tumour = {name for name, label in labels.items() if label}
    negative = labels.keys() - tumour
    return ScreeningResult(
        rule=rule,
        kept=Counted.out_of(len(tumour - aside), len(tumour), level),
        set_aside=Counted.out_of(len(negative & aside), len(negative), level),
        missed=tuple(sorted(tumour & aside)),
    )


def _class_table(
    done: Mapping[str, SlideScore], classes: Mapping[str, NodeClass]
) -> tuple[tuple[int, ...], ...]:
    table = np.zeros((len(NODE_CLASSES), len(NODE_CLASSES)), int)
    for name, score in done.items():
        if name in classes and score.node_class is not None:
            table[NODE_CLASSES.index(classes[name]), NODE_CLASSES.index(score.node_class)] += 1
    return tuple(tuple(row) for row in table.tolist())


def _sizes(found: FrocResult | None, level: float) -> tuple[SizeRow, ...]:
    rows = []
    for size in reversed(NODE_CLASSES):
        outcomes = [o for o in found.outcomes if o.size is size] if found else []
        if outcomes:
            hits = sum(o.confidence is not None for o in outcomes)
            rows.append(SizeRow(size=size, found=Counted.out_of(hits, len(outcomes), level)))
    return tuple(rows)


def _stages(
    done: Mapping[str, SlideScore], stages: Mapping[str, Stage], config: SlideLevelConfig
) -> StageAgreement | None:
    """Of patients with five scored nodes and a stage; None without any."""
    nodes: dict[str, dict[str, NodeClass]] = {}
    for name, score in done.items():
        match = NODE_NAME.fullmatch(name)
        if match and score.node_class is not None and match["patient"] in stages:
            nodes.setdefault(match["patient"], {})[name] = score.node_class
    whole = {name: c for found in nodes.values() if len(found) == NODES for name, c in found.items()}
    if not whole:
        return None
    found = stages_of(whole)
    return stage_agreement({patient: stages[patient] for patient in found}, found, config)


def _cautions(
    failed: Sequence[str], screening: ScreeningResult | None, found: FrocResult | None
) -> list[str]:
    cautions = []
    if failed:
        cautions.append(
            f"Not scored, and in no figure: {len(failed)} of the slides ({', '.join(failed[:5])}). In use they "
            "are read."
        )
    if screening and screening.missed:
        cautions.append(
            f"The {screening.rule.name} point sets tumour slides aside: {', '.join(screening.missed[:10])}."
        )
    if screening:
        cautions.append(screening.rule.promise)
    if found and found.lesions < FEW_LESIONS:
        cautions.append(
            f"Lesions to be found: only {found.lesions}. FROC's intervals are wide, and missing where all are found."
        )
    if found and found.left_out:
        cautions.append(f"Left out of FROC by its rules: {', '.join(found.left_out)}.")
    return cautions


def _summary(slides: SlideLevelResult, screening: ScreeningResult | None, found: FrocResult | None) -> str:
    parts = [
        f"Slide AUROC {slides.auroc} on {slides.positives} tumour and {slides.negatives} negative slides"
    ]
    if screening and screening.set_aside.of:
        parts.append(
            f"the {screening.rule.name} point sets {screening.set_aside.count} of {screening.set_aside.of} negative "
            f"slides aside and keeps {screening.kept.count} of {screening.kept.of} tumour slides"
        )
    if found:
        parts.append(f"FROC score {found.score} over {found.lesions} lesions")
    return "; ".join(parts) + "."
