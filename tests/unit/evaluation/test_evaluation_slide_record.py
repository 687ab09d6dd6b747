"""Records of scored slides: their table, and Camelyon17's stages."""

from __future__ import annotations

import pytest

from sentinode.errors import EvaluationError
from sentinode.evaluation.slide_record import SlideScore, read_slides_table, slides_table, stages_csv
from sentinode.evaluation.slide_reference import Stage, read_stage_labels
from sentinode.schema import NodeClass


def _record(slide: str, node: NodeClass | None = None, **more: object) -> SlideScore:
    status = "failed" if node is None else "done"
    fields = {"slide": slide, "url": f"/s/{slide}.tif", "status": status, "key": "k", "bundle": "b"}
    return SlideScore.model_validate(fields | {"node_class": node} | more)


def test_table_holds_all_fields_of_all_slides() -> None:
    records = (
        _record("a", NodeClass.MICRO, score=0.7, lesions=2, flags=("pen", "blurred"), um_px_given=True),
        _record("b", reason="no slide\n  what to do: copy it again"),
    )
    assert read_slides_table(slides_table(records[::-1]), "slides.parquet") == records
    assert read_slides_table(slides_table([records[1]]), "slides.parquet") == records[1:]


def test_another_file_is_no_table() -> None:
    with pytest.raises(EvaluationError, match="sentinode score writes"):
        read_slides_table(b"nothing", "slides.parquet")


def test_stages_are_of_patients_with_five_scored_nodes() -> None:
    whole = [
        _record(f"patient_007_node_{i}", NodeClass.MACRO if i == 3 else NodeClass.NEGATIVE) for i in range(5)
    ]
    broken = [_record(f"patient_008_node_{i}", NodeClass.ITC if i else None) for i in range(5)]
    data, without = stages_csv([*whole, *broken, _record("test_001", NodeClass.MACRO)])
    assert data is not None
    labels = read_stage_labels(data, "stages.csv")
    assert labels.patients == {"patient_007": Stage.PN1}
    assert labels.nodes["patient_007_node_3"] is NodeClass.MACRO
    assert without == ("patient_008",)


def test_other_slides_have_no_stages() -> None:
    assert stages_csv([_record("test_001", NodeClass.MACRO)]) == (None, ())
