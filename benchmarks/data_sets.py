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
    """``count`` patches: real ones (Kaggle's layout in ``data``) or synthetic, each in eight symmetries."""
    distinct = -(-count // 8)
    files = sorted((data / "train").glob("*.tif"))[:distinct] if data is not None else []
    if files:
        base = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
    else:
        config = SyntheticConfig(patches=distinct)
        base = np.stack([patch.pixels for patch in synthetic_patches(config, range(distinct))])
    turned = [np.rot90(side, turns, axes=(1, 2)) for turns in range(4) for side in (base, base[:, :, ::-1])]
    pixels = np.ascontiguousarray(np.concatenate(turned)[:count])
    labels = np.arange(len(pixels)) % 2
    return Patches(pixels, labels, f"{len(base)} {'real' if files else 'synthetic'} patches in 8 symmetries")


def write_shards(patches: Patches, folder: Path, encoding: Encoding, quality: int | None = None) -> Manifest:
    """Our shards; ``quality`` re-encodes JPEG members at another quality than ours."""
    records: list[ShardRecord] = []
    for number, start in enumerate(range(0, len(patches.labels_N), SHARD_SAMPLES)):
        pixels = patches.pixels_NHWC[start : start + SHARD_SAMPLES]
        samples = [
            ShardSample(
                hashlib.sha1(p.tobytes()).hexdigest(), int(label), json.dumps({"slide": None}).encode()
            )
            for p, label in zip(pixels, patches.labels_N[start : start + SHARD_SAMPLES], strict=True)
        ]
        name = f"shards/bench-{encoding.value}-{number:06d}.tar"
        buffer, record = build_shard(name, Split.TRAIN, encoding, samples, pixels)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.tobytes())
        records.append(record)
    count = len(patches.labels_N)
    summary = SplitSummary(samples=count, class_counts=(0, 0), slides=None, origin="source")
    manifest = Manifest(
        dataset="bench",
        source="synthetic",
        slides_known=False,
        split_seed=0,
        splits={Split.TRAIN: summary},
        dropped=Dropped(),
        shards=tuple(records),
    )
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    return manifest


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


def write_files(patches: Patches, folder: Path) -> list[Path]:
    """One JPEG file a patch, in class folders."""
    paths = []
    for i, (pixels, label) in enumerate(zip(patches.pixels_NHWC, patches.labels_N.tolist(), strict=True)):
        path = folder / str(label) / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(pixels))
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
