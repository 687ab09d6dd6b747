"""The data path: loader rates on one core side by side, and the first epoch from S3 against plain boto3.

    make bench-data        or        python benchmarks/bench_data.py --data ../shared/data/kaggle --rounds 7

Writes benchmarks/out/data.json and data.png. With ``--parts`` they are called data_parts.*.
Ratios: npy_vs_webdataset (cached npy shards against
webdataset's default pipeline on JPEG shards), npy_vs_webdataset_npy (both on npy members), npy_vs_memcpy,
jpeg_vs_webdataset (the same shards, written by webdataset), jpeg_q95_vs_webdataset (the same shards, our own
of quality 95), first_epoch_vs_boto3 (bytes/s of a first epoch,
download to last batch, against a plain parallel boto3 download of the same objects).
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import data_cases as cases
import numpy as np
from botocore.config import Config
from data_sets import (
    Patches,
    load_patches,
    write_files,
    write_hdf5,
    write_shards,
    write_stock_shards,
)
from harness import Case, Measure, interleave, plot, ratio, show, versions_of, write

from sentinode.data.augment import AugmentConfig
from sentinode.data.cache import ShardCache
from sentinode.data.foreign import foreign_manifest
from sentinode.data.loader import LoaderConfig, PatchLoader
from sentinode.data.manifest import Manifest
from sentinode.data.plan import ShuffleConfig, plan_training
from sentinode.schema import Encoding, Split
from sentinode.storage import Store, open_store
from sentinode.storage.embedded import EmbeddedStore

PACKAGES = ["torch", "numpy", "pillow", "simplejpeg", "webdataset", "h5py", "boto3"]
PEERS = Path(__file__).resolve().parent.parent / ".venv-peers" / "bin" / "python"
"""The environment of packages whose pins differ from ours (peers.txt); without it their rows say so."""
PEER_PACKAGES = ["numpy", "litdata", "mosaicml-streaming", "imagecodecs", "opencv-python-headless"]
DECODERS = ("simplejpeg", "imagecodecs", "opencv", "Pillow")
THREADS = 8
PARTS = ("loading", "first-epoch", "planning")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder in Kaggle's layout; default: synthetic patches")
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each case in each round")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sentinode-bench-data-"))
    try:
        patches = load_patches(options.patches, options.data)
        rows, ratios = list[dict[str, Any]](), dict[str, list[float]]()
        if "first-epoch" in options.parts:
            rows, ratios = first_epochs(patches, folder / "s3", 2 * options.rounds)
        if "loading" in options.parts:
            more_rows, more_ratios = loading(patches, folder, options.rounds, options.seconds)
            rows, ratios = [*more_rows, *rows], {**more_ratios, **ratios}
        if "planning" in options.parts:
            rows.append(planning())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(rows, ratios)
    note = f"one core, batches of {cases.BATCH} in random order, {options.patches} patches: {patches.origin}"
    peers = versions_of(PEERS, PEER_PACKAGES) if PEERS.exists() else {}
    name = "data" if set(options.parts) == set(PARTS) else "data_parts"
    print(write(name, rows, ratios, PACKAGES, note=note, peers=peers))
    if "loading" in options.parts:
        print(plot(name, rows, "Loading patches, one core", "patches/s"))


def loading(
    patches: Patches, folder: Path, rounds: int, seconds: float
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """Every reader by turns, all bound to one core."""
    core = max(os.sched_getaffinity(0))
    work = readers(patches, folder)
    theirs = [
        name for name in work if any(peer in name for peer in ("litdata", "mosaicml", "codecs", "opencv"))
    ]
    pythons = dict.fromkeys(theirs, PEERS) if PEERS.exists() else {}
    measures, skipped = interleave(work, rounds=rounds, seconds=seconds, core=core, pythons=pythons)
    npy, jpg = measures["sentinode, npy shards"], measures["sentinode, jpg shards of webdataset"]
    stock = measures["webdataset default, jpg (Pillow)"]
    ratios = {
        "npy_vs_webdataset": ratio(npy, stock),
        "npy_vs_webdataset_npy": ratio(npy, measures["webdataset default, npy"]),
        "npy_vs_memcpy": ratio(npy, measures["memory copy"]),
        "jpeg_vs_webdataset": ratio(jpg, stock),
        "jpeg_q95_vs_webdataset": ratio(
            measures["sentinode, jpeg shards (quality 95)"],
            measures["webdataset default, our jpeg shards (quality 95, Pillow)"],
        ),
    }
    return [*(m.row(name) for name, m in measures.items()), *skipped], ratios


def readers(patches: Patches, folder: Path) -> dict[str, Case]:
    """Write the patches in every format and name its reader; slow formats get a quarter of them."""
    few = Patches(patches.pixels_NHWC[::4], patches.labels_N[::4], patches.origin)
    one = LoaderConfig(read_threads=1)
    work: dict[str, Case] = {"memory copy": cases.memory_copy}
    for name, chosen, encoding, config in (
        ("npy shards", patches, Encoding.NPY, one),
        ("npy shards by offset", patches, Encoding.NPY, LoaderConfig(read_threads=1, mapped_bytes=0)),
        ("jpeg shards (quality 95)", few, Encoding.JPEG, one),
        ("webp shards", few, Encoding.WEBP, one),
    ):
        place = folder / encoding.value
        manifest = write_shards(chosen, place, encoding)
        store = open_store(str(place))
        work[f"sentinode, {name}"] = partial(cases.ours, manifest, store, folder / "cache", config)
        if encoding is Encoding.JPEG:
            names = [shard.name for shard in manifest.shards]
            work["webdataset default, our jpeg shards (quality 95, Pillow)"] = partial(
                cases.webdataset_default, place, names, "jpeg"
            )
    for suffix, name in (("jpg", "jpg (Pillow)"), ("npy", "npy")):
        place = folder / f"stock-{suffix}"
        keys = write_stock_shards(few, place, suffix)
        work[f"webdataset default, {name}"] = partial(cases.webdataset_default, place, keys, suffix)
    store = open_store(str(folder / "stock-jpg"))
    foreign = foreign_manifest(store, sorted(p.name for p in (folder / "stock-jpg").glob("*.tar")))
    work["sentinode, jpg shards of webdataset"] = partial(cases.ours, foreign, store, folder / "cache", one)
    paths = write_files(few, folder / "files")
    work["torch DataLoader, jpg files (Pillow)"] = partial(cases.image_files, paths)
    work["torch DataLoader, PCam HDF5 (gzip)"] = partial(cases.hdf5, write_hdf5(few, folder))
    work["litdata, jpeg (default)"] = partial(cases.litdata_jpeg, paths, folder / "litdata")
    work["mosaicml-streaming, jpeg (default)"] = partial(cases.mosaicml_jpeg, paths, folder / "mosaicml")
    for library in DECODERS:
        work[f"decoding alone, jpg, {library}"] = partial(cases.decoding, library, paths)
    work["augment, default strengths (CPU)"] = partial(cases.augmentation, AugmentConfig())
    return work


def first_epochs(
    patches: Patches, folder: Path, rounds: int
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """From nothing to the last batch, and boto3 alone for the same objects, by turns."""
    manifest = write_shards(patches, folder, Encoding.NPY)
    size_bytes = sum(shard.size_bytes for shard in manifest.shards)
    measures = {name: Measure("MB/s") for name in ("epoch", "download_file", "get_object")}
    with EmbeddedStore("bench") as server:
        os.environ.update(server.environment)
        store = open_store(f"{server.url}/set")
        for shard in manifest.shards:
            store.upload(folder / shard.name, shard.name)
        keys = [f"set/{shard.name}" for shard in manifest.shards]
        client = boto3.client("s3", config=Config(max_pool_connections=4 * THREADS))
        for number in range(rounds + 1):
            target = folder / f"round{number}"
            for name, work in (
                ("epoch", partial(first_epoch, manifest, store, target / "cache", 10 * size_bytes)),
                (
                    "download_file",
                    partial(boto3_download, client, server.bucket, keys, target / "file", True),
                ),
                (
                    "get_object",
                    partial(boto3_download, client, server.bucket, keys, target / "object", False),
                ),
            ):
                began = time.perf_counter()
                work()
                if number:
                    measures[name].rates.append(size_bytes / (time.perf_counter() - began) / 1e6)
            shutil.rmtree(target)
    epoch = measures.pop("epoch")
    rows = [epoch.row("first epoch from S3 (moto)")]
    rows += [m.row(f"boto3 {name}, {THREADS} threads (moto)") for name, m in measures.items()]
    ratios = {"first_epoch_vs_boto3": ratio(epoch, measures["download_file"])}
    return rows, {**ratios, "first_epoch_vs_get_object": ratio(epoch, measures["get_object"])}


def first_epoch(manifest: Manifest, store: Store, cache: Path, budget_bytes: int) -> None:
    """From an empty cache to the last batch."""
    with PatchLoader(
        manifest,
        store,
        Split.TRAIN,
        batch_size=cases.BATCH,
        training=True,
        cache=ShardCache(store, cache, budget_bytes),
    ) as loader:
        for _ in loader.epoch(0):
            pass


def boto3_download(client: Any, bucket: str, keys: list[str], folder: Path, managed: bool) -> None:
    """Plain boto3 in threads: its managed ``download_file``, or one ``get_object`` a key."""
    folder.mkdir(parents=True)

    def fetch(key: str) -> None:
        path = folder / key.replace("/", "-")
        if managed:
            client.download_file(bucket, key, str(path))
        else:
            path.write_bytes(client.get_object(Bucket=bucket, Key=key)["Body"].read())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(fetch, keys))


def planning() -> dict[str, Any]:
    """One rank's epoch of 100 million samples in 12,000 shards for 1,024 ranks."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for epoch in range(3):
        began = time.perf_counter()
        shuffle = ShuffleConfig(kind="block", lanes=1024)
        plan = plan_training(
            np.full(12_000, 8_334), digest="d", seed=0, epoch=epoch, batch_size=65_536, shuffle=shuffle
        )
        plan.ids(500, 1024)
        seconds.append(time.perf_counter() - began)
    row = Measure("s", seconds).row("plan: 100 M samples, 12,000 shards, 1,024 ranks")
    row["grew_mib"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return row


if __name__ == "__main__":
    main()
