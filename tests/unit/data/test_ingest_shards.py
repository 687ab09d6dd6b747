"""The shard format: stock readers read it, and it is the array that its layout promises."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from ingest_parts import Patches, noise_patches, sha1
from PIL import Image

from sentinode.data.manifest import ShardRecord
from sentinode.data.shards import Buffer, ShardSample, build_shard, ustar_header
from sentinode.schema import Encoding, Split

PATCHES = noise_patches(5)
SLIDES = ["s", "a slide with a long name " * 30, "ü", "", "t"]


def shard(
    encoding: Encoding = Encoding.NPY, split: Split = Split.TRAIN, patches: Patches = PATCHES
) -> tuple[Buffer, ShardRecord]:
    labelled = split is not Split.UNLABELLED
    samples = [
        ShardSample(sha1(p), i % 2 if labelled else None, json.dumps({"slide": s}).encode())
        for i, (p, s) in enumerate(zip(patches, SLIDES, strict=True))
    ]
    return build_shard(f"shards/set-00000000-{split}-000000.tar", split, encoding, samples, patches)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("split", [Split.TRAIN, Split.UNLABELLED])
def test_stock_tarfile_reads_it(encoding: Encoding, split: Split) -> None:
    buffer, record = shard(encoding, split)
    assert buffer.size % tarfile.RECORDSIZE == 0
    assert record.size_bytes == buffer.size
    assert record.sha256 == hashlib.sha256(buffer.tobytes()).hexdigest()
    assert record.class_counts == ((0, 0) if split is Split.UNLABELLED else (3, 2))
    suffixes = [encoding.value, *([] if split is Split.UNLABELLED else ["cls"]), "json"]
    with tarfile.open(fileobj=io.BytesIO(buffer.tobytes())) as tar:
        members = tar.getmembers()
        assert [m.name for m in members] == [f"{sha1(p)}.{s}" for p in PATCHES for s in suffixes]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname) for m in members} == {
            (0, 0, 0, 0o644, "", "")
        }
        for i, patch in enumerate(PATCHES):
            contents = [
                tar.extractfile(m).read() for m in members[i * len(suffixes) : (i + 1) * len(suffixes)]
            ]
            if encoding is Encoding.NPY:
                assert contents[0][:8] == b"\x93NUMPY\x01\x00"
                np.testing.assert_array_equal(np.load(io.BytesIO(contents[0]), allow_pickle=False), patch)
            elif encoding is Encoding.WEBP:
                np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(contents[0]))), patch)
            assert json.loads(contents[-1])["slide"] == SLIDES[i]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("encoding", list(Encoding))
def test_stock_webdataset_reads_it(tmp_path: Path, encoding: Encoding) -> None:
    buffer, _ = shard(encoding)
    buffer.tofile(tmp_path / "shard.tar")
    found = list(wds.WebDataset(str(tmp_path / "shard.tar"), shardshuffle=False).decode("rgb8"))
    assert [s["__key__"] for s in found] == [sha1(p) for p in PATCHES]
    assert [s["cls"] for s in found] == [0, 1, 0, 1, 0]
    if encoding is not Encoding.JPEG:
        np.testing.assert_array_equal(np.stack([s[encoding.value] for s in found]), PATCHES)
    assert found[2]["json"]["slide"] == "ü"


@pytest.mark.parametrize("split", [Split.TRAIN, Split.UNLABELLED])
def test_layout_is_a_strided_array(split: Split) -> None:
    buffer, record = shard(split=split)
    layout = record.layout
    assert layout is not None
    rows = buffer[: 5 * layout.stride_bytes].reshape(5, layout.stride_bytes)
    at = layout.pixels_offset_bytes
    np.testing.assert_array_equal(rows[:, at : at + 96 * 96 * 3].reshape(5, 96, 96, 3), PATCHES)
    if split is Split.UNLABELLED:
        assert layout.label_offset_bytes is None
    else:
        assert bytes(rows[:, layout.label_offset_bytes]) == b"01010"
    text = rows[2, layout.json_offset_bytes : layout.json_offset_bytes + layout.json_size_bytes]
    assert json.loads(bytes(text)) == {"slide": "ü"}
    assert not buffer[5 * layout.stride_bytes :].any()


def test_headers_are_those_of_tarfile() -> None:
    buffer, record = shard()
    assert record.layout is not None
    for i, patch in enumerate(PATCHES):
        start = i * record.layout.stride_bytes
        assert bytes(buffer[start : start + 512]) == ustar_header(f"{sha1(patch)}.npy", 128 + 27648)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_same_samples_same_bytes(encoding: Encoding) -> None:
    assert shard(encoding)[1] == shard(encoding)[1]


def test_encodings_of_varying_size_have_no_layout() -> None:
    assert shard(Encoding.WEBP)[1].layout is None
    assert shard(Encoding.JPEG)[1].layout is None
