from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from evaluation_parts import make_predictions
from sklearn.metrics import roc_auc_score

from sentinode.errors import ConfigError
from sentinode.evaluation.metrics import RankedScores
from sentinode.evaluation.records import Estimate
from sentinode.evaluation.split_use import check_test_use, keep_test_use
from sentinode.evaluation.strata import strata, worst_strata
from sentinode.evaluation.workload import SENSITIVITIES, workload
from sentinode.storage import open_store

P = dataclasses.replace(
    make_predictions(300, slides=5), centres=np.array(["north", "south", None] * 100, object)
)


def test_every_slide_and_centre_has_its_figures() -> None:
    found = {(s.kind, s.name): s for s in strata(P, 0.5, 0.95)}
    assert sorted(found) == [("centre", "north"), ("centre", "south")] + [
        ("slide", f"valid_{i:03d}") for i in range(5)
    ]
    north = P.centres == "north"
    stratum = found["centre", "north"]
    assert stratum.patches == 100
    assert stratum.auroc.value == pytest.approx(roc_auc_score(P.labels[north], P.probabilities[north]))
    tumour = north & (P.labels == 1)
    assert stratum.sensitivity.value == pytest.approx((P.probabilities[tumour] >= 0.5).mean())


def test_an_empty_or_one_sided_stratum_is_not_estimable() -> None:
    sizes = {"valid_000": "macro", "valid_001": "micro", "elsewhere": "itc"}
    one_sided = P.select((P.labels == 1) | (P.slides != "valid_001"))
    found = {s.name: s for s in strata(one_sided, 0.5, 0.95, sizes) if s.kind == "lesion size"}
    nothing = Estimate(value=None)
    assert (found["itc"].patches, found["itc"].auroc, found["itc"].sensitivity) == (0, nothing, nothing)
    assert (found["micro"].auroc, found["micro"].specificity) == (nothing, nothing)
    assert found["micro"].sensitivity.value is not None
    assert found["macro"].auroc.value is not None


def test_the_worst_stratum_is_named() -> None:
    missed = P.labels == 1
    low = np.where((P.slides == "valid_003") & missed, 0.01, P.probabilities)
    worst = worst_strata(strata(dataclasses.replace(P, probabilities=low), 0.5, 0.95))
    assert [(w.kind, w.measure) for w in worst] == [
        ("slide", "sensitivity"),
        ("slide", "specificity"),
        ("centre", "sensitivity"),
        ("centre", "specificity"),
    ]
    assert (worst[0].name, worst[0].value) == ("valid_003", 0.0)


def test_few_patches_name_no_worst_stratum() -> None:
    assert worst_strata(strata(P.select(np.arange(20)), 0.5, 0.95)) == ()


def test_workload_falls_with_the_sensitivity_that_is_kept() -> None:
    curve = RankedScores.of(P.labels, P.probabilities).curve()
    points = workload(curve, 0.1)
    assert [p.sensitivity for p in points] == SENSITIVITIES.tolist()
    spared = [p.negatives_set_aside for p in points]
    assert spared == sorted(spared, reverse=True)
    last = points[-1]
    lowest_tumour = P.probabilities[P.labels == 1].min()
    assert last.reading_saved == pytest.approx((P.probabilities < lowest_tumour).mean())
    assert last.reading_saved_at_prevalence == pytest.approx(0.9 * last.negatives_set_aside)
    assert workload(RankedScores.of([1, 1], [0.1, 0.2]).curve(), None) == ()


def test_a_test_split_is_measured_once(tmp_path: object) -> None:
    store = open_store(str(tmp_path))
    first = check_test_use(store, P, again=False)
    assert first.of(P) == 1
    # A measurement that failed before it was kept is none.
    keep_test_use(store, check_test_use(store, P, again=False))
    with pytest.raises(ConfigError, match="before"):
        check_test_use(store, P.select(np.arange(len(P))[::-1]), again=False)
    second = check_test_use(store, P, again=True)
    assert second.of(P) == 2
    other = dataclasses.replace(P, model_digest="other")
    assert check_test_use(store, other, again=False).of(other) == 1
    assert check_test_use(store, P.select(np.arange(100)), again=False).of(P) == 1
