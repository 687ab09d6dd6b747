"""The reference of scores: counts by class, shares at a prevalence, drift."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from serving_parts import make_card

from sentinode.bundle.card import Card
from sentinode.bundle.scores import BINS, ScoreReference
from sentinode.errors import BundleError


def _reference(rng: np.random.Generator, count: int = 4000) -> tuple[ScoreReference, np.ndarray, np.ndarray]:
    labels = rng.integers(0, 2, count)
    p = np.where(labels == 1, rng.beta(5, 2, count), rng.beta(2, 5, count))
    return ScoreReference.of(p, labels), p, labels


def test_counts_by_class_add_up_and_both_ends_are_counted() -> None:
    found = ScoreReference.of([0.0, 0.05, 1.0, 0.999], [0, 0, 1, 1])
    assert sum(found.negatives) == sum(found.positives) == 2
    assert found.negatives[:2] == (1, 1)
    assert found.positives[-1] == 2
    assert len(found.negatives) == BINS


def test_the_same_distribution_does_not_drift_and_another_does() -> None:
    rng = np.random.default_rng(0)
    reference, p, _ = _reference(rng)
    assert reference.population_stability_index(reference.histogram(p)) < 0.001
    fresh = _reference(rng)[1]
    assert reference.population_stability_index(reference.histogram(fresh)) < 0.05
    assert reference.population_stability_index(reference.histogram(rng.beta(1, 9, 4000))) > 0.25


def test_rare_tumour_is_no_drift_at_its_prevalence() -> None:
    rng = np.random.default_rng(1)
    reference = _reference(rng)[0]
    rare = np.concatenate([rng.beta(5, 2, 40), rng.beta(2, 5, 3960)])
    counts = reference.histogram(rare)
    assert reference.population_stability_index(counts) > 0.25
    assert reference.population_stability_index(counts, prevalence=0.01) < 0.05
    assert reference.shares(0.01).sum() == pytest.approx(1)


def test_reference_survives_the_card() -> None:
    reference = _reference(np.random.default_rng(2))[0]
    card = make_card(scores=reference)
    assert Card.from_json(card.canonical_json(), "card.json").scores == reference


def test_what_cannot_be_measured_is_refused() -> None:
    reference = ScoreReference.of([0.1, 0.2], [0, 0])
    with pytest.raises(BundleError, match=r"prevalence 0\.5"):
        reference.shares(0.5)
    with pytest.raises(BundleError, match="no served patch"):
        reference.population_stability_index(np.zeros(BINS, np.int64))
    with pytest.raises(ValidationError, match="rise from 0 to 1"):
        ScoreReference(edges=(0, 0.5, 0.9), negatives=(1, 1), positives=(1, 1))
