from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import minimize, minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from sentinode.errors import EvaluationError
from sentinode.evaluation.calibrator import LIMIT_SLOPE, Calibration, fit
from sentinode.evaluation.metrics import FloatArray, IntArray


def overconfident(n: int = 3000, seed: int = 1) -> tuple[IntArray, FloatArray]:
    """Labels drawn with chance sigmoid(z), and logits 2.5 z + 1."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n) * 2
    return (rng.random(n) < 1 / (1 + np.exp(-z))).astype(np.int64), 2.5 * z + 1


def log_loss(labels: IntArray, z: FloatArray) -> float:
    return float(np.mean(np.logaddexp(0, z) - labels * z))


def test_temperature_has_the_least_log_loss() -> None:
    labels, logits = overconfident()
    best = minimize_scalar(lambda a: log_loss(labels, a * logits), bounds=(0.01, 10), method="bounded",
                           options={"xatol": 1e-10})  # fmt: skip
    found = fit("temperature", labels, logits)
    assert found.a == pytest.approx(best.x, abs=1e-6)
    assert (found.b, found.kind) == (0.0, "temperature")


def test_platt_is_unpenalised_logistic_regression() -> None:
    labels, logits = overconfident()
    found = fit("platt", labels, logits)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logits[:, None], labels)
    assert (found.a, found.b) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), abs=1e-5)
    polished = minimize(lambda t: log_loss(labels, t[0] * logits + t[1]), [found.a, found.b], tol=1e-12)
    assert log_loss(labels, found.a * logits + found.b) <= polished.fun + 1e-12


def test_isotonic_pools_as_scikit_learn_does() -> None:
    labels, logits = overconfident(800)
    logits = np.round(logits, 1)
    found = fit("isotonic", labels, logits)
    reference = IsotonicRegression().fit(logits, labels)
    at = np.array([knot[0] for knot in found.knots])
    lowest, highest = logits.min(), logits.max()
    fitted = reference.predict(logits)
    pools = np.unique(fitted)
    np.testing.assert_allclose([knot[1] for knot in found.knots], pools, atol=1e-12)
    np.testing.assert_allclose(at, [logits[np.isclose(fitted, p)].mean() for p in pools], atol=1e-9)
    given = found.probabilities(np.array([lowest - 9, lowest, highest, highest + 9]))
    assert given[0] == given[1] == found.knots[0][1]
    assert given[2] == given[3] == found.knots[-1][1]


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_calibration_lowers_the_error_and_keeps_the_order(kind: str) -> None:
    labels, logits = overconfident()
    found = fit(kind, labels, logits)  # type: ignore[arg-type]
    before = np.mean((Calibration().probabilities(logits) - labels) ** 2)
    calibrated = found.probabilities(logits)
    assert np.mean((calibrated - labels) ** 2) < before
    assert (np.diff(calibrated[np.argsort(logits)]) >= 0).all()
    assert Calibration.model_validate_json(found.model_dump_json()) == found


def test_separable_patches_do_not_run_away() -> None:
    labels = np.arange(120) % 2
    logits = np.where(labels, 4.0, -4.0) + np.random.default_rng(0).normal(0, 1, 120)
    for kind in ("temperature", "platt"):
        # Targets of 61/62 and 1/62: a logit of 4 at the least.
        assert 0.8 < fit(kind, labels, logits).a < 1.3  # type: ignore[arg-type]
    assert fit("temperature", [0, 1], [0.0, 0.0]).a == 1.0
    # Reversed logits cannot be mended by a positive slope.
    assert fit("temperature", [1, 0], [-1.0, 1.0]).a == 1 / LIMIT_SLOPE


@pytest.mark.parametrize("kind", ["identity", "temperature", "platt", "isotonic"])
def test_prevalence_correction_is_bayes_rule(kind: str) -> None:
    labels, logits = overconfident(500)
    found = fit(kind, labels, logits)  # type: ignore[arg-type]
    p = found.probabilities(logits)
    moved = found.at_prevalence(0.5, 0.02).probabilities(logits)
    np.testing.assert_allclose(moved, 0.02 * p / (0.02 * p + 0.98 * (1 - p)), atol=1e-12)
    back = found.at_prevalence(0.5, 0.02).at_prevalence(0.02, 0.5)
    np.testing.assert_allclose(back.probabilities(logits), p, atol=1e-12)
    with pytest.raises(EvaluationError, match="prevalence"):
        found.at_prevalence(0.5, 1.0)


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(EvaluationError, match="one class"):
        fit("platt", [1, 1], [0.0, 1.0])
    with pytest.raises(EvaluationError, match="infinite"):
        fit("temperature", [0, 1], [0.0, np.inf])


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"kind": "identity", "a": 2.0}, "identity"),
        ({"kind": "temperature", "a": 2.0, "b": 1.0}, "b=0"),
        ({"kind": "isotonic"}, "0 knots"),
        ({"kind": "platt", "knots": ((0.0, 0.1),)}, "1 knots"),
        ({"kind": "isotonic", "knots": ((0.0, 0.5), (1.0, 0.4))}, "rise"),
        ({"kind": "isotonic", "knots": ((0.0, 0.5), (1.0, 1.4))}, r"\[0, 1\]"),
    ],
)
def test_calibrations_that_contradict_themselves_are_refused(fields: dict[str, object], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        Calibration.model_validate(fields)
