"""Patient stages by Camelyon17's rules, the reference files, and weighted kappa against scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from sentinode.errors import EvaluationError
from sentinode.evaluation.patient_stage import (
    STAGES,
    StageAgreement,
    quadratic_kappa,
    stage_agreement,
    stage_of,
    stages_of,
)
from sentinode.evaluation.resampled import ResamplingConfig
from sentinode.evaluation.slide_reference import (
    Stage,
    read_camelyon16_reference,
    read_stage_labels,
    tumour_labels,
)
from sentinode.schema import NodeClass

LETTERS = {"-": NodeClass.NEGATIVE, "i": NodeClass.ITC, "m": NodeClass.MICRO, "M": NodeClass.MACRO}
FEW = ResamplingConfig(resamples=200)


def nodes(letters: str) -> list[NodeClass]:
    return [LETTERS[letter] for letter in letters]


@pytest.mark.parametrize(
    ("letters", "stage"),
    [
        ("-----", "pN0"),
        ("i----", "pN0(i+)"),
        ("iiiii", "pN0(i+)"),
        ("m----", "pN1mi"),
        ("mmmmm", "pN1mi"),
        ("mi---", "pN1mi"),
        ("M----", "pN1"),
        ("Mmm--", "pN1"),
        ("Mmmi-", "pN1"),
        ("MMMii", "pN1"),
        ("Mmmm-", "pN2"),
        ("MMMMM", "pN2"),
    ],
)
def test_rules(letters: str, stage: str) -> None:
    assert stage_of(nodes(letters)) == stage


@pytest.mark.parametrize("letters", ["", "----", "------"])
def test_five_nodes(letters: str) -> None:
    with pytest.raises(EvaluationError, match=f"{len(letters)} nodes"):
        stage_of(nodes(letters))


def test_stages_of_slides() -> None:
    slides = {
        f"patient_01{p}_node_{n}": LETTERS[c]
        for p, row in enumerate(["M----", "i----"])
        for n, c in enumerate(row)
    }
    assert stages_of(slides) == {"patient_010": "pN1", "patient_011": "pN0(i+)"}
    with pytest.raises(EvaluationError, match="patient_010 has 4 nodes"):
        stages_of(dict(list(slides.items())[1:]))
    with pytest.raises(EvaluationError, match="slide test_001"):
        stages_of({"test_001": NodeClass.ITC})


@pytest.mark.real_data
def test_the_rules_give_the_stages_of_all_patients_of_camelyon17(real_data: Path) -> None:
    file = real_data / "camelyon17_stage_labels.csv"
    labels = read_stage_labels(file.read_bytes(), file.name)
    assert (len(labels.patients), len(labels.nodes)) == (100, 500)
    assert stages_of(labels.nodes) == labels.patients
    assert stage_agreement(labels.patients, stages_of(labels.nodes), FEW).kappa.value == 1


@pytest.mark.real_data
def test_camelyon16_reference(real_data: Path) -> None:
    file = real_data / "camelyon16_reference.csv"
    found = read_camelyon16_reference(file.read_bytes(), file.name)
    assert found["test_001"] is NodeClass.MACRO
    assert found["test_003"] is NodeClass.NEGATIVE
    assert sum(tumour_labels(found).values()) == sum(
        node is not NodeClass.NEGATIVE for node in found.values()
    )


class TestKappa:
    @pytest.mark.parametrize("seed", range(10))
    def test_agrees_with_scikit_learn(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        reference = rng.integers(0, 5, 100)
        found = np.clip(reference + rng.integers(-1, 3, 100), 0, 4)
        mine = stage_agreement(
            {f"p{i:03d}": STAGES[s] for i, s in enumerate(reference)},
            {f"p{i:03d}": STAGES[s] for i, s in enumerate(found)},
            FEW,
        )
        theirs = cohen_kappa_score(reference, found, weights="quadratic", labels=range(5))
        assert mine.kappa.value == pytest.approx(theirs, abs=1e-12)
        assert mine.accuracy.value == pytest.approx(np.mean(reference == found))
        assert mine.kappa.low is not None
        assert mine.kappa.high is not None
        assert mine.kappa.low < theirs < mine.kappa.high
        assert sum(map(sum, mine.table)) == 100
        assert StageAgreement.from_json(mine.to_json(), "stages.json") == mine

    def test_by_hand(self) -> None:
        # Two patients of pN0 and pN2, found as pN0 and pN1: weighted disagreement (1) / 2, by chance
        # (0 + 9 + 16 + 1) / 4; kappa = 1 - 0.5 / 6.5.
        reference = {"a": Stage.PN0, "b": Stage.PN2}
        found = stage_agreement(reference, {"a": Stage.PN0, "b": Stage.PN1}, FEW)
        assert found.kappa.value == pytest.approx(1 - 0.5 / 6.5)

    def test_one_stage_only_is_not_estimable(self) -> None:
        assert math.isnan(quadratic_kappa(np.diag([3, 0, 0])))
        found = stage_agreement({"a": Stage.PN0}, {"a": Stage.PN0}, FEW).kappa
        assert (found.value, str(found)) == (None, "not estimable")

    def test_the_same_patients(self) -> None:
        with pytest.raises(EvaluationError, match="in one list only"):
            stage_agreement({"a": Stage.PN0}, {"b": Stage.PN0})
        with pytest.raises(EvaluationError, match="no patient"):
            stage_agreement({}, {})


class TestFiles:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"a,b\n",
            b"patient,stage\npatient_000.zip,pN9\n",
            b"patient,stage\npatient_000.zip\n",
            b"patient,stage\npatient_000.jpg,itc\n",
            b"patient,stage\np.tif,itc\np.tif,itc\n",
            b"\xff\xfe",
        ],
    )
    def test_broken_stage_labels(self, data: bytes) -> None:
        with pytest.raises(EvaluationError):
            read_stage_labels(data, "stage_labels.csv")

    @pytest.mark.parametrize(
        "data", [b"Test_001,Tumor\n", b"Test_001,Tumor,IDC,None\n", b"A,Normal,x,None\na,Normal,x,None\n"]
    )
    def test_broken_reference(self, data: bytes) -> None:
        with pytest.raises(EvaluationError):
            read_camelyon16_reference(data, "reference.csv")

    def test_isolated_tumour_cells_by_policy(self) -> None:
        slides = {"a": NodeClass.ITC, "b": NodeClass.MICRO, "c": NodeClass.NEGATIVE}
        assert tumour_labels(slides) == {"a": False, "b": True, "c": False}
        assert tumour_labels(slides, "tumour") == {"a": True, "b": True, "c": False}
        assert tumour_labels(slides, "left out") == {"b": True, "c": False}
