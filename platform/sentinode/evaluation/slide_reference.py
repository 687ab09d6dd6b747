"""What the pathologists say of whole slides and patients: Camelyon16's and Camelyon17's label files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, TypeVar

from sentinode.config import Frozen
from sentinode.errors import EvaluationError
from sentinode.schema import NodeClass

T = TypeVar("T")
ItcPolicy = Literal["negative", "tumour", "left out"]
"""What a slide with isolated tumour cells only counts as."""


class Stage(StrEnum):
    """Pathological stage of the lymph nodes, as Camelyon17 tells them apart, rising."""

    PN0 = "pN0"
    PN0_ITC = "pN0(i+)"
    PN1MI = "pN1mi"
    PN1 = "pN1"
    PN2 = "pN2"


class StageLabels(Frozen):
    """Camelyon17's ``stage_labels.csv``."""

    patients: dict[str, Stage]
    """By name, such as ``patient_000``."""
    nodes: dict[str, NodeClass]
    """By slide, such as ``patient_000_node_0``."""


_CAMELYON16: Final = {
    ("normal", "none"): NodeClass.NEGATIVE,
    ("tumor", "micro"): NodeClass.MICRO,
    ("tumor", "macro"): NodeClass.MACRO,
}


def read_camelyon16_reference(data: bytes, where: str) -> dict[str, NodeClass]:
    """Camelyon16's ``reference.csv`` (slide, class, tumour type, size): class by slide, ``test_001`` and on.

    Raises EvaluationError on a line of other form, an unknown class, or a slide that comes twice.
    """
    found: dict[str, NodeClass] = {}
    for number, cells in _rows(data, where):
        key = (cells[1].lower(), cells[3].lower()) if len(cells) == 4 else ("", "")
        if key not in _CAMELYON16:
            raise EvaluationError(
                f"{where}, line {number}: {','.join(cells)[:120]}", "slide,Normal|Tumor,type,None|Micro|Macro"
            )
        _put(found, cells[0].lower().removesuffix(".tif"), _CAMELYON16[key], where)
    return found


def read_stage_labels(data: bytes, where: str) -> StageLabels:
    """Camelyon17's ``stage_labels.csv``: rows of patients end in ``.zip``, those of nodes in ``.tif``.

    Raises EvaluationError on other columns, an unknown stage or class, or a name that comes twice.
    """
    rows = list(_rows(data, where))
    if not rows or rows[0][1] != ["patient", "stage"]:
        raise EvaluationError(f"{where} does not begin with patient,stage", "Camelyon17's stage_labels.csv")
    patients: dict[str, Stage] = {}
    nodes: dict[str, NodeClass] = {}
    for number, cells in rows[1:]:
        try:
            name, value = cells
            if name.endswith(".zip"):
                _put(patients, name.removesuffix(".zip"), Stage(value), where)
            elif name.endswith(".tif"):
                _put(nodes, name.removesuffix(".tif"), NodeClass(value), where)
            else:
                raise ValueError(name)
        except ValueError as error:
            raise EvaluationError(
                f"{where}, line {number}: {','.join(cells)[:120]}",
                f"<patient>.zip with {', '.join(Stage)}, or <node>.tif with {', '.join(NodeClass)}",
            ) from error
    return StageLabels(patients=patients, nodes=nodes)


def tumour_labels(nodes: Mapping[str, NodeClass], itc: ItcPolicy = "negative") -> dict[str, bool]:
    """Whether each slide holds tumour; slides of isolated tumour cells by ``itc``."""
    return {
        slide: node in (NodeClass.MICRO, NodeClass.MACRO) or (node is NodeClass.ITC and itc == "tumour")
        for slide, node in nodes.items()
        if not (node is NodeClass.ITC and itc == "left out")
    }


def _rows(data: bytes, where: str) -> list[tuple[int, list[str]]]:
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(f"{where} is not a CSV file ({error})", "text, comma-separated") from error
    return [(i, [cell.strip() for cell in row]) for i, row in enumerate(rows, 1) if row]


def _put(found: dict[str, T], name: str, value: T, where: str) -> None:
    if name in found:
        raise EvaluationError(f"{where} has {name} more than once", "each once")
    found[name] = value
