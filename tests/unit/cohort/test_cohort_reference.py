"""What the pathologists say of scored slides: label files, annotations, known defects."""

from __future__ import annotations

from pathlib import Path

import pytest
from shapely import box

from sentinode.cohort.reference import read_reference
from sentinode.errors import SourceError
from sentinode.evaluation.slide_reference import Stage
from sentinode.schema import NodeClass
from sentinode.slides.annotations import Region
from sentinode.slides.asap_xml import write_asap_xml
from sentinode.storage import open_store


def annotate(folder: Path, name: str, side: float) -> None:
    (folder / f"{name}.xml").write_bytes(write_asap_xml([Region(box(0, 0, side, side / 10), "_0")]))


def test_labels_lesions_and_defects(tmp_path: Path) -> None:
    (tmp_path / "reference.csv").write_text(
        "Test_001,Tumor,IDC,Micro\nTest_002,Tumor,IDC,Macro\nTest_003,Normal,DCIS,None\nTest_049,Normal,DCIS,None\n"
    )
    annotate(tmp_path, "test_001", 4000)
    annotate(tmp_path, "tumor_501", 12_000)
    annotate(tmp_path, "test_114", 4000)
    names = ("test_001", "test_002", "test_003", "test_049", "test_114", "tumor_501", "normal_001", "other")
    found = read_reference(open_store(str(tmp_path)), dict.fromkeys(names, 0.25))
    assert found.classes == {
        "test_001": NodeClass.MICRO,
        "test_002": NodeClass.MACRO,
        "test_003": NodeClass.NEGATIVE,
        "test_114": NodeClass.MICRO,
        "tumor_501": NodeClass.MACRO,
        "normal_001": NodeClass.NEGATIVE,
    }
    assert {name: len(lesions) for name, lesions in found.lesions.items()} == {
        "test_001": 1, "test_003": 0, "tumor_501": 1, "normal_001": 0,
    }  # fmt: skip
    for name, what in (
        ("test_049", "duplicates"),
        ("test_114", "out of FROC"),
        ("test_002", "without annotation"),
        ("other", "no reference"),
    ):
        assert [note for note in found.notes if name in note and what in note]


def test_stages_of_camelyon17(tmp_path: Path) -> None:
    (tmp_path / "stage_labels.csv").write_text(
        "patient,stage\npatient_001.zip,pN0(i+)\npatient_001_node_0.tif,itc\n"
    )
    found = read_reference(open_store(str(tmp_path)), {"patient_001_node_0": 0.25})
    assert found.stages == {"patient_001": Stage.PN0_ITC}
    assert found.classes == {"patient_001_node_0": NodeClass.ITC}


def test_a_reference_of_other_slides_is_refused(tmp_path: Path) -> None:
    (tmp_path / "reference.csv").write_text("Test_001,Tumor,IDC,Micro\n")
    with pytest.raises(SourceError, match="says nothing of the 1 scored slides"):
        read_reference(open_store(str(tmp_path)), {"slide_7": 0.25})


def test_the_real_label_files(real_data: Path, tmp_path: Path) -> None:
    for name, target in (
        ("camelyon16_reference.csv", "reference.csv"),
        ("camelyon17_stage_labels.csv", "stage_labels.csv"),
    ):
        (tmp_path / target).write_bytes((real_data / name).read_bytes())
    slides = {"test_001": 0.25, "test_003": 0.25, "patient_000_node_0": 0.25}
    found = read_reference(open_store(str(tmp_path)), slides)
    assert found.classes["test_001"] is NodeClass.MACRO
    assert found.lesions == {"test_003": (), "patient_000_node_0": ()}
    assert len(found.stages) >= 100
