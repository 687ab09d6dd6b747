"""How well a device is used in training: patches/s, the share of time spent waiting, model FLOPs utilisation."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from harness import Measure
from torch.utils.flop_counter import FlopCounterMode
from train_cases import open_learner
from train_ranks import Layout, Place

from sentinode.models.families import build_model, input_px
from sentinode.training.config import Recipe
from sentinode.training.optim import use_bf16
from sentinode.training.step import Timer

MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
PEAK_S = 2.0


def device_rows(
    recipes: dict[str, Recipe], data: Path, folder: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Rows of each recipe on the GPU where there is one, else on the CPU, one process.

    Utilisation is over the measured speed of a large matrix product in the same number format, not over what
    the maker claims.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, rows, peaks = device.type, [], {}
    for name, recipe in recipes.items():
        dtype = torch.bfloat16 if use_bf16(recipe.train, device) else torch.float32
        if dtype not in peaks:
            peaks[dtype] = Measure("TFLOP/s", [matmul_tflops(device, dtype) for _ in range(rounds)])
            rows.append(peaks[dtype].row(f"{kind}: {str(dtype).removeprefix('torch.')} matmul peak"))
        rate, wait = train_for(recipe, data, folder / f"device-{name}", device, rounds, seconds)
        flops, peak = step_flops_per_patch(recipe), 1e12 * peaks[dtype].median
        used = Measure("share", [patches_per_s * flops / peak for patches_per_s in rate.rates])
        rows.append(rate.row(f"{kind}: {name}, images"))
        rows.append(wait.row(f"{kind}: {name}, waiting for data"))
        rows.append(used.row(f"{kind}: {name}, model FLOPs utilisation"))
    return rows


def train_for(
    recipe: Recipe, data: Path, run: Path, device: torch.device, rounds: int, seconds: float
) -> tuple[Measure, Measure]:
    """Images/s and wait fraction of so many stretches of training; one before is not counted."""
    rate, wait = Measure("images/s"), Measure("share")
    place = Place(0, Layout(1, torch.get_num_threads()))
    with open_learner(recipe, data, run, place, device) as learner:
        learner.stepper.net.train()
        waits, epoch, step = Timer(), 0, 0
        batches = waits.over(iter(learner.feeds.train(epoch, 0)))
        for number in range(rounds + 1):
            began, waited_s, done = time.perf_counter(), waits.total_s, 0
            while time.perf_counter() - began < seconds:
                batch = next(batches, None)
                if batch is None:
                    epoch, step = epoch + 1, 0
                    batches = waits.over(iter(learner.feeds.train(epoch, 0)))
                    continue
                learner.stepper.run(
                    batch, recipe.train.lr, epoch, step
                )  # waits for the device: reads its loss
                step, done = step + 1, done + recipe.train.batch_size
            took_s = time.perf_counter() - began
            if number:
                rate.rates.append(done / took_s)
                wait.rates.append((waits.total_s - waited_s) / took_s)
        batches.close()
    return rate, wait


def step_flops_per_patch(recipe: Recipe) -> float:
    """Of forward and backward pass of the network: convolutions, matrix products, attention; a multiply-add is two."""
    net, size = build_model(recipe.model).train(), 8
    px = input_px(recipe.model)
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(size, 3, px, px)).sum().backward()
    return counter.get_total_flops() / size


def matmul_tflops(device: torch.device, dtype: torch.dtype) -> float:
    """The speed of a large square matrix product, the best of those within PEAK_S."""
    side = MATMUL_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best_s, until = float("inf"), time.perf_counter() + PEAK_S
    for _ in islice(iter(lambda: time.perf_counter() < until, False), 1000):
        began = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - began)
    return 2 * side**3 / best_s / 1e12
