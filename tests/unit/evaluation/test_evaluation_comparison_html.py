from __future__ import annotations

import numpy as np
import pytest
from evaluation_parts import make_predictions
from markupsafe import escape

from sentinode.evaluation.compare import compare
from sentinode.evaluation.comparison import ComparisonConfig, ComparisonReport
from sentinode.evaluation.comparison_html import SHOWN, difference_rows, headline, render_comparison
from sentinode.evaluation.gallery import gallery_patches
from sentinode.evaluation.predictions import Predictions
from sentinode.schema import RESEARCH_USE_ONLY

A = make_predictions(400, "test", 2)


def other(seed: int, sd: float) -> Predictions:
    """A's logits with noise."""
    return Predictions.from_logits(
        keys=A.keys,
        logits=A.logits + np.random.default_rng(seed).normal(size=len(A)) * sd,
        labels=A.labels,
        split="test",
        model_digest="b" * 64,
        manifest_digest="d" * 64,
    )


def worse() -> Predictions:
    return other(5, 2)


@pytest.fixture(scope="module")
def report() -> ComparisonReport:
    return compare(A, worse(), ComparisonConfig(resamples=200))


def test_the_page_holds_every_measure_and_the_widest_gaps(report: ComparisonReport) -> None:
    rows = np.array([A.keys.tolist().index(d.key) for d in report.disagreements[:2]])
    pixels = np.zeros((2, 96, 96, 3), np.uint8)
    gallery = list(zip(report.disagreements[:2], gallery_patches(A, rows, pixels), strict=True))
    page = render_comparison(report, A, worse(), ("first", "second"), {"A": "one", "B": "two"}, gallery)
    for row in difference_rows(report):
        assert f"<th>{escape(row.name)}</th>" in page
        assert row.difference in page
    assert page.count("data:image/png") == 2
    assert page.count(RESEARCH_USE_ONLY) >= 2
    assert len(report.disagreements) > SHOWN
    assert report.disagreements[SHOWN - 1].key[:16] in page
    assert report.disagreements[SHOWN].key[:16] not in page
    assert "<script" not in page
    assert "http://" not in page


def test_differences_keep_sign_unit_and_interval(report: ComparisonReport) -> None:
    rows = {row.name: row for row in difference_rows(report)}
    assert len(rows) == len(report.differences)
    found = report.differences["accuracy"]
    assert found.difference is not None
    assert rows["Accuracy, %"].difference == f"{100 * found.difference:+.1f}"
    assert rows["AUROC (DeLong)"].clear
    assert rows["AUROC (DeLong)"].interval.startswith("+0.")


def test_the_headline_claims_no_more_than_the_interval(report: ComparisonReport) -> None:
    assert "A is the better one, beyond chance" in headline(report)
    swapped = compare(worse(), A, ComparisonConfig(resamples=100))
    assert "B is the better one" in headline(swapped)
    same = compare(A, A, ComparisonConfig(resamples=100))
    assert "cannot be estimated" in headline(same)
    assert "do not show which of the two is better" in headline(
        compare(A, other(1, 0.05), ComparisonConfig(resamples=100))
    )
