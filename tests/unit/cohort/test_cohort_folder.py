"""Which slides of a folder may be used, and for what."""

from __future__ import annotations

from pathlib import Path

import pytest
from slide_files import gradient
from slide_folders import write_dicom

from sentinode.cohort.folder import Cohort, find_slides
from sentinode.errors import SourceError
from sentinode.schema import Split
from sentinode.slides.reader import open_slide
from sentinode.storage import open_store


def write(folder: Path, *names: str, **texts: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)


def found(folder: Path) -> Cohort:
    return find_slides(open_store(str(folder)))


def test_camelyon16_as_it_is_distributed(tmp_path: Path) -> None:
    write(
        tmp_path,
        "training/normal/normal_001.tif",
        "training/tumor/tumor_001.tif",
        "training/lesion_annotations/tumor_001.xml",
        "training/masks/tumor_001_mask.tif",
        "testing/images/test_001.tif",
        "testing/images/test_003.tif",
        "testing/lesion_annotations/test_001.xml",
        reference="Test_001,Tumor,IDC,Macro\nTest_003,Normal,DCIS,None\n",
    )
    cohort = found(tmp_path)
    assert [(s.name, s.annotation is not None, s.split) for s in cohort.slides] == [
        ("normal_001", False, None),
        ("test_001", True, Split.TEST),
        ("test_003", False, Split.TEST),
        ("tumor_001", True, None),
    ]
    assert cohort.warnings == ()


def test_camelyon17_takes_annotated_and_negative_nodes_only(tmp_path: Path) -> None:
    labels = "patient,stage\npatient_004.zip,pN1\n" + "".join(
        f"patient_004_node_{n}.tif,{c}\n" for n, c in enumerate(["macro", "negative", "itc"])
    )
    write(
        tmp_path,
        *(f"images/patient_004_node_{n}.tif" for n in range(4)),
        "annotations/patient_004_node_0.xml",
        stage_labels=labels,
    )
    cohort = found(tmp_path)
    assert [s.name for s in cohort.slides] == ["patient_004_node_0", "patient_004_node_1"]
    assert cohort.warnings == (
        "1 slides hold tumour and are not annotated: left out (patient_004_node_2)",
        "1 slides are neither annotated nor known to be negative: left out (patient_004_node_3)",
    )


def test_known_defects_are_honoured(tmp_path: Path) -> None:
    names = ("tumor_010", "tumor_011", "test_114", "test_049")
    write(
        tmp_path,
        "normal_086.tif",
        "normal_087.tif",
        *(f"{n}.tif" for n in names),
        *(f"{n}.xml" for n in names),
    )
    cohort = found(tmp_path)
    assert {s.name: s.negatives for s in cohort.slides} == {
        "normal_087": True,
        "test_114": False,
        "tumor_010": False,
        "tumor_011": True,
    }
    assert [w for w in cohort.warnings if "normal_086" in w and "really tumour" in w]
    assert [w for w in cohort.warnings if "test_049" in w and "duplicates" in w]


def test_slides_of_ones_own_need_an_annotation(tmp_path: Path) -> None:
    dotted = "TCGA-CR-7395-01A-01-TS1.5C5A"
    write(
        tmp_path,
        "a.svs",
        "a.geojson",
        "a.tissue.geojson",
        "a.heat_map.tif",
        "b.ndpi",
        f"{dotted}.svs",
        f"{dotted}.xml",
    )
    cohort = found(tmp_path)
    assert [(s.name, s.annotation) for s in cohort.slides] == [(dotted, f"{dotted}.xml"), ("a", "a.geojson")]
    assert "b" in cohort.warnings[0]


def test_a_folder_of_dicom_files_is_a_slide(tmp_path: Path) -> None:
    write_dicom(tmp_path / "slides" / "tumor_1.2.3", gradient(128, 128), mpp=(0.9, 0.9), levels=2)
    write(tmp_path, "annotations/tumor_1.2.3.geojson")
    (slide,) = found(tmp_path).slides
    assert (slide.name, slide.key) == ("tumor_1.2.3", "slides/tumor_1.2.3")
    assert slide.annotation == "annotations/tumor_1.2.3.geojson"
    with open_slide(str(tmp_path / slide.key)) as opened:
        assert opened.level_dimensions == ((128, 128), (64, 64))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("readme.txt",), "holds no slide"),
        (("a.svs",), "none of the 1 slides"),
        (("tumor_001.tif",), "tumor_001 has no annotation"),
        (("normal_001.tif", "normal_001.xml"), "annotates normal_001"),
        (("a/x.svs", "b/x.tif"), r"a/x\.svs and b/x\.tif"),
        (("x.svs", "a/x.xml", "x.geojson"), "x"),
    ],
)
def test_what_does_not_fit_is_a_clear_error(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    write(tmp_path, *names)
    with pytest.raises(SourceError, match=message):
        found(tmp_path)
