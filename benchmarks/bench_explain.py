"""What should hide a part of a patch? Fills compared by what they do to the centre of patches whose label is known.

The label of a PCam patch says whether its central 32x32 pixels hold tumour. Hiding them should lower the tumour logit
of tumour patches and leave that of negative ones about where it is; a fill that raises both is itself taken for tumour.
``python benchmarks/bench_explain.py --registry URL --bundle DIGEST [--data FOLDER]`` prints a table.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from scipy import ndimage

from sentinode.bundle.bundle import open_bundle
from sentinode.serving.engine import Engine
from sentinode.serving.explain import GLASS_GREY, WINDOW_PX
from sentinode.storage import open_store

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PATCHES = 400
Images = NDArray[np.uint8]


def patches(folder: Path) -> tuple[Images, NDArray[np.int64]]:
    with (folder / "pcam_jpeg" / "labels.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "valid"]
    rows = [rows[pick] for pick in np.random.default_rng(0).permutation(len(rows))[:PATCHES]]
    images = [
        simplejpeg.decode_jpeg((folder / "pcam_jpeg" / row["file"]).read_bytes(), "RGB") for row in rows
    ]
    return np.stack(images), np.array([int(row["label"]) for row in rows])


def fills(images: Images) -> dict[str, Images]:
    """By name: images whose centre replaces that of ``images``."""
    mean = images.reshape(len(images), -1, 3).mean(axis=1).astype(np.uint8)[:, None, None]
    return {
        "glass": np.full_like(images, GLASS_GREY),
        "mean colour": np.broadcast_to(mean, images.shape),
        "blurred, sigma 8 px": ndimage.gaussian_filter(images.astype(np.float32), (0, 8, 8, 0)).astype(
            np.uint8
        ),
        "the patch's own corner": np.roll(images, (48, 48), (1, 2)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SENTINODE_TEST_DATA", DATA)))
    parser.add_argument("--registry", default="")
    parser.add_argument("--bundle", default="")
    asked = parser.parse_args()
    if not asked.bundle or not (asked.data / "pcam_jpeg" / "labels.csv").is_file():
        print("skipped: needs --registry, --bundle and the real patches (SENTINODE_TEST_DATA)")
        return
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(open_bundle(open_store(asked.registry), asked.bundle, Path(folder)))
    images, labels = patches(asked.data)
    whole = engine.predict(images).logits_B
    centre = slice((images.shape[1] - WINDOW_PX) // 2, (images.shape[1] + WINDOW_PX) // 2)
    print(
        "fall of the tumour logit where the centre is hidden: tumour patches, negative ones, share of tumour above 0"
    )
    for name, fill in fills(images).items():
        hidden = images.copy()
        hidden[:, centre, centre] = fill[:, centre, centre]
        fall = whole - engine.predict(hidden).logits_B
        tumour, negative = fall[labels == 1], fall[labels == 0]
        print(f"{name:24} {tumour.mean():+.2f} {negative.mean():+.2f} {(tumour > 0).mean():.2f}")


if __name__ == "__main__":
    main()
