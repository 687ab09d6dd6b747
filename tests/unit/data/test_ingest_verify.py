"""Verification names each fault that a store or a disk can cause."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ingest_parts import noise_patches, sha1

from sentinode.data.ingest.verify import verify_manifest
from sentinode.data.manifest import Dropped, Manifest, ShardRecord, SplitSummary
from sentinode.data.shards import ShardSample, build_shard
from sentinode.errors import ManifestError, ObjectNotFoundError
from sentinode.schema import Encoding, Split

STRIDE = 30720


def write_set(
    folder: Path, encoding: Encoding = Encoding.NPY, same: tuple[str, ...] = (), overlap: bool = False
) -> Manifest:
    """Two splits of four samples each."""
    patches = noise_patches(8)
    if overlap:
        patches[4] = patches[0]
    shards: list[ShardRecord] = []
    (folder / "shards").mkdir(parents=True)
    for n, split in enumerate((Split.TRAIN, Split.TEST)):
        part = patches[4 * n : 4 * n + 4]
        named = {kind: "same" if kind in same else f"{kind}{n}" for kind in ("slide", "patient")}
        text = json.dumps(named).encode()
        samples = [ShardSample(sha1(p), i % 2, text) for i, p in enumerate(part)]
        buffer, record = build_shard(
            f"shards/set-00000000-{split}-000000.tar", split, encoding, samples, part
        )
        buffer.tofile(folder / record.name)
        shards.append(record)
    summary = SplitSummary(samples=4, class_counts=(2, 2), slides=1, origin="source")
    manifest = Manifest(
        dataset="set",
        source="folder",
        slides_known=True,
        split_seed=0,
        splits={Split.TRAIN: summary, Split.TEST: summary},
        dropped=Dropped(),
        shards=tuple(shards),
    )
    (folder / "manifest.json").write_bytes(manifest.to_json())
    return manifest


def faults(folder: Path) -> str:
    return "\n".join(map(str, verify_manifest(str(folder))))


@pytest.mark.parametrize("encoding", list(Encoding))
def test_whole_data_set_has_no_fault(tmp_path: Path, encoding: Encoding) -> None:
    write_set(tmp_path / "set", encoding)
    seen: list[tuple[str, int, int]] = []
    assert verify_manifest(str(tmp_path / "set" / "manifest.json"), lambda *a: seen.append(a)) == []
    assert seen[-1] == ("verify", 8, 8)


def test_missing_shard_and_missing_manifest(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    (tmp_path / "set" / manifest.shards[1].name).unlink()
    assert faults(tmp_path / "set") == f"{manifest.shards[1].name}: missing"
    (tmp_path / "set" / "manifest.json").write_text("{")
    with pytest.raises(ManifestError):
        verify_manifest(str(tmp_path / "set"))
    with pytest.raises(ObjectNotFoundError):
        verify_manifest(str(tmp_path / "none"))


def edit(data: bytearray, at: int, value: bytes) -> bytearray:
    data[at : at + len(value)] = value
    return data


DAMAGES: dict[str, tuple[Callable[[bytearray], bytes], str]] = {
    "empty": (lambda d: b"", "0 bytes"),
    "truncated in a member": (lambda d: d[: 2 * STRIDE + 5000], "cut short"),
    "truncated at a member boundary": (lambda d: d[: 2 * STRIDE], "2 samples, 4 in the manifest"),
    "no end mark": (lambda d: d[: 4 * STRIDE], "no end mark"),
    "a flipped pixel": (lambda d: edit(d, 700, bytes([d[700] ^ 1])), "have another SHA-1"),
    "a flipped label": (lambda d: edit(d, 29184, b"1"), "class counts (1, 3)"),
    "an impossible label": (lambda d: edit(d, 29184, b"7"), "expected 0 or 1"),
    "broken json": (lambda d: edit(d, 30208, b"["), "no JSON object"),
    "json without a slide": (lambda d: edit(d, 30208, b'{"slade"'), "no JSON object"),
    "broken header": (lambda d: edit(d, STRIDE + 10, b"zzzz"), "samples, 4 in the manifest"),
    "broken npy header": (lambda d: edit(d, 512 + 6, b"\x09"), "cannot be decoded"),
    "random bytes": (lambda d: np.random.default_rng(0).bytes(len(d)), "0 samples"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("recorded", [False, True], ids=["damaged later", "recorded as it is"])
def test_each_damage_is_named(tmp_path: Path, damage: str, recorded: bool) -> None:
    manifest = write_set(tmp_path / "set")
    record = manifest.shards[0]
    path = tmp_path / "set" / record.name
    change, expected = DAMAGES[damage]
    data = bytes(change(bytearray(path.read_bytes())))
    path.write_bytes(data)
    if recorded and data:  # size and checksum agree, so only the content can tell
        mended = record.model_copy(
            update={"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        )
        manifest = manifest.model_copy(update={"shards": (mended, manifest.shards[1])})
        (tmp_path / "set" / "manifest.json").write_bytes(manifest.to_json())
    found = faults(tmp_path / "set")
    assert expected in found
    assert ("SHA-256 is not" in found) == (not recorded or not data)
    assert all(line.startswith((record.name, "and")) for line in found.splitlines())


def rewrite(folder: Path, manifest: Manifest, **changes: object) -> None:
    record = manifest.shards[0].model_copy(update=changes)
    changed = manifest.model_copy(update={"shards": (record, manifest.shards[1])})
    (folder / "manifest.json").write_bytes(changed.to_json())


def test_wrong_layout_and_counts(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    layout = manifest.shards[0].layout
    assert layout is not None
    rewrite(tmp_path / "set", manifest, layout=layout.model_copy(update={"pixels_offset_bytes": 641}))
    assert "does not lie where the layout says" in faults(tmp_path / "set")
    rewrite(tmp_path / "set", manifest, layout=None)
    assert "npy without a layout" in faults(tmp_path / "set")
    rewrite(tmp_path / "set", manifest, class_counts=(3, 1))
    assert "manifest.json: the shards of train hold 4 samples, classes (3, 1)" in faults(tmp_path / "set")


@pytest.mark.parametrize("same", [("slide",), ("patient",), ("slide", "patient")])
def test_slide_or_patient_in_two_splits(tmp_path: Path, same: tuple[str, ...]) -> None:
    manifest = write_set(tmp_path, same=same)
    expected = [f"{manifest.shards[1].name}: {kind} same also stands in train" for kind in same]
    assert faults(tmp_path).splitlines() == expected


def test_key_in_two_splits(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, overlap=True)
    assert f"also in {manifest.shards[0].name}" in faults(tmp_path)


def test_base_names_that_collide(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    train, test = manifest.shards
    moved = "other/" + train.name.rpartition("/")[2]
    (tmp_path / "set" / "other").mkdir()
    (tmp_path / "set" / test.name).rename(tmp_path / "set" / moved)
    changed = manifest.model_copy(update={"shards": (train, test.model_copy(update={"name": moved}))})
    (tmp_path / "set" / "manifest.json").write_bytes(changed.to_json())
    assert "2 shards have the base name" in faults(tmp_path / "set")
