"""Real patches for the search on two cores: all of the Kaggle sample and a part of PCam's, as folders of images.

    python benchmarks/search_patches.py $DATA patches
    sentinode ingest --source patches --dataset kaggle-pcam --test-fraction 0 --out data/kaggle-pcam

``$DATA`` holds ``kaggle/`` and ``pcam_jpeg/``. The train split is Kaggle's 2,400 patches and the first PCam patches of
each class; the valid split is PCam's own, whose slides none of the others come from.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections import Counter
from pathlib import Path

CLASSES = {"0": "normal", "1": "tumour"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pcam", type=int, default=2400, help="PCam patches in the train split")
    given = parser.parse_args()
    kaggle, pcam = given.data / "kaggle", given.data / "pcam_jpeg"
    taken: Counter[tuple[str, str]] = Counter()
    for row in rows(kaggle / "train_labels.csv"):
        put(kaggle / "train" / f"{row['id']}.tif", given.out, "train", row["label"])
    for row in rows(pcam / "labels.csv"):
        if row["split"] == "train" and taken["train", row["label"]] >= given.pcam // 2:
            continue
        taken[row["split"], row["label"]] += 1
        put(pcam / row["file"], given.out, row["split"], row["label"])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def put(source: Path, out: Path, split: str, label: str) -> None:
    folder = out / split / CLASSES[label]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, folder / f"{source.parent.parent.name}-{source.name}")


if __name__ == "__main__":
    main()
