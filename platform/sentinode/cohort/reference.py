"""What pathologists say of slides that were scored: class, lesions and the stage of patients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from sentinode.cohort.folder import STAGE_LABELS, by_name, node_classes
from sentinode.cohort.sample import read_tumour
from sentinode.data.sources.known import Defect, camelyon_name, lesions_scorable, slide_defect
from sentinode.errors import SourceError
from sentinode.evaluation.slide_reference import Stage, read_stage_labels
from sentinode.schema import NodeClass
from sentinode.slides.lesions import Lesion, lesions_of, node_class_of
from sentinode.storage import Store


@dataclass(frozen=True, eq=False)
class CohortReference:
    """The reference of some slides; a slide that is not in a part has none there."""

    classes: dict[str, NodeClass] = field(default_factory=dict)
    lesions: dict[str, tuple[Lesion, ...]] = field(default_factory=dict)
    """Of slides that are exhaustively annotated, and none of negative ones: those that FROC may count."""
    stages: dict[str, Stage] = field(default_factory=dict)
    """By patient."""
    notes: tuple[str, ...] = ()
    """What was left out, in sentences."""


def read_reference(store: Store, um_px: Mapping[str, float]) -> CohortReference:
    """The reference of the slides in ``um_px`` (name to micrometres per pixel at level 0) from a folder or bucket.

    It may hold the slides themselves, or only ``reference.csv``, ``stage_labels.csv`` and annotations. A label file
    outweighs an annotation; without either, ``normal_*`` is negative. Known defects are honoured: a duplicate and a
    slide filed under the wrong class count nowhere, one that is not exhaustively annotated does not count for FROC.

    Raises SourceError where nothing is said of any slide, and where an annotation cannot be read; EvaluationError.
    """
    _, annotations, tables = by_name(store)
    known = node_classes(store, tables)
    found = CohortReference()
    left_out: dict[str, list[str]] = defaultdict(list)
    for name, size in um_px.items():
        official = camelyon_name(name) or name
        defect = slide_defect(name)
        if defect in (Defect.MISFILED, Defect.DUPLICATE):
            left_out[f"Left out, {defect}"].append(name)
            continue
        label = known.get(official, NodeClass.NEGATIVE if official.startswith("normal_") else None)
        if name in annotations:
            lesions = lesions_of(read_tumour(store, annotations[name].key), size)
            found.classes[name] = label or node_class_of(lesions)
            if lesions_scorable(name):
                found.lesions[name] = lesions
            else:
                left_out[f"Left out of FROC, {defect}"].append(name)
        elif label is not None:
            found.classes[name] = label
            if label is NodeClass.NEGATIVE:
                found.lesions[name] = ()
            else:
                left_out["Left out of FROC, tumour without annotation"].append(name)
        else:
            left_out["Left out, no reference"].append(name)
    if not found.classes:
        raise SourceError(
            f"{store.url} says nothing of the {len(um_px)} scored slides",
            "reference.csv, stage_labels.csv or annotations with the names of the slides",
            "give the folder that holds them as --reference",
        )
    for key in tables:
        if key.endswith(STAGE_LABELS):
            found.stages.update(read_stage_labels(store.get(key), store.locate(key)).patients)
    notes = tuple(
        f"{what}: {len(names)} of the slides ({', '.join(names[:5])})." for what, names in left_out.items()
    )
    return CohortReference(found.classes, found.lesions, found.stages, notes)
