"""Synthetic slides as files: pyramids, ASAP XML and label files in the layout of Camelyon16 or Camelyon17."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from sentinode.cohort.synthetic.config import FIRST_NUMBER, SlideContents, SynthesizeConfig
from sentinode.cohort.synthetic.draw import SlidePainter, generator
from sentinode.cohort.synthetic.plan import SlidePlan, draw_plan
from sentinode.evaluation.patient_stage import stages_of
from sentinode.schema import NodeClass
from sentinode.slides.annotations import Region
from sentinode.slides.asap_xml import write_asap_xml
from sentinode.slides.lesions import lesions_of, node_class_of
from sentinode.slides.pyramid import write_pyramid
from sentinode.storage import open_store
from sentinode.storage.files import temporary_beside, typed_os_errors
from sentinode.storage.urls import parse_url

log = logging.getLogger(__name__)

_PLAN_STREAM: Final = 10
_PATIENTS_PER_CENTRE: Final = 20
_MACRO: Final = {"macro": 1, "itc": 1}
_MICRO: Final = {"micro": 2, "itc": 1}
_ITC: Final = {"itc": 2}
_NONE: Final[dict[str, int]] = {}
_STAGES: Final[tuple[tuple[dict[str, int], ...], ...]] = (
    (_MICRO, _NONE, _NONE, _ITC, _NONE),
    (_ITC, _NONE, _NONE, _NONE, _NONE),
    (_NONE, _NONE, _NONE, _NONE, _NONE),
    (_MACRO, _MICRO, _ITC, _NONE, _NONE),
    (_MACRO, _MICRO, _MACRO, _MICRO, _NONE),
)
"""Nodes of a patient of stage pN1mi, pN0(i+), pN0, pN1 and pN2."""


@dataclass(frozen=True, slots=True)
class PlannedSlide:
    """One slide to be made; paths are relative to the output folder."""

    name: str
    slide: str
    annotation: str
    contents: SlideContents


def write_slide(contents: SlideContents, path: Path) -> SlidePlan:
    """Make one slide at ``path``; returns where things lie on it. Raises ConfigError where a metastasis finds no
    room, StoreError where the disk fails."""
    plan = draw_plan(contents, generator(contents.seed, _PLAN_STREAM))
    painter = SlidePainter(contents, plan)
    write_pyramid(path, painter.bands(), (contents.width_px, contents.height_px), contents.um_px)
    return plan


def synthesize(config: SynthesizeConfig, progress: Callable[[str, int, int], None]) -> dict[str, NodeClass]:
    """Make all slides of ``config``; returns the class of each by name, as the label files have it.

    Raises ConfigError where a metastasis finds no room, StoreError where disk or store fails.
    """
    planned = planned_slides(config)
    classes: dict[str, NodeClass] = {}
    place = parse_url(config.out)
    progress("slides", 0, len(planned))
    with tempfile.TemporaryDirectory(prefix="sentinode-slides-") as temporary:
        folder = place if isinstance(place, Path) else Path(temporary)
        for done, slide in enumerate(planned, 1):
            path = folder / slide.slide
            path.parent.mkdir(parents=True, exist_ok=True)
            plan = write_slide(slide.contents, path)
            classes[slide.name] = node_class_of(lesions_of(plan.tumour, slide.contents.um_px))
            if plan.lesions:
                group = "metastases" if config.layout == "camelyon17" else "_0"
                hole = "normal" if config.layout == "camelyon17" else "_2"
                regions = [Region(lesion, group) for lesion in plan.lesions]
                _put(folder / slide.annotation, write_asap_xml(regions, hole))
            if folder is not place:
                _send(folder, config.out)
            progress("slides", done, len(planned))
        for name, text in _label_files(config, classes):
            _put(folder / name, text.encode())
        if folder is not place:
            _send(folder, config.out)
    return classes


def _send(folder: Path, url: str) -> None:
    """Move all files below ``folder`` to the store."""
    store = open_store(url)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        store.upload(path, path.relative_to(folder).as_posix())
        path.unlink()


def planned_slides(config: SynthesizeConfig) -> list[PlannedSlide]:
    """The slides of ``config`` with their names, folders and contents."""
    rng = generator(config.seed, _PLAN_STREAM)
    drawn = _camelyon16(config) if config.layout == "camelyon16" else _camelyon17(config, rng)
    planned = []
    for number, (name, slide, annotation, centre, lesions) in enumerate(drawn):
        pen, blur = (bool(rng.random() < share) for share in (config.pen_share, config.blur_share))
        contents = SlideContents(
            width_px=config.width_px,
            height_px=config.height_px,
            um_px=config.um_px,
            pen=pen,
            blur=blur,
            centre=centre,
            seed=(config.seed * 100_003 + number) % 2**32,
            **lesions,
        )
        planned.append(PlannedSlide(name, slide, annotation, contents))
    return planned


_Drawn = Iterator[tuple[str, str, str, int, dict[str, int]]]


def _camelyon16(config: SynthesizeConfig) -> _Drawn:
    for place in range(config.training):
        kind, number = ("tumor", "normal")[place % 2], FIRST_NUMBER + place // 2
        name = f"{kind}_{number}"
        lesions = (_MACRO, _MICRO)[place // 2 % 2] if kind == "tumor" else _NONE
        annotation = f"training/lesion_annotations/{name}.xml"
        yield name, f"training/{kind}/{name}.tif", annotation, place // 2 % config.centres, lesions
    for place in range(config.testing):
        name = f"test_{FIRST_NUMBER + place}"
        lesions = (_MACRO, _NONE, _MICRO, _NONE)[place % 4]
        annotation = f"testing/lesion_annotations/{name}.xml"
        yield name, f"testing/images/{name}.tif", annotation, place // 2 % config.centres, lesions


def _camelyon17(config: SynthesizeConfig, rng: np.random.Generator) -> _Drawn:
    for place in range(config.patients):
        centre = place % config.centres
        patient = f"patient_{_PATIENTS_PER_CENTRE * centre + place // config.centres:03d}"
        nodes = _STAGES[place % len(_STAGES)]
        for node, which in enumerate(rng.permutation(len(nodes)).tolist()):
            name = f"{patient}_node_{node}"
            yield name, f"images/{name}.tif", f"annotations/{name}.xml", centre, nodes[which]


def _label_files(config: SynthesizeConfig, classes: dict[str, NodeClass]) -> Sequence[tuple[str, str]]:
    if config.layout == "camelyon17":
        rows = [f"{patient}.zip,{stage}" for patient, stage in stages_of(classes).items()]
        rows += [f"{name}.tif,{found}" for name, found in classes.items()]
        return [("stage_labels.csv", "\n".join(["patient,stage", *sorted(rows), ""]))]
    tests = {name: found for name, found in classes.items() if name.startswith("test_")}
    rows = [
        f"{name.capitalize()},Normal,None,None"
        if found is NodeClass.NEGATIVE
        else f"{name.capitalize()},Tumor,IDC,{found.capitalize()}"
        for name, found in tests.items()
    ]
    return [("testing/reference.csv", "\n".join([*rows, ""]))] if tests else []


def _put(path: Path, data: bytes) -> None:
    with typed_os_errors(str(path)), temporary_beside(path) as part:
        part.write_bytes(data)
        part.replace(path)
