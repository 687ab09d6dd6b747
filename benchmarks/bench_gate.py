"""The quality gate: how often it flags real patches wrongly, how often bad ones rightly, and what it costs.

Limits of stain come from PCam's training patches, as ``promote`` takes them; flags are counted on PCam's validation
patches and on Kaggle's. Times are CPU time of the calling thread, gate and JPEG decoding of the same patches in turns.
``python benchmarks/bench_gate.py [--data FOLDER]`` writes ``benchmarks/out/gate.json``; it needs the real patches.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from sentinode.bundle.card import Card, OperatingPoint, Provenance
from sentinode.bundle.stain import StainStatistics
from sentinode.serving.quality import Flag, QualityGate

OUT = Path(__file__).resolve().parent / "out"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TRAIN_PATCHES, ROUNDS, BATCH = 4096, 60, 64
BLUR_PX = (0.7, 1.0, 1.5, 2.0, 4.0)
HIGHEST_LIMIT = 10_000
Images = NDArray[np.uint8]


def pcam(folder: Path, split: str, count: int) -> Images:
    with (folder / "pcam_jpeg" / "labels.csv").open() as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == split]
    picks = np.random.default_rng(0).permutation(len(names))[:count]
    bodies = [(folder / "pcam_jpeg" / names[pick]).read_bytes() for pick in picks]
    return np.stack([simplejpeg.decode_jpeg(body, "RGB") for body in bodies])


def kaggle(folder: Path) -> Images:
    return np.stack(
        [np.asarray(Image.open(f).convert("RGB")) for f in sorted((folder / "kaggle/train").glob("*.tif"))]
    )


def centres(folder: Path) -> dict[str, Images]:
    """Patches at about 1 um/px cut from the tiles of Camelyon17's five hospitals."""
    cut = {}
    for path in sorted((folder / "camelyon17_tiles").glob("*.jp*g")):
        tile = Image.open(path).convert("RGB").reduce(4)
        boxes = [
            (x, y, x + 96, y + 96)
            for y in range(0, tile.height - 95, 96)
            for x in range(0, tile.width - 95, 96)
        ]
        cut["Camelyon17 " + " ".join(path.stem.split("_")[:2])] = np.stack(
            [np.asarray(tile.crop(b)) for b in boxes]
        )
    return cut


def spoilt(images: Images) -> dict[str, Images]:
    """Bad patches made from good ones."""
    exact = images.astype(np.float32)
    blurred = {
        f"blurred, sigma {s} px": ndimage.gaussian_filter(exact, (0, s, s, 0)).round().astype(np.uint8)
        for s in BLUR_PX
    }
    return {
        **blurred,
        "grey": np.repeat(images.mean(3, keepdims=True), 3, 3).astype(np.uint8),
        "red and green swapped": np.ascontiguousarray(images[..., [1, 0, 2]]),
        "red and blue swapped": np.ascontiguousarray(images[..., ::-1]),
        "yellow light": np.clip(images * np.array([1.1, 1, 0.7]), 0, 255).astype(np.uint8),
        "half as bright": images // 2,
        "glass": np.full_like(images[:50], 244),
    }  # fmt: skip


def shares(gate: QualityGate, images: Images) -> dict[str, float]:
    quality = gate.check(images)
    flags = [quality.flags(index) for index in range(len(images))]
    each = {
        flag.value: float(np.mean([flag in found for found in flags]))
        for flag in Flag
        if flag != Flag.WRONG_SCALE
    }
    return {"patches": len(images), "any": float(np.mean([bool(found) for found in flags])), **each}


def in_turns(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """CPU seconds of each call."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for call, taken in zip((first, second), times, strict=True):
            before = time.thread_time()
            call()
            taken.append(time.thread_time() - before)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SENTINODE_TEST_DATA", DATA)))
    folder = parser.parse_args().data
    if not (folder / "pcam_jpeg" / "labels.csv").is_file():
        print(f"skipped: no real patches in {folder} (SENTINODE_TEST_DATA)")
        return
    point = OperatingPoint(name="any", threshold=0.5, chosen_by="-", sensitivity=1, specificity=1)
    origin = Provenance(dataset="pcam", manifest_digest="0" * 64, run_name="-", run_url="-", code_commit="-")
    stain = StainStatistics.of(pcam(folder, "train", TRAIN_PATCHES))
    card = Card(
        name="gate", operating_points=(point,), default_operating_point="any", training=origin, licence="-",
        golden_computed_by="-", stain=stain,
    )  # fmt: skip
    gate, valid = QualityGate(card), pcam(folder, "valid", HIGHEST_LIMIT)
    sets = {"PCam valid": valid, "Kaggle": kaggle(folder), **centres(folder), **spoilt(valid[:500])}
    rows = {name: shares(gate, images) for name, images in sets.items()}
    for name, row in rows.items():
        print(f"{name:28}", "  ".join(f"{k} {v:.4g}" for k, v in row.items()))
    batch = np.ascontiguousarray(valid[:BATCH])
    jpegs = [simplejpeg.encode_jpeg(patch, 90, "RGB") for patch in batch]
    gate_s, decode_s = in_turns(
        lambda: gate.check(batch), lambda: [simplejpeg.decode_jpeg(body, "RGB") for body in jpegs]
    )
    ratio = np.quantile(np.array(gate_s) / np.array(decode_s), (0.5, 0.05, 0.95)).round(3).tolist()
    cost_us = float(np.median(gate_s)) / BATCH * 1e6
    print(f"gate: {cost_us:.1f} us of CPU a patch at batch {BATCH}; against JPEG decoding {ratio}")
    OUT.mkdir(exist_ok=True)
    record = {"limits": gate.limits.model_dump(), "stain_limit": gate.stain_limit, "flags": rows,
              "cost_us_per_patch": cost_us, "ratios": {"gate_vs_jpeg_decoding": ratio}}  # fmt: skip
    (OUT / "gate.json").write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
