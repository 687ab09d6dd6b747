"""Small source folders of every layout for the tests of ingest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Patches = NDArray[np.uint8]


def noise_patches(count: int, seed: int = 0) -> Patches:
    """Patches of noise, all different, uint8 [count, 96, 96, 3]."""
    return np.random.default_rng(seed).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)


def sha1(patch: Patches) -> str:
    return hashlib.sha1(patch.tobytes()).hexdigest()


def write_kaggle(folder: Path, patches: Patches, labels: Sequence[int], unlabelled: int = 0) -> list[str]:
    """Kaggle's layout; the last ``unlabelled`` patches go to test/. Returns all ids."""
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    ids = [sha1(patch) for patch in patches]
    labelled = len(ids) - unlabelled
    for i, (name, patch) in enumerate(zip(ids, patches, strict=True)):
        Image.fromarray(patch).save(folder / ("train" if i < labelled else "test") / f"{name}.tif")
    rows = [f"{name},{label}" for name, label in zip(ids[:labelled], labels, strict=False)]
    (folder / "train_labels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    return ids


def write_classes(
    folder: Path, patches: Patches, labels: Sequence[int], names: Sequence[str] = ("0", "1")
) -> list[Path]:
    """``<class>/<number>.png``; returns the paths."""
    paths = []
    for i, (patch, label) in enumerate(zip(patches, labels, strict=True)):
        path = folder / names[label] / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(patch).save(path)
        paths.append(path)
    return paths


def write_pcam(
    folder: Path,
    split: str,
    patches: Patches,
    labels: Sequence[int],
    slides: Sequence[str] = (),
    **options: object,
) -> None:
    """PCam's files of one split; ``options`` go to the creation of ``x`` (chunks, compression)."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"camelyonpatch_level_2_split_{split}"
    with h5py.File(f"{stem}_x.h5", "w") as file:
        file.create_dataset("x", data=patches, **options)
    with h5py.File(f"{stem}_y.h5", "w") as file:
        file["y"] = np.array(labels, np.uint8).reshape(-1, 1, 1, 1)
    if slides:
        head = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
        rows = [
            f"{i},0,0,{bool(x)},{bool(x)},{s}" for i, (x, s) in enumerate(zip(labels, slides, strict=True))
        ]
        Path(f"{stem}_meta.csv").write_text("\n".join([head, *rows]) + "\n")


WILDS_SLIDES = (
    ("004", "4", 0), ("009", "1", 0), ("020", "2", 1), ("042", "3", 2), ("060", "3", 3), ("080", "1", 4),
)  # fmt: skip
"""Patient, node and centre of some slides of WILDS."""


def write_wilds(folder: Path, patches: Patches) -> list[Path]:
    """WILDS camelyon17_v1.0 with RGBA patches of WILDS_SLIDES in turn, labels 0 and 1 slide by slide, every
    fifth in the split 1; returns the paths in the order of the table."""
    paths, rows = [], [",patient,node,x_coord,y_coord,tumor,slide,center,split"]
    for i, patch in enumerate(patches):
        slide = i % len(WILDS_SLIDES)
        patient, node, centre = WILDS_SLIDES[slide]
        x, y, tumour = 32 * i, 3072 + i, i // len(WILDS_SLIDES) % 2
        name = f"patient_{patient}_node_{node}"
        path = folder / "patches" / name / f"patch_{name}_x_{x}_y_{y}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(patch).convert("RGBA").save(path)
        paths.append(path)
        rows.append(f"{i},{patient},{node},{x},{y},{tumour},{slide},{centre},{int(i % 5 == 0)}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return paths
