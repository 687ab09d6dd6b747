"""Evidence: do intervals and guarantees hold what they say, and how long do 10,000 resamples take?

Scores are drawn from normal distributions whose AUROC and sensitivities are known, with and without an
effect that the patches of a slide share. Coverage is the share of draws whose interval holds the truth.
``make bench-evidence`` writes ``benchmarks/out/evidence.json`` and ``evidence.png``.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import time
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from sentinode.evaluation import metrics
from sentinode.evaluation.delong import delong
from sentinode.evaluation.guarantee import GuaranteeKind, binomial_cdf, guaranteed_threshold
from sentinode.evaluation.intervals import bootstrap, clopper_pearson, percentile_interval
from sentinode.evaluation.metrics import FloatArray, IntArray, RankedScores
from sentinode.evaluation.predictions import Predictions
from sentinode.evaluation.records import EvaluationConfig
from sentinode.evaluation.report import evaluate

OUT = Path(__file__).resolve().parent / "out"
LEVEL = 0.95
SHIFT = 2.0
"""Between the mean scores of the classes, in standard deviations of a patch."""
SLIDE_SD = 0.7
"""Of what the patches of one slide share."""
PHI = NormalDist().cdf
DRAWS, BOOTSTRAP_DRAWS, RESAMPLES = 2000, 2000, 500

Draw = tuple[IntArray, FloatArray, IntArray]
"""Labels, scores and units, each [N]."""


def draw(rng: np.random.Generator, slides: int, patches: int, slide_sd: float) -> Draw:
    """Every other slide tumour, ``patches`` each."""
    units = np.repeat(np.arange(slides), patches)
    labels = (units % 2).astype(np.int64)
    shared = rng.normal(size=slides) * slide_sd
    return labels, rng.normal(size=len(units)) + SHIFT * labels + shared[units], units


def true_auroc(slide_sd: float) -> float:
    return PHI(SHIFT / math.sqrt(2 + 2 * slide_sd**2))


def sensitivity_of(threshold: float, slide_sd: float) -> float:
    return 1 - PHI((threshold - SHIFT) / math.sqrt(1 + slide_sd**2))


def coverage_of_delong(slides: int, patches: int, slide_sd: float, by_slide: bool) -> float:
    truth, hits = true_auroc(slide_sd), 0
    for seed in range(DRAWS):
        labels, scores, units = draw(np.random.default_rng(seed), slides, patches, slide_sd)
        interval = delong(labels, [scores], units if by_slide else None).interval(0, LEVEL)
        hits += interval is not None and interval[0] <= truth <= interval[1]
    return hits / DRAWS


def coverage_of_bootstrap(slides: int, patches: int, slide_sd: float) -> dict[str, float]:
    """Of AUROC and of the sensitivity at a fixed threshold."""
    truth = np.array([true_auroc(slide_sd), sensitivity_of(1.0, slide_sd)])
    hits = np.zeros(2)
    for seed in range(BOOTSTRAP_DRAWS):
        labels, scores, units = draw(np.random.default_rng(seed), slides, patches, slide_sd)
        ranked = RankedScores.of(labels, scores)

        def statistic(weights_N: IntArray, ranked: RankedScores = ranked) -> FloatArray:
            curve = ranked.curve(weights_N)
            return np.array([metrics.auroc(curve), metrics.sensitivity(curve.confusion(1.0))])

        replicates = bootstrap(statistic, units, slides, RESAMPLES, seed, threads=1)
        for i in range(2):
            interval = percentile_interval(replicates[:, i], LEVEL)
            hits[i] += interval is not None and interval[0] <= truth[i] <= interval[1]
    return {"auroc": hits[0] / BOOTSTRAP_DRAWS, "sensitivity": hits[1] / BOOTSTRAP_DRAWS}


def coverage_of_clopper_pearson(trials: int, share: float) -> float:
    """Not simulated: the sum over all outcomes."""
    counts = np.arange(trials + 1)
    held = [low <= share <= high for low, high in (clopper_pearson(int(k), trials, LEVEL) for k in counts)]
    below = np.array([0.0, *(binomial_cdf(int(k), trials, share) for k in counts)])
    return float(np.diff(below)[held].sum())


def guarantee(
    kind: GuaranteeKind, slides: int, patches: int, slide_sd: float, target: float
) -> dict[str, float]:
    """Mean sensitivity on new data, and the share of draws in which it reaches the target."""
    found = []
    for seed in range(DRAWS):
        labels, scores, units = draw(np.random.default_rng(seed), slides, patches, slide_sd)
        tumour = labels == 1
        threshold, _ = guaranteed_threshold(scores[tumour], units[tumour] // 2, target, kind, LEVEL)
        found.append(1.0 if threshold is None else sensitivity_of(threshold, slide_sd))
    return {
        "target": target,
        "mean_sensitivity": float(np.mean(found)),
        "reached": float(np.mean(np.array(found) >= target)),
    }


def seconds_of_resamples(patches: int, resamples: int) -> dict[str, float]:
    """A whole evaluation: all measures at three operating points, by patch and by slide."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, patches)
    out = {}
    for name, slides in (("by patch", None), ("by slide", [f"s{i % 50}" for i in range(patches)])):
        predictions = Predictions.from_logits(
            keys=[f"{i:06d}" for i in range(patches)], logits=rng.normal(size=patches) + SHIFT * labels,
            labels=labels, split="test", slides=slides, model_digest="", manifest_digest="",
        )  # fmt: skip
        config = EvaluationConfig(resamples=resamples, prevalence=0.01, points=("third=sensitivity:0.95",))
        wall, cpu = time.perf_counter(), time.process_time()
        evaluate(predictions, None, config)
        out[f"{name}, wall_s"] = time.perf_counter() - wall
        out[f"{name}, cpu_s"] = time.process_time() - cpu
    return out


def measure() -> dict[str, Any]:
    by_slide = coverage_of_bootstrap(120, 10, SLIDE_SD)
    by_patch = coverage_of_bootstrap(400, 1, 0.0)
    coverage = {
        "bootstrap over patches, AUROC": by_patch["auroc"],
        "bootstrap over patches, sensitivity": by_patch["sensitivity"],
        "bootstrap over slides, AUROC": by_slide["auroc"],
        "bootstrap over slides, sensitivity": by_slide["sensitivity"],
        "DeLong over patches": coverage_of_delong(400, 1, 0.0, by_slide=False),
        "DeLong over slides": coverage_of_delong(120, 10, SLIDE_SD, by_slide=True),
        "Clopper-Pearson (exact sum)": coverage_of_clopper_pearson(400, 0.9),
        "DeLong over patches, blind to slides": coverage_of_delong(120, 10, SLIDE_SD, by_slide=False),
    }
    guarantees = {
        "expectation, patches": guarantee("expectation", 800, 1, 0.0, 0.95),
        "expectation, slides": guarantee("expectation", 400, 5, SLIDE_SD, 0.9),
        "confidence, patches": guarantee("confidence", 800, 1, 0.0, 0.95),
        "confidence, slides": guarantee("confidence", 400, 5, SLIDE_SD, 0.9),
    }
    return {
        "machine": {"cores": len(os.sched_getaffinity(0)), "platform": platform.platform()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "nominal": LEVEL,
        "draws": {"analytic and guarantees": DRAWS, "bootstrap": BOOTSTRAP_DRAWS, "resamples": RESAMPLES},
        "coverage": coverage,
        "guarantees": guarantees,
        "seconds": seconds_of_resamples(32_768, 10_000),
    }


def plot(found: dict[str, Any], path: Path) -> None:
    """Coverage beside the nominal level."""
    import matplotlib

    matplotlib.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    coverage = found["coverage"] | {
        f"guarantee with confidence, {name.split(', ')[1]}": g["reached"]
        for name, g in found["guarantees"].items()
        if name.startswith("confidence")
    }
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    axes.axvspan(0.93, 0.97, color="#d8e6d8", label="93-97 %")
    axes.axvline(found["nominal"], color="#446644", linewidth=1)
    axes.plot(list(coverage.values()), list(coverage), "o", color="#224466")
    axes.invert_yaxis()
    axes.set_xlabel("share of draws that hold the truth (nominal 95 %)")
    axes.legend(loc="lower left")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    """Measure, keep and print."""
    OUT.mkdir(exist_ok=True)
    found = measure()
    text = json.dumps(found, indent=2)
    (OUT / "evidence.json").write_text(text + "\n")
    plot(found, OUT / "evidence.png")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
