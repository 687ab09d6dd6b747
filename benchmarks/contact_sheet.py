"""A contact sheet: synthetic patches beside real ones, so that eyes can judge the synthetic tissue.

    PYTHONPATH=platform python benchmarks/contact_sheet.py --data ../shared/data/kaggle

Rows, from the top: synthetic and real negatives by turns, then synthetic and real positives by turns.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sentinode.data.synthetic import SyntheticConfig, synthetic_patches
from sentinode.schema import PATCH_PX

_GAP_PX = 3
_MARGIN_PX = 18
_Pixels = NDArray[np.uint8]


def real_patches(folder: Path, label: int, count: int, seed: int) -> list[_Pixels]:
    """``count`` random patches of ``label`` from Kaggle's layout or a folder with ``labels.csv`` (file,label)."""
    kaggle = folder / "train_labels.csv"
    with (kaggle if kaggle.exists() else folder / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["label"]) == label]
    chosen = np.random.default_rng(seed).choice(len(rows), count, replace=False)
    paths = [
        folder / (rows[i]["file"] if "file" in rows[i] else f"train/{rows[i]['id']}.tif") for i in chosen
    ]
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def made_patches(config: SyntheticConfig, label: int, count: int) -> list[_Pixels]:
    """The first ``count`` synthetic patches of ``label``."""
    found: list[_Pixels] = []
    for patch in synthetic_patches(config, range(config.patches)):
        if patch.label == label:
            found.append(patch.pixels)
        if len(found) == count:
            break
    return found


def contact_sheet(rows: Iterable[tuple[str, list[_Pixels]]], zoom: int) -> Image.Image:
    """One line of patches for each (title, patches), titles along the left edge."""
    lines = list(rows)
    pitch = PATCH_PX * zoom + _GAP_PX
    sheet = Image.new("RGB", (_MARGIN_PX + pitch * len(lines[0][1]), pitch * len(lines)), "white")
    for i, (title, patches) in enumerate(lines):
        label = Image.new("RGB", (pitch, _MARGIN_PX), "white")
        ImageDraw.Draw(label).text((4, 3), title, fill="black")
        sheet.paste(label.rotate(90, expand=True), (0, i * pitch))
        for j, pixels in enumerate(patches):
            tile = Image.fromarray(pixels).resize(
                (PATCH_PX * zoom, PATCH_PX * zoom), Image.Resampling.BICUBIC
            )
            sheet.paste(tile, (_MARGIN_PX + j * pitch, i * pitch))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="real patches; without it the sheet is synthetic only")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/contact_sheet.png"))
    parser.add_argument("--columns", type=int, default=10)
    parser.add_argument("--rows", type=int, default=2, help="rows of each class and origin")
    parser.add_argument("--zoom", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--colours", type=int, default=256, help="palette of the PNG (small file); 0 keeps all"
    )
    args = parser.parse_args()
    count = args.columns * args.rows
    lines: list[tuple[str, list[_Pixels]]] = []
    for label, name in ((0, "negative"), (1, "tumour")):
        made = made_patches(SyntheticConfig(seed=args.seed), label, count)
        real = real_patches(args.data, label, count, args.seed) if args.data else []
        for start in range(0, count, args.columns):
            part = slice(start, start + args.columns)
            lines.append((f"synth. {name}", made[part]))
            if real:
                lines.append((f"real {name}", real[part]))
    sheet = contact_sheet(lines, args.zoom)
    if args.colours:
        sheet = sheet.quantize(args.colours, dither=Image.Dither.FLOYDSTEINBERG)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, optimize=True)
    print(args.out, f"{args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
