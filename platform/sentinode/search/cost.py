"""What a network costs where it is served: measured, before any time goes into its training."""

from __future__ import annotations

import platform
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from sentinode.bundle.onnx_model import OnnxModel
from sentinode.models.export import export_onnx
from sentinode.models.families import build_model, count_parameters
from sentinode.models.preprocess import Detector, Preprocess
from sentinode.schema import PATCH_PX
from sentinode.search.records import Cost
from sentinode.training.config import Recipe

BATCH = 32
"""Patches of one call, as a busy endpoint batches them."""
CALLS = 5
"""At least; the fastest counts, which other work on the machine disturbs least."""
CPU_ALONE = ("CPUExecutionProvider",)
MEASURE_S = 0.5
"""At least so long."""


def machine_name() -> str:
    """The processor that costs are measured on, as far as it can be told."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def measure_cost(recipe: Recipe) -> Cost:
    """Inference time and size of the detector of ``recipe``, with first weights: they make no difference to either.

    The detector is exported to ONNX and run by ONNX Runtime with one thread, as an endpoint runs it. Raises
    ConfigError where it cannot be built or exported, and so could never be served.
    """
    with torch.random.fork_rng(devices=[]):
        net = build_model(recipe.model, pretrained=False)
    parameters = count_parameters(net)
    detector = Detector(Preprocess(recipe.preprocess), net, tta=recipe.tta)
    with tempfile.TemporaryDirectory(prefix="sentinode-cost-") as folder:
        path = Path(folder, "model.onnx")
        export_onnx(detector, path)
        model = OnnxModel(path, threads=1)
    rng = np.random.default_rng(0)
    images_BHWC = rng.integers(0, 256, (BATCH, PATCH_PX, PATCH_PX, 3), dtype=np.uint8)
    # On a CPU one thread does it all, so its own time tells what an idle core would need, also on a busy machine.
    clock = time.thread_time if model.providers == CPU_ALONE else time.perf_counter
    model.logits(images_BHWC)
    calls: list[float] = []
    while len(calls) < CALLS or sum(calls) < MEASURE_S:
        began = clock()
        model.logits(images_BHWC)
        calls.append(clock() - began)
    return Cost(latency_ms=1000 * min(calls) / BATCH, parameters=parameters)
