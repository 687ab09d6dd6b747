"""Every figure of a report against scikit-learn, on predictions of a network that was trained on real patches."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import calibration, metrics

from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationConfig, EvaluationReport
from sentinode.evaluation.report import evaluate
from sentinode.models.families import SeedCnnConfig, build_model
from sentinode.models.preprocess import Detector, Preprocess, PreprocessConfig

pytestmark = pytest.mark.real_data
STEPS, BATCH = 150, 64
PARTS = {"train": slice(0, 1400), "valid": slice(1400, 1900), "test": slice(1900, 2400)}


@pytest.fixture(scope="module")
def predictions(real_data: Path) -> dict[str, Predictions]:
    """Of the seed CNN after some seconds of training on Kaggle's patches."""
    with (real_data / "kaggle" / "train_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    pixels = [np.asarray(Image.open(real_data / "kaggle" / "train" / f"{row['id']}.tif")) for row in rows]
    images = torch.from_numpy(np.stack(pixels))
    labels = torch.tensor([int(row["label"]) for row in rows])
    torch.manual_seed(0)
    torch.set_num_threads(1)  # threads of small tensors wait for one another on a busy machine
    net = build_model(SeedCnnConfig(dropout=0.0))
    detector = Detector(Preprocess(PreprocessConfig()), net)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(STEPS):
        drawn = torch.randint(PARTS["train"].stop, (BATCH,))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            detector(images[drawn]), labels[drawn].float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = torch.cat([detector.eval()(part) for part in images.split(200)]).numpy()
    return {
        split: Predictions.from_logits(
            keys=[row["id"] for row in rows[part]],
            logits=logits[part],
            labels=labels[part].numpy().astype(np.int8),
            split=split,
            model_digest="m" * 64,
            manifest_digest="d" * 64,
        )
        for split, part in PARTS.items()
    }


@pytest.fixture(scope="module")
def report(predictions: dict[str, Predictions]) -> EvaluationReport:
    return evaluate(predictions["valid"], predictions["test"], EvaluationConfig(resamples=100))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_ranking_and_calibration(
    predictions: dict[str, Predictions], report: EvaluationReport, split: str
) -> None:
    labels, raw = predictions[split].labels, predictions[split].probabilities
    probabilities = predictions[split].calibrated(report.calibration).probabilities
    result = report.valid if split == "valid" else report.test
    assert result is not None
    found = {name: estimate.value for name, estimate in result.measures.items()}
    assert 0.7 < (found["auroc"] or 0) < 1, "the network learnt nothing, so the comparison would show little"
    assert found["auroc"] == pytest.approx(metrics.roc_auc_score(labels, raw), abs=1e-6)
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(labels, raw), abs=1e-6)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(labels, probabilities), abs=1e-6)
    fpr, tpr, _ = metrics.roc_curve(labels, raw, drop_intermediate=False)
    for target in (1.0, 0.99, 0.95):
        expected = 1 - fpr[np.argmax(tpr >= target)]
        assert found[f"specificity_at_sensitivity_{target:g}"] == pytest.approx(expected, abs=1e-6)
    bins = [b for b in result.reliability if b.patches]
    observed, stated = calibration.calibration_curve(
        labels, probabilities, n_bins=report.config.reliability_bins
    )
    np.testing.assert_allclose([b.positive_share for b in bins], observed, atol=1e-6)
    np.testing.assert_allclose([b.mean_probability for b in bins], stated, atol=1e-6)
    weights = np.array([b.patches for b in bins]) / len(labels)
    assert found["ece"] == pytest.approx(float(weights @ np.abs(observed - stated)), abs=1e-6)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_every_operating_point(
    predictions: dict[str, Predictions], report: EvaluationReport, split: str
) -> None:
    labels = predictions[split].labels
    probabilities = predictions[split].calibrated(report.calibration).probabilities
    result = report.valid if split == "valid" else report.test
    assert result is not None
    for point in report.operating_points:
        verdicts = (probabilities >= point.threshold).astype(int)
        expected = {
            "accuracy": metrics.accuracy_score(labels, verdicts),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, verdicts),
            "f1": metrics.f1_score(labels, verdicts),
            "cohens_kappa": metrics.cohen_kappa_score(labels, verdicts),
            "mcc": metrics.matthews_corrcoef(labels, verdicts),
            "sensitivity": metrics.recall_score(labels, verdicts),
            "specificity": metrics.recall_score(labels, verdicts, pos_label=0),
            "ppv": metrics.precision_score(labels, verdicts),
            "npv": metrics.precision_score(labels, verdicts, pos_label=0),
        }
        found = result.points[point.name].measures
        assert set(expected) <= set(found)
        for name, value in expected.items():
            assert found[name].value == pytest.approx(value, abs=1e-6), f"{name} at {point.name}"
