"""The same patches in the formats that are compared."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from PIL import Image

from sentinode.data.manifest import MANIFEST_NAME, Dropped, Manifest, ShardRecord, SplitSummary
from sentinode.data.shards import ShardSample, build_shard
from sentinode.data.synthetic import SyntheticConfig, synthetic_patches
from sentinode.schema import Encoding, Split

Pixels = npt.NDArray[np.uint8]

JPEG_QUALITY = 75
SHARD_SAMPLES = 1000


@dataclass(frozen=True)
class Patches:
    """uint8 [N, 96, 96, 3] and labels [N], and where they come from."""

    pixels_NHWC: Pixels
    labels_N: npt.NDArray[np.int64]
    origin: str


def load_patches(count: int, data: Path | None) -> Patches:
    """``count`` patches: real ones (in ``data``: Kaggle's layout or image folders) or synthetic, in 8 symmetries."""
    distinct = -(-count // 8)
    found = sorted((data / "train").rglob("*.*")) if data is not None else []
    files = [path for path in found if path.suffix in (".tif", ".jpg", ".png")][:distinct]
    if files:
        base = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
    else:
        config = SyntheticConfig(patches=distinct)
        base = np.stack([patch.pixels for patch in synthetic_patches(config, range(distinct))])
    turned = [np.rot90(side, turns, axes=(1, 2)) for turns in range(4) for side in (base, base[:, :, ::-1])]
    pixels = np.ascontiguousarray(np.concatenate(turned)[:count])
    labels = np.arange(len(pixels)) % 2
    return Patches(pixels, labels, f"{len(base)} {'real' if files else 'synthetic'} patches in 8 symmetries")


def write_shards(patches: Patches, folder: Path, encoding: Encoding, split: Split = Split.TRAIN) -> Manifest:
    """Our shards."""
    records: list[ShardRecord] = []
    for number, start in enumerate(range(0, len(patches.labels_N), SHARD_SAMPLES)):
        pixels = patches.pixels_NHWC[start : start + SHARD_SAMPLES]
        samples = [
            ShardSample(
                hashlib.sha1(p.tobytes()).hexdigest(), int(label), json.dumps({"slide": None}).encode()
            )
            for p, label in zip(pixels, patches.labels_N[start : start + SHARD_SAMPLES], strict=True)
        ]
        name = f"shards/bench-{split.value}-{encoding.value}-{number:06d}.tar"
        buffer, record = build_shard(name, split, encoding, samples, pixels)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.tobytes())
        records.append(record)
    count = len(patches.labels_N)
    tumour = int(patches.labels_N.sum())
    summary = SplitSummary(samples=count, class_counts=(count - tumour, tumour), slides=None, origin="source")
    manifest = Manifest(
        dataset="bench",
        source="synthetic",
        slides_known=False,
        split_seed=0,
        splits={split: summary},
        dropped=Dropped(),
        shards=tuple(records),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    return manifest


def write_splits(train: Patches, valid: Patches, folder: Path) -> Manifest:
    """Our npy shards of a train and a valid split, under one manifest."""
    ours = [
        write_shards(patches, folder, Encoding.NPY, split)
        for patches, split in ((train, Split.TRAIN), (valid, Split.VALID))
    ]
    splits = {split: summary for manifest in ours for split, summary in manifest.splits.items()}
    shards = tuple(shard for manifest in ours for shard in manifest.shards)
    joined = ours[0].model_copy(update={"splits": splits, "shards": shards})
    (folder / MANIFEST_NAME).write_bytes(joined.to_json())
    return joined


def jpeg(pixels: Pixels) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "jpeg", quality=JPEG_QUALITY)
    return out.getvalue()


def write_stock_shards(patches: Patches, folder: Path, suffix: str) -> list[str]:
    """Shards as ``webdataset.ShardWriter`` writes them: ``jpg`` (quality 75) or ``npy``, and ``cls``."""
    import webdataset

    folder.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(folder / "w-%06d.tar"), maxcount=SHARD_SAMPLES, verbose=0) as sink:
        for i, (pixels, label) in enumerate(zip(patches.pixels_NHWC, patches.labels_N.tolist(), strict=True)):
            image = jpeg(pixels) if suffix == "jpg" else pixels
            sink.write({"__key__": f"{i:06d}", suffix: image, "cls": label})
    return sorted(path.name for path in folder.glob("*.tar"))


def write_files(patches: Patches, folder: Path, suffix: str = "jpg") -> list[Path]:
    """One file a patch, JPEG (``jpg``) or lossless as Kaggle's (``tif``), in class folders."""
    paths = []
    for i, (pixels, label) in enumerate(zip(patches.pixels_NHWC, patches.labels_N.tolist(), strict=True)):
        path = folder / str(label) / f"{i:06d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == "jpg":
            path.write_bytes(jpeg(pixels))
        else:
            Image.fromarray(pixels).save(path)
        paths.append(path)
    return paths


def write_hdf5(patches: Patches, folder: Path) -> Path:
    """PCam's layout, gzip and chunks as distributed."""
    path = folder / "camelyonpatch_level_2_split_train_x.h5"
    with h5py.File(path, "w") as file:
        chunks = (32, 96, 96, 3)
        file.create_dataset(
            "x", data=patches.pixels_NHWC, chunks=chunks, compression="gzip", compression_opts=4
        )
        file.create_dataset("y", data=patches.labels_N.reshape(-1, 1, 1, 1).astype(np.uint8))
    return path


def write_litdata(paths: list[Path], folder: Path) -> None:
    """JPEG files in litdata's chunks, as they are. Raises ImportError where it is not installed."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for i, path in enumerate(paths):
        writer.add_item(i, {"image": Image.open(path), "label": int(path.parent.name)})
    writer.done()
    writer.merge(1)


def write_mosaicml(paths: list[Path], folder: Path) -> None:
    """JPEG files in mosaicml-streaming's MDS, as they are. Raises ImportError where it is not installed."""
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"image": "jpeg", "label": "int"}) as writer:
        for path in paths:
            writer.write({"image": Image.open(path), "label": int(path.parent.name)})
