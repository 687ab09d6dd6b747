"""Slides: dense against patch-by-patch scoring, whole slides an hour over one and two actors, memory.

Real tissue (five tiles of Camelyon17, laid out by ``slide_mosaic``), networks of our recipes with random weights, a
stride of 32 pixels. Without the tiles nothing is measured, and the file says so. ``make bench-slides`` writes
``benchmarks/out/slides.json`` and ``slides.png``; ``--large`` adds a slide of 100,000 x 200,000 pixels, for its memory.

``dense_vs_patchwise`` compares with the field's way, in which each patch is read from the slide by itself and scored
in batches; ``dense_vs_patchwise_from_memory`` with patches cut from tiles that were read once. All read the slide.
In pieces, on a machine that is quiet for minutes only: ``--inputs FOLDER --prepare``, then ``--inputs FOLDER --only``
each part; the file holds the latest of each.
"""

from __future__ import annotations

import argparse
import json
import os
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
PARTS = (*RECIPES, "slides", "large")
"""Tiles by each of the networks; whole slides over Ray; the memory of a large one."""
SIDE_PX = 16_384
SLIDES = 4
LARGE = (100_000, 200_000)
LARGE_TISSUE = 0.003
"""Memory depends on the slide, not on how much of it is tissue; time does."""


def tiles(
    folder: Path, recipe: str, rounds: int, seconds: float, extra: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Cells a second, one process on one core: dense, patches cut from tiles, and patches read one by one."""
    registry, slide = str(folder / "registry"), str(folder / "slides" / "mosaic_0.tif")
    digest = seal_recipe(registry, folder / "parts", recipe)
    ways: tuple[Way, ...] = ("dense", "patches", "single reads")
    if recipe == "pcam-small":
        ways += ("reading alone",)
    cases = {
        f"{recipe}, {way}": TileCase(registry, digest, slide, way, str(folder / "bundles")) for way in ways
    }
    dense, patches, single, *_ = cases
    extra[f"largest_difference_{recipe}"] = largest_difference(cases[dense], cases[patches])
    measures, _ = interleave(cases, rounds=rounds, seconds=seconds, unit="cells/s", core=0)
    end = "" if recipe == HEADLINE else f"_{recipe}"
    ratios: dict[str, Any] = {}
    for key, other in (("dense_vs_patchwise", single), ("dense_vs_patchwise_from_memory", patches)):
        ratios[f"{key}{end}"] = ratio(measures[dense], measures[other])
        ratios[f"{key}{end}_by_cpu"] = cpu_ratio(measures[dense], measures[other])
    return [measure.row(name) for name, measure in measures.items()], ratios


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
                    str(folder / f"out-{os.getpid()}-{actors}-{turn}"),
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
    share = large_slide(path)
    case = SlideCase(str(folder / "registry"), digest, str(path), str(folder / f"out-large-{os.getpid()}"))
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


def large_slide(path: Path) -> float:
    """Make it where it is not there; its share of tissue."""
    known = path.with_suffix(".json")
    if not known.exists():
        known.write_text(json.dumps(write_slide(path, *LARGE, tissue=LARGE_TISSUE)))
    return float(json.loads(known.read_text()))


def measure(part: str, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """One part: its rows, its ratios, and what else it found."""
    digest = seal_recipe(str(folder / "registry"), folder / "parts", "pcam-small")
    extra: dict[str, Any] = {}
    if part == "large":
        return {"rows": [], "ratios": {}, "extra": {"large": large(folder, digest)}}
    prepare_mosaics(folder)
    if part in RECIPES:
        rows, ratios = tiles(folder, part, rounds, seconds, extra)
    else:
        rows, ratios = slides(folder, digest, max(2, rounds // 2))
    return {"rows": rows, "ratios": ratios, "extra": extra}


def prepare_mosaics(folder: Path) -> None:
    """The slides of the parts ``tiles`` and ``slides``; those that are there are kept."""
    (folder / "slides").mkdir(exist_ok=True)
    for number in range(SLIDES):
        path = folder / "slides" / f"mosaic_{number}.tif"
        if not path.exists():
            write_slide(path.with_suffix(".part"), SIDE_PX, SIDE_PX, seed=number)
            path.with_suffix(".part").rename(path)


def keep(found: dict[str, Any]) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """Write the parts ``found``, beside the latest of the others; all rows, ratios and the rest."""
    harness.OUT.mkdir(exist_ok=True)
    latest = harness.OUT / "slides_parts.json"
    parts = json.loads(latest.read_text()) if latest.exists() else {}
    parts |= {
        name: part | {"load_average": harness.machine()["load_average"]} for name, part in found.items()
    }
    latest.write_text(json.dumps(parts, indent=2) + "\n")
    rows = [row for part in parts.values() for row in part["rows"]]
    ratios = {key: values for part in parts.values() for key, values in part["ratios"].items()}
    extra = {key: value for part in parts.values() for key, value in part["extra"].items()}
    loads = {name: part["load_average"] for name, part in parts.items()}
    harness.write("slides", rows, ratios, PACKAGES, headline=HEADLINE, load_averages=loads, **extra)
    if any(row["unit"] == "cells/s" for row in rows):
        harness.plot("slides", rows, "cells of 31 um scored a second, one core", "cells/s")
    return rows, ratios, extra


def main() -> int:
    """Measure, keep and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument(
        "--inputs", type=Path, help="folder that keeps slides and models; else a temporary one"
    )
    parser.add_argument(
        "--prepare", action="store_true", help="make what stands in --inputs, and measure nothing"
    )
    asked = parser.parse_args()
    if not TILES.is_dir():
        row = {"name": "slides", "skipped": f"no tissue: {TILES.name} is not there"}
        harness.write("slides", [row], {}, PACKAGES)
        print(f"skipped: {row['skipped']}")
        return 0
    wanted = [asked.only] if asked.only else [part for part in PARTS if part != "large" or asked.large]
    with tempfile.TemporaryDirectory(prefix="bench-slides-") as name:
        folder = asked.inputs or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if asked.prepare:
            prepare_mosaics(folder)
            large_slide(folder / "large.tif")
            return 0
        found = {part: measure(part, folder, asked.rounds, asked.seconds) for part in wanted}
    rows, ratios, extra = keep(found)
    harness.show(rows, ratios)
    print(json.dumps(extra, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
