"""What two data sets say of one place on a slide: the later one counts, and the rest stays byte for byte."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from audit_parts import texture
from datapath_parts import make_manifest

from sentinode.data.columns import read_columns
from sentinode.data.ingest.verify import verify_manifest
from sentinode.data.join import join
from sentinode.data.manifest import MANIFEST_NAME, Manifest, load_manifest
from sentinode.data.places import reference
from sentinode.data.shards import ShardSample, build_shard
from sentinode.schema import Encoding, Split

SIDE_PX = 384
CELL_PX = 128


def key(seed: int) -> str:
    return hashlib.sha1(texture(seed).tobytes()).hexdigest()


def write(
    folder: Path,
    dataset: str,
    patches: list[tuple[int, int, str, int, int]],
    encoding: Encoding = Encoding.NPY,
    side_px: int = SIDE_PX,
) -> str:
    """A data set of patches: seed, label, slide, and corner."""
    samples = [
        ShardSample(
            key(seed),
            label,
            json.dumps({"slide": slide, "source": reference(f"{slide}.tif", (x, y), side_px)}).encode(),
        )
        for seed, label, slide, x, y in patches
    ]
    name = f"shards/{dataset}-train-000000.tar"
    pixels = np.stack([texture(seed) for seed, *_ in patches])
    buffer, record = build_shard(name, Split.TRAIN, encoding, samples, pixels)
    (folder / dataset / "shards").mkdir(parents=True)
    (folder / dataset / name).write_bytes(buffer.tobytes())
    (folder / dataset / MANIFEST_NAME).write_bytes(make_manifest([record], dataset).to_json())
    return str(folder / dataset)


def joined(folder: Path, *urls: str) -> tuple[Manifest, list[str]]:
    made = join(urls, "both", str(folder / "both"), lambda done, total: None)
    assert not verify_manifest(str(folder / "both"))
    return made, read_columns(*load_manifest(str(folder / "both")), Split.TRAIN).keys


BASE = [
    (0, 0, "camelyon16_train_tumor_001", 1000, 1000),
    (1, 0, "camelyon16_train_tumor_001", 1000 + CELL_PX, 1000),
    (2, 0, "camelyon16_train_tumor_001", 1000 + 2 * CELL_PX, 1000),
    (3, 1, "camelyon16_train_tumor_001", 1000, 1000 + 3 * CELL_PX),
    (4, 0, "b", 1000, 1000),
]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_later_data_set_counts_where_one_middle_lies_in_the_others_centre(
    tmp_path: Path, encoding: Encoding
) -> None:
    drawn = [(10, 1, "tumor_001", 1063, 937), (11, 0, "tumor_001", 1000, 1000 + 3 * CELL_PX + 60)]
    made, keys = joined(
        tmp_path, write(tmp_path, "base", BASE, encoding), write(tmp_path, "drawn", drawn, encoding)
    )
    assert keys == [key(seed) for seed in (1, 2, 4, 10, 11)]
    train = made.splits[Split.TRAIN]
    assert (train.samples, train.class_counts, train.slides) == (5, (4, 1), 2)
    assert made.dropped.conflicting == 2
    assert made.warnings[1].startswith("2 patches of base may contradict a later data set")
    left, whole = (_members(tmp_path / place / made.shards[0].name) for place in ("both", "base"))
    assert len(left) < len(whole)
    assert left.items() <= whole.items()


def _members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {one.name: data.read() for one in tar if (data := tar.extractfile(one))}


def test_what_lies_beside_or_says_the_same_stays(tmp_path: Path) -> None:
    base = write(tmp_path, "base", BASE)
    beside = [
        # Tumour in the half that it does not share with the negative, say: both are right.
        (10, 1, "tumor_001", 1000 + 2 * CELL_PX + CELL_PX // 2, 1000),
        (11, 0, "tumor_001", 1010, 1010),
        (12, 1, "c", 1000, 1000),
    ]
    made, keys = joined(tmp_path, base, write(tmp_path, "more", beside))
    assert len(keys) == 8
    assert made.dropped.conflicting == 0
    assert len(made.warnings) == 1


def test_of_three_the_last_counts_and_what_it_contradicts_contradicts_nothing(tmp_path: Path) -> None:
    urls = [
        write(tmp_path, name, [(seed, label, "s", 1000 + 50 * seed, 1000)])
        for seed, (name, label) in enumerate((("first", 1), ("second", 0), ("third", 1)))
    ]
    _, keys = joined(tmp_path, *urls)
    assert keys == [key(0), key(2)]


def test_places_are_compared_in_pixels_of_patches_at_any_resolution(tmp_path: Path) -> None:
    fine = write(tmp_path, "fine", [(0, 0, "s", 10_000, 8_000), (1, 0, "s", 14_000, 8_000)])
    coarse = write(tmp_path, "coarse", [(2, 1, "s", 2_510, 2_005)], side_px=96)
    assert joined(tmp_path, fine, coarse)[1] == [key(1), key(2)]
