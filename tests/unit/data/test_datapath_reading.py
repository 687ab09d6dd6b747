"""Reading samples by id: mapped, by offset, decoded. All give the pixels that were written."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
import zlib
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from datapath_parts import KnownSet, make_manifest, make_set
from PIL import Image

from sentinode.data.cache import ShardCache
from sentinode.data.columns import read_columns, read_labels
from sentinode.data.foreign import foreign_manifest
from sentinode.data.manifest import Manifest
from sentinode.data.shard_set import ShardSet
from sentinode.errors import IntegrityError, ManifestError
from sentinode.schema import Encoding, Split
from sentinode.storage import Store, open_store


def read_all(
    manifest: Manifest, store: Store, ids: np.ndarray, *, mapped: bool = True
) -> tuple[np.ndarray, list[int]]:
    shards = ShardSet(
        manifest.of_split(manifest.shards[0].split),
        ShardCache(store),
        threads=2,
        mapped_bytes=10**9 if mapped else 0,
    )
    images = torch.full((len(ids), 96, 96, 3), 7, dtype=torch.uint8)
    labels = torch.full((len(ids),), 7)
    with closing(shards):
        shards.read(ids, images, labels)
    return images.numpy(), labels.tolist()


def shuffled(known: KnownSet) -> np.ndarray:
    """All ids in random order, some of them twice."""
    rng = np.random.default_rng(1)
    count = len(known.keys)
    return np.concatenate([rng.permutation(count), rng.integers(0, count, 10)])


def rewrite(known: KnownSet, folder: Path, shard: int, content: bytes) -> Manifest:
    """The manifest after a shard's bytes were replaced, with the checksum of the new ones."""
    record = known.manifest.shards[shard]
    (folder / record.name).write_bytes(content)
    changed = record.model_copy(
        update={"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    )
    records = list(known.manifest.shards)
    records[shard] = changed
    return make_manifest(records)


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "by offset"])
@pytest.mark.parametrize("long_json", [(), (1,), (0, 2)], ids=["one stride", "two strides", "two strides b"])
@pytest.mark.parametrize("split", [Split.TRAIN, Split.UNLABELLED])
def test_npy_shards_give_the_pixels_and_labels_written(
    tmp_path: Path, mapped: bool, long_json: tuple[int, ...], split: Split
) -> None:
    known = make_set(tmp_path, (30, 1, 19), long_json=long_json, split=split)
    ids = shuffled(known)
    images, labels = read_all(known.manifest, known.store, ids, mapped=mapped)
    assert (images == known.pixels_NHWC[ids]).all()
    assert labels == known.labels_N[ids].tolist()


def test_webp_shards_are_lossless_and_jpeg_shards_close(tmp_path: Path) -> None:
    webp = make_set(tmp_path / "webp", (9, 6), encoding=Encoding.WEBP)
    ids = shuffled(webp)
    images, labels = read_all(webp.manifest, webp.store, ids)
    assert (images == webp.pixels_NHWC[ids]).all()
    assert labels == webp.labels_N[ids].tolist()

    jpeg = make_set(tmp_path / "jpeg", (9, 6), encoding=Encoding.JPEG)
    images, labels = read_all(jpeg.manifest, jpeg.store, ids)
    assert np.abs(images.astype(int) - jpeg.pixels_NHWC[ids]).mean() < 6
    assert labels == jpeg.labels_N[ids].tolist()


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("split", [Split.TRAIN, Split.UNLABELLED])
def test_columns_are_in_manifest_order(tmp_path: Path, encoding: Encoding, split: Split) -> None:
    known = make_set(tmp_path, (7, 5), encoding=encoding, split=split)
    columns = read_columns(known.manifest, known.store, split)
    assert columns.keys == known.keys
    assert columns.labels.tolist() == known.labels_N.tolist()
    assert columns.slides == known.slides
    assert columns.centres == [str(i % 3) for i in range(12)]
    assert columns.patients == [None] * 12
    labels = [read_labels(record, ShardCache(known.store)) for record in known.manifest.shards]
    assert np.concatenate(labels).tolist() == known.labels_N.tolist()


@pytest.mark.parametrize("mapped", [True, False])
def test_a_label_that_is_no_digit_is_an_error(tmp_path: Path, mapped: bool) -> None:
    known = make_set(tmp_path, (6, 6))
    layout = known.manifest.shards[1].layout
    assert layout is not None
    assert layout.label_offset_bytes is not None
    content = bytearray(known.store.get(known.manifest.shards[1].name))
    content[layout.label_offset_bytes + 2 * layout.stride_bytes] = ord("/")
    manifest = rewrite(known, tmp_path, 1, bytes(content))
    with pytest.raises(IntegrityError, match="train-000001"):
        read_all(manifest, known.store, np.arange(12), mapped=mapped)
    with pytest.raises(IntegrityError, match="train-000001"):
        read_columns(manifest, known.store, Split.TRAIN)


@pytest.mark.parametrize("mapped", [True, False])
def test_a_file_that_is_no_such_array_is_refused(tmp_path: Path, mapped: bool) -> None:
    known = make_set(tmp_path, (6,))
    manifest = rewrite(known, tmp_path, 0, bytes(known.manifest.shards[0].size_bytes))
    with pytest.raises(IntegrityError, match="npy first"):
        read_all(manifest, known.store, np.arange(6), mapped=mapped)


@pytest.mark.parametrize(
    "change",
    [
        {"pixels_offset_bytes": -1},
        {"label_offset_bytes": 10},
        {"stride_bytes": 10**6},
        {"stride_bytes": 28_000},
    ],
)
def test_a_layout_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    known = make_set(tmp_path, (6,))
    record = known.manifest.shards[0]
    assert record.layout is not None
    wrong = record.model_copy(update={"layout": record.layout.model_copy(update=change)})
    with pytest.raises(ManifestError, match="layout"):
        read_all(make_manifest([wrong]), known.store, np.arange(6))


@pytest.mark.parametrize("encoding", [Encoding.NPY, Encoding.JPEG])
def test_a_tar_cut_at_a_member_boundary_is_an_error(tmp_path: Path, encoding: Encoding) -> None:
    """Stock readers take the cut for the end of the tar and yield fewer samples."""
    known = make_set(tmp_path, (6,), encoding=encoding)
    record = known.manifest.shards[0]
    content = known.store.get(record.name)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        cut = tar.getmembers()[9].offset
    (tmp_path / record.name).write_bytes(content[:cut])
    with pytest.raises(IntegrityError, match=record.name):
        read_all(known.manifest, known.store, np.arange(6))
    with pytest.raises((IntegrityError, ManifestError)):
        read_all(rewrite(known, tmp_path, 0, content[:cut]), known.store, np.arange(6))


def test_a_tar_with_fewer_samples_than_the_manifest_says_is_an_error(tmp_path: Path) -> None:
    known = make_set(tmp_path / "a", (6,), encoding=Encoding.JPEG)
    fewer = make_set(tmp_path / "b", (5,), encoding=Encoding.JPEG)
    manifest = rewrite(known, tmp_path / "a", 0, fewer.store.get(fewer.manifest.shards[0].name))
    with pytest.raises(IntegrityError, match="holds 5 samples"):
        read_all(manifest, known.store, np.arange(5))


@pytest.mark.parametrize("suffix", ["npy", "png", "jpg", "webp"])
def test_shards_that_stock_webdataset_wrote_are_read(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10, 12, 12, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    with webdataset.ShardWriter(str(tmp_path / "w-%06d.tar"), maxcount=6, verbose=0) as sink:
        for i, patch in enumerate(pixels):
            # A key too long for a plain ustar name makes the writer fall back on extended headers.
            key = f"folder/{'k' * 120}{i}" if i == 3 else f"folder/{i:05d}"
            image = patch if suffix != "webp" else encoded(patch, "webp")
            sink.write({"json": {"slide": f"s{i}"}, "cls": i % 2, "__key__": key, suffix: image})
    store = open_store(str(tmp_path))
    manifest = foreign_manifest(store, ["w-000000.tar", "w-000001.tar"])
    assert [s.samples for s in manifest.shards] == [6, 4]
    ids = np.array([9, 3, 0, 5, 7])
    images, labels = read_all(manifest, store, ids)
    limit = 12 if suffix == "jpg" else 0
    assert np.abs(images.astype(int) - pixels[ids]).mean() <= limit
    assert labels == [1, 1, 0, 1, 1]
    columns = read_columns(manifest, store, Split.TRAIN)
    assert columns.keys[3] == f"folder/{'k' * 120}3"
    assert columns.slides == [f"s{i}" for i in range(10)]


def test_stock_webdataset_reads_our_shards(tmp_path: Path) -> None:
    known = make_set(tmp_path, (12,))
    url = str(tmp_path / known.manifest.shards[0].name)
    samples = list(webdataset.WebDataset(url, shardshuffle=False).decode())
    assert [s["__key__"] for s in samples] == known.keys
    assert all((s["npy"] == p).all() for s, p in zip(samples, known.pixels_NHWC, strict=True))
    assert [s["cls"] for s in samples] == known.labels_N.tolist()
    assert samples[3]["json"]["slide"] == "slide-3"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jpg", b"no image"),
        ("a.png", b""),
        ("a.npy", b"\x93NUMPY\x01"),
        ("a.npy", "object array"),
        ("a.jpg", "95x96"),
        ("a.png", "95x96"),
    ],
)
def test_a_member_that_is_no_patch_is_named(tmp_path: Path, name: str, data: bytes | str) -> None:
    if data == "95x96":
        data = encoded(np.zeros((96, 95, 3), np.uint8), {"jpg": "jpeg", "png": "png"}[name[2:]])
    if data == "object array":
        out = io.BytesIO()
        np.save(out, np.array([{"pickled": 1}], dtype=object), allow_pickle=True)
        data = out.getvalue()
    assert isinstance(data, bytes)
    with pytest.raises(IntegrityError, match=r"sample 0 \(\.\w+\) of shard x.tar cannot be decoded"):
        read_one(tmp_path, name, data)


def png_of_size(width: int, height: int) -> bytes:
    """The head of a PNG, and the first bytes of its pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head
    return start + struct.pack(">II", zlib.crc32(head), 100) + b"IDAT"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 96 96\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (EPS, "cannot identify"),
        (png_of_size(8000, 8000), "8000x8000 pixels"),
        (png_of_size(20_000, 9500), "190000000 pixels"),
    ],
)
def test_neither_ghostscript_nor_a_bomb_is_started(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError, match=f"cannot be decoded: .*{reason}"):
        read_one(tmp_path, "a.png", data)


def read_one(folder: Path, name: str, data: bytes) -> None:
    """Read the one sample of a foreign shard, its image ``data``."""
    with tarfile.open(folder / "x.tar", "w") as tar:
        for member, content in ((name, data), ("a.cls", b"1")):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    store = open_store(str(folder))
    read_all(foreign_manifest(store, ["x.tar"]), store, np.array([0]))


def encoded(patch: np.ndarray, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(patch).save(out, kind, lossless=True)
    return out.getvalue()
