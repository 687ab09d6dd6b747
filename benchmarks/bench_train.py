"""Training speed: whole epochs against the seed's way and the bare step, families against a plain loop, Ray's start.

    make bench-train        or        python benchmarks/bench_train.py --data ../shared/data/kaggle --rounds 5

Writes benchmarks/out/train.json and train.png. Ratios: epoch_vs_seed_way (an epoch of the seed CNN, two ranks
on two cores, against image files through a DataLoader and an eager loop), epoch_vs_bare_step (the same against
its own training step on uint8 tensors in memory), both also for one process; epoch_vs_bare_step_unaugmented
(against the step without augmentation); <family>_vs_plain for one process and two ranks. Rows of the device
(the GPU where there is one) tell images/s, wait fraction and model FLOPs utilisation. Whole epochs are measured in
steps of 256 patches, on both sides, and in the recipe's own of 64 (ratios ``..._steps_of_64``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import train_cases as cases
from data_sets import Patches, load_patches, write_files, write_splits
from harness import Case, Measure, cpu_ratio, interleave, plot, ratio, show, write
from train_cold import cold_starts
from train_device import device_rows
from train_ranks import Layout, Loop, on_ranks

from sentinode.data.augment import AugmentConfig
from sentinode.models.families import TimmConfig
from sentinode.recipes import p4m_densenet, resnet18, seed_cnn, valid_cnn_small
from sentinode.training.config import Recipe

PACKAGES = ["torch", "ray", "numpy", "pillow", "timm"]
PARTS = ("epoch", "families", "ray", "device")
ONE, TWO = Layout(ranks=1, threads=2), Layout(ranks=2, threads=1)
SEED_WAY = Layout(ranks=1, threads=1)
"""One computing thread, not PyTorch's two: the seed's way waits for its readers, which the other core serves."""
SPREAD = {"1 process": ONE, "2 ranks": TWO}
SUFFIX = {"1 process": "_one_process", "2 ranks": ""}
"""Of a ratio's name."""
VALID_PATCHES = 256
FAMILY_PATCHES = 2048
STEP_PATCHES = (256, 64)
"""Batch sizes over all ranks of the whole epochs; the first gives the ratios their plain names."""
UNCHANGED = AugmentConfig(dihedral=False, shift_px=0, brightness=0, contrast=0, hed=0)

Spread = dict[str, Layout]
Result = tuple[list[dict[str, Any]], dict[str, list[float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="Kaggle's layout or image folders; default: synthetic")
    parser.add_argument("--patches", type=int, default=10_000, help="of an epoch of the seed CNN")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case of the families in a round")
    parser.add_argument("--steps-of", nargs="+", type=int, default=STEP_PATCHES, help="of whole epochs")
    parser.add_argument("--spread", nargs="+", choices=SPREAD, default=tuple(SPREAD))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sentinode-bench-train-"))
    os.environ["SENTINODE_CACHE"] = str(folder / "cache")
    spread = {where: SPREAD[where] for where in options.spread}
    rows: list[dict[str, Any]] = []
    ratios: dict[str, list[float]] = {}
    try:
        train = load_patches(options.patches, options.data)
        valid, few = _first(train, VALID_PATCHES), _first(train, FAMILY_PATCHES)
        write_splits(train, valid, folder / "data")
        write_splits(few, valid, folder / "few")
        write_splits(_first(train, 256), _first(train, 64), folder / "tiny")
        paths = write_files(train, folder / "files", "tif")
        if "epoch" in options.parts:
            for size in options.steps_of:
                _add(rows, ratios, whole_epochs(folder, paths, spread, options.rounds, size))
        if "families" in options.parts:
            for name, recipe in families().items():
                _add(
                    rows, ratios, family(name, recipe, folder, paths, spread, options.rounds, options.seconds)
                )
        if "ray" in options.parts:
            took = cold_starts(folder / "tiny", folder, max(options.rounds // 2, 1))
            names = {"plain": "plain loop", "ray": "Ray Train", "added": "Ray Train adds"}
            rows += [measure.row(f"tiny training, cold: {names[way]}") for way, measure in took.items()]
        if "device" in options.parts:
            rows += device_rows(families(), folder / "few", folder, options.rounds, options.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(rows, ratios)
    note = (
        f"{options.patches} patches an epoch: {train.origin}; 2 ranks have a thread each, 1 process has two"
    )
    print(write("train", rows, ratios, PACKAGES, note=note))
    if {"epoch", "families"} & set(options.parts):
        print(plot("train", rows, "Training, two cores", "patches/s"))


def families() -> dict[str, Recipe]:
    """A recipe of each, from random weights."""
    resnet = resnet18().model_copy(update={"model": TimmConfig(name="resnet18")})
    return {
        "seed-cnn": seed_cnn(),
        "p4m-densenet": p4m_densenet(),
        "valid-cnn": valid_cnn_small(),
        "resnet18": resnet,
    }


def whole_epochs(folder: Path, paths: list[Path], spread: Spread, rounds: int, batch_size: int) -> Result:
    """The seed CNN, an epoch at a turn, in steps of ``batch_size`` on all sides."""
    recipe, data = seed_cnn(), folder / "data"
    settings = recipe.train.model_copy(update={"epochs": 1000, "batch_size": batch_size})
    recipe = recipe.model_copy(update={"train": settings})
    plain = recipe.model_copy(update={"augment": UNCHANGED})
    no_readers = partial(cases.plain_epochs, recipe, paths, readers=0)
    work = {
        "seed's way: PIL, DataLoader, eager": _case(partial(cases.plain_epochs, recipe, paths), SEED_WAY),
        "seed's way, DataLoader without reader processes": _case(no_readers, ONE),
    }
    for where, layout in spread.items():
        run = folder / f"run-{where}-{batch_size}"
        work[f"epoch, {where}"] = _case(partial(cases.epochs, recipe, data, run), layout)
        work[f"bare step, {where}"] = _case(partial(cases.bare_steps, recipe, data, run), layout)
        unaugmented = _case(partial(cases.bare_steps, plain, data, run), layout)
        work[f"bare step without augmentation, {where}"] = unaugmented
    measures, _ = interleave(work, rounds=rounds, seconds=0.0)  # as long as an epoch takes
    steps = "" if batch_size == STEP_PATCHES[0] else f"_steps_of_{batch_size}"
    ratios = {}
    for where in spread:
        ratios |= _epoch_ratios(measures, where, SUFFIX[where] + steps)
    return [
        _row(f"seed-cnn {name}, steps of {batch_size}", found) for name, found in measures.items()
    ], ratios


def _epoch_ratios(measures: dict[str, Measure], where: str, suffix: str) -> dict[str, list[float]]:
    seed_way, as_it_comes = list(measures.values())[:2]
    epoch, bare = measures[f"epoch, {where}"], measures[f"bare step, {where}"]
    unaugmented = measures[f"bare step without augmentation, {where}"]
    return {
        f"epoch_vs_seed_way{suffix}": ratio(epoch, seed_way),
        f"epoch_vs_seed_way_as_it_comes{suffix}": ratio(epoch, as_it_comes),
        f"epoch_vs_seed_way{suffix}, per CPU second": cpu_ratio(epoch, seed_way),
        f"epoch_vs_bare_step{suffix}": ratio(epoch, bare),
        f"epoch_vs_bare_step{suffix}, per CPU second": cpu_ratio(epoch, bare),
        f"epoch_vs_bare_step_unaugmented{suffix}": ratio(epoch, unaugmented),
    }


def family(
    name: str, recipe: Recipe, folder: Path, paths: list[Path], spread: Spread, rounds: int, seconds: float
) -> Result:
    """Training steps of one family with their data, here and in a plain eager loop."""
    work, few = {}, paths[:FAMILY_PATCHES]
    for where, layout in spread.items():
        ours = partial(cases.steps, recipe, folder / "few", folder / f"run-{name}-{where}")
        work[f"{name} steps, {where}"] = _case(ours, layout)
        work[f"{name} plain eager loop, {where}"] = _case(partial(cases.plain_steps, recipe, few), layout)
    measures, _ = interleave(work, rounds=rounds, seconds=seconds)
    ratios = {
        f"{name}_vs_plain, {where}": ratio(
            measures[f"{name} steps, {where}"], measures[f"{name} plain eager loop, {where}"]
        )
        for where in spread
    }
    return [_row(case, measure) for case, measure in measures.items()], ratios


def _case(loop: Loop, layout: Layout) -> Case:
    return partial(on_ranks, loop, layout)


def _row(name: str, measure: Measure) -> dict[str, Any]:
    """Without memory, which the harness takes of one process of several."""
    return Measure(measure.unit, measure.rates, measure.cpu_rates).row(name)


def _first(patches: Patches, count: int) -> Patches:
    return Patches(patches.pixels_NHWC[:count], patches.labels_N[:count], patches.origin)


def _add(rows: list[dict[str, Any]], ratios: dict[str, list[float]], result: Result) -> None:
    rows += result[0]
    ratios |= result[1]


if __name__ == "__main__":
    main()
