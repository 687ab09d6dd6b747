"""Slides: dense against patch-by-patch scoring, whole slides an hour over one and two actors, memory.

Real tissue (five tiles of Camelyon17, laid out by ``slide_mosaic``), networks of our recipes with random weights, a
stride of 32 pixels. Without the tiles nothing is measured, and the file says so. ``make bench-slides`` writes
``benchmarks/out/slides.json`` and ``slides.png``; ``--large`` adds a slide of 100,000 x 200,000 pixels, for its memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import harness
from harness import cpu_ratio, interleave, ratio
from slide_cases import SlideCase, TileCase, Way, largest_difference, seal_recipe
from slide_mosaic import TILES, write_slide
from turns import Worker

from sentinode.distributed.cluster import ray_session
from sentinode.distributed.scoring import score_slides
from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.slides.listing import list_slides

HEADLINE = "p4m-densenet"
"""It sees the whole patch of 96 pixels; how much dense scoring saves depends on how much of a patch a network sees."""
RECIPES = (HEADLINE, "pcam-small", "valid-cnn-small")
PACKAGES = ("numpy", "onnxruntime", "openslide-python", "openslide-bin", "pillow", "ray", "tifffile", "torch")
SIDE_PX = 16_384
SLIDES = 4
LARGE = (100_000, 200_000)
LARGE_TISSUE = 0.003
"""Memory depends on the slide, not on how much of it is tissue; time does."""


def tiles(
    folder: Path, rounds: int, seconds: float, extra: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Cells a second, one process on one core: dense, patches cut from tiles, and patches read one by one."""
    registry, slide = str(folder / "registry"), str(folder / "slides" / "mosaic_0.tif")
    rows: list[Any] = []
    ratios: dict[str, Any] = {}
    for recipe in RECIPES:
        digest = seal_recipe(registry, folder / "parts", recipe)
        ways: tuple[Way, ...] = ("dense", "patches")
        if recipe == "pcam-small":
            ways += ("single reads", "reading alone")
        cases = {
            f"{recipe}, {way}": TileCase(registry, digest, slide, way, str(folder / "bundles"))
            for way in ways
        }
        dense, patches, *more = cases
        extra["largest_difference"][recipe] = largest_difference(cases[dense], cases[patches])
        measures, _ = interleave(cases, rounds=rounds, seconds=seconds, unit="cells/s", core=0)
        rows += [measure.row(name) for name, measure in measures.items()]
        key = "dense_vs_patchwise" if recipe == HEADLINE else f"dense_vs_patchwise_{recipe}"
        ratios[key] = ratio(measures[dense], measures[patches])
        ratios[f"{key}_by_cpu"] = cpu_ratio(measures[dense], measures[patches])
        if more:
            ratios[f"dense_vs_single_reads_{recipe}"] = ratio(measures[dense], measures[more[0]])
    return rows, ratios


def slides(folder: Path, digest: str, rounds: int) -> tuple[list[Any], dict[str, Any]]:
    """Whole slides an hour over Ray: SLIDES slides over one actor and over two, by turns, once the actors are ready."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    files = list_slides(str(folder / "slides"))
    with ray_session("local", num_cpus=2):
        for turn in range(rounds):
            for actors in rates:
                told: list[float] = []

                def tell(*_: object, told: list[float] = told, **__: object) -> None:
                    told.append(time.perf_counter())

                found = score_slides(
                    files,
                    str(folder / "registry"),
                    digest,
                    str(folder / f"out-{actors}-{turn}"),
                    ScoringSettings(),
                    Compute(actors=actors),
                    tell,
                )
                took_s = told[-1] - told[0]
                failed = [record.reason for record in found if record.status == "failed"]
                if failed:
                    raise SystemExit(f"a slide failed: {failed[0]}")
                rates[actors].append(len(found) / took_s * 3600)
    rows = []
    for actors, found_rates in rates.items():
        measure = harness.Measure("slides/h", rates=found_rates)
        rows.append(measure.row(f"{SIDE_PX:,} x {SIDE_PX:,} px, pcam-small, {actors} actors"))
    return rows, {"two_actors_vs_one": [b / a for a, b in zip(rates[1], rates[2], strict=True)]}


def large(folder: Path, digest: str) -> dict[str, Any]:
    """Memory and time of one slide of 100,000 x 200,000 pixels, little of it tissue, from opening to the last file."""
    path = folder / "large.tif"
    share = write_slide(path, *LARGE, tissue=LARGE_TISSUE)
    case = SlideCase(str(folder / "registry"), digest, str(path), str(folder / "out-large"))
    worker = Worker(case, None)
    try:
        turn = worker.run(0.0)
    finally:
        worker.close()
    return {
        "pixels": list(LARGE),
        "tissue_share": round(share, 3),
        "file_mib": round(path.stat().st_size / 2**20),
        "rss_mib": round(turn.rss_mib or 0),
        "seconds": round(turn.wall_s, 1),
        "phases": json.loads(Path(case.out, "phases.json").read_text()),
    }


def main() -> int:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", choices=("tiles", "slides", "large"), help="one part; nothing is kept")
    asked = parser.parse_args()
    if not TILES.is_dir():
        row = {"name": "slides", "skipped": f"no tissue: {TILES.name} is not there"}
        harness.write("slides", [row], {}, PACKAGES)
        print(f"skipped: {row['skipped']}")
        return 0
    extra: dict[str, Any] = {"headline": HEADLINE, "largest_difference": {}}
    rows: list[Any] = []
    ratios: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-slides-") as name:
        folder = Path(name)
        digest = seal_recipe(str(folder / "registry"), folder / "parts", "pcam-small")
        if asked.only != "large":
            (folder / "slides").mkdir()
            for number in range(SLIDES):
                write_slide(folder / "slides" / f"mosaic_{number}.tif", SIDE_PX, SIDE_PX, seed=number)
        if asked.only in (None, "tiles"):
            found = tiles(folder, asked.rounds, asked.seconds, extra)
            rows, ratios = rows + found[0], ratios | found[1]
        if asked.only in (None, "slides"):
            found = slides(folder, digest, max(2, asked.rounds // 2))
            rows, ratios = rows + found[0], ratios | found[1]
        if asked.large or asked.only == "large":
            extra["large"] = large(folder, digest)
    if asked.only is None:
        harness.write("slides", rows, ratios, PACKAGES, **extra)
        harness.plot("slides", rows, "cells of 31 um scored a second, one core", "cells/s")
    harness.show(rows, ratios)
    print(json.dumps(extra, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
