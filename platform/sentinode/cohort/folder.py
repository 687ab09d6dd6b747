"""A folder or bucket of whole slides: which slides there are, how they are labelled, what may be taken from them.

Slides, annotations and label files are found by name wherever they lie, which fits Camelyon16 and Camelyon17 as they
are distributed, mirrors of them, and folders of one's own:

    normal_001.tif, tumor_001.tif + tumor_001.xml             Camelyon16, training
    test_001.tif, perhaps test_001.xml, and reference.csv     Camelyon16, test: never used for training
    patient_000_node_0.tif, perhaps its .xml, and stage_labels.csv
    any_name.svs + any_name.xml or any_name.geojson           annotated slides of one's own
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final, TypeVar

from sentinode.config import Frozen
from sentinode.data.sources.known import (
    Defect,
    camelyon_name,
    is_official_test,
    negatives_usable,
    slide_defect,
)
from sentinode.errors import SourceError, first_of
from sentinode.evaluation.slide_reference import read_camelyon16_reference, read_stage_labels
from sentinode.schema import NodeClass, Split
from sentinode.slides.listing import SUFFIXES, SlideObject, slides_among
from sentinode.storage import ObjectInfo, Store

ANNOTATION_SUFFIXES: Final = (".xml", ".geojson")
REFERENCE: Final = "reference.csv"
STAGE_LABELS: Final = "stage_labels.csv"
_NO_ANNOTATIONS: Final = (".tissue", ".lesions", ".corrections", "_mask", ".heat_map")
"""Ends of names of what others made of a slide."""
_Found = TypeVar("_Found", SlideObject, ObjectInfo)


class CohortSlide(Frozen):
    """One slide and what may be taken from it."""

    name: str
    """Its file's name without extension, or its folder's (DICOM)."""
    key: str
    """Where it lies, relative to the cohort."""
    size_bytes: int
    annotation: str | None
    """Key of its annotation; None where all of it is negative."""
    negatives: bool
    """Whether tissue outside of the annotation may be taken as negative."""
    split: Split | None
    """Test for Camelyon16's test set; None where it is open."""


@dataclass(frozen=True)
class Cohort:
    """The usable slides, and sentences on what was left out."""

    slides: tuple[CohortSlide, ...]
    warnings: tuple[str, ...]


def find_slides(store: Store) -> Cohort:
    """The slides of a folder or bucket, in the order of their names.

    Raises SourceError where there is none, where two slides or two annotations have one name, where a slide of
    Camelyon16's tumour set has no annotation, and where a normal one has; StoreError.
    """
    slides, annotations, tables = by_name(store)
    if not slides:
        raise SourceError(
            f"{store.url} holds no slide",
            f"files such as tumor_001.tif ({', '.join(SUFFIXES)}), or folders of DICOM files",
        )
    known = node_classes(store, tables)
    found: list[CohortSlide] = []
    left_out: dict[str, list[str]] = defaultdict(list)
    for name, info in sorted(slides.items()):
        annotation = annotations.get(name)
        reason = _unusable(store, name, annotation, known)
        if reason:
            left_out[reason].append(name)
            continue
        found.append(
            CohortSlide(
                name=name,
                key=info.key,
                size_bytes=info.size_bytes,
                annotation=annotation.key if annotation else None,
                negatives=negatives_usable(name),
                split=Split.TEST if is_official_test(name) else None,
            )
        )
    if not found:
        raise SourceError(
            f"none of the {len(slides)} slides in {store.url} can be used: {'; '.join(left_out)}",
            "annotated slides, or slides that are known to be negative",
            f"add annotations ({' or '.join(ANNOTATION_SUFFIXES)}), {REFERENCE} or {STAGE_LABELS}",
        )
    return Cohort(tuple(found), tuple(_sentence(reason, names) for reason, names in left_out.items()))


def by_name(store: Store) -> tuple[dict[str, SlideObject], dict[str, ObjectInfo], list[str]]:
    """Slides and annotations by name, and the keys of label files. Raises SourceError where a name comes twice."""
    slides: dict[str, SlideObject] = {}
    annotations: dict[str, ObjectInfo] = {}
    tables = []
    objects = list(store.list(linked=True))
    for slide in slides_among(objects, store):
        _add(slides, slide.name, slide, store)
    for info in objects:
        path = PurePosixPath(info.key)
        if path.name in (REFERENCE, STAGE_LABELS):
            tables.append(info.key)
        if path.suffix.lower() in ANNOTATION_SUFFIXES and not path.stem.endswith(_NO_ANNOTATIONS):
            _add(annotations, path.stem, info, store)
    return slides, annotations, tables


def _add(group: dict[str, _Found], name: str, found: _Found, store: Store) -> None:
    if name in group:
        raise SourceError(
            f"{store.url} has {group[name].key} and {found.key}",
            "one slide and one annotation of each name",
            "take one of them away",
        )
    group[name] = found


def node_classes(store: Store, tables: Sequence[str]) -> dict[str, NodeClass]:
    """What label files say of slides, by official name. Raises EvaluationError, StoreError."""
    known: dict[str, NodeClass] = {}
    for key in tables:
        data, where = store.get(key), store.locate(key)
        known |= (
            read_camelyon16_reference(data, where)
            if key.endswith(REFERENCE)
            else read_stage_labels(data, where).nodes
        )
    return known


def _unusable(
    store: Store, name: str, annotation: ObjectInfo | None, known: Mapping[str, NodeClass]
) -> str | None:
    """Why a slide is left out, or None."""
    official = camelyon_name(name) or name
    defect = slide_defect(name)
    if defect in (Defect.MISFILED, Defect.DUPLICATE):
        return f"are {defect}"
    label = known.get(official)
    if official.startswith("normal_") or label is NodeClass.NEGATIVE:
        if annotation is None:
            return None
        raise SourceError(
            f"{store.locate(annotation.key)} annotates {name}, which is said to be negative",
            "annotations of tumour slides only",
            "take the annotation away, or correct the label",
        )
    if annotation is not None:
        return None
    if official.startswith("tumor_"):
        raise SourceError(
            f"{name} has no annotation in {store.url}",
            f"{name}.xml",
            "copy the folder lesion_annotations as well",
        )
    if label is not None:
        return "hold tumour and are not annotated"
    return "are neither annotated nor known to be negative"


def _sentence(reason: str, names: Sequence[str]) -> str:
    return f"{len(names)} slides {reason}: left out ({first_of(names)})"
