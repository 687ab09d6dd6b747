"""From scans to a data set: what is refused, dropped, carved and said. No Ray."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from ingest_parts import Patches, noise_patches, write_classes, write_kaggle, write_pcam
from PIL import Image

from sentinode.data.ingest.assemble import Assembly, Scan, assemble
from sentinode.data.ingest.build import make_shard
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.scan import CHUNK_PATCHES, scan_chunk
from sentinode.data.manifest import Manifest
from sentinode.data.sources.known import oddity
from sentinode.errors import BadImagesError, ConfigError, LabelConflictError, LeakError, SourceError
from sentinode.schema import Split


def run(folder: Path, **settings: object) -> tuple[Assembly, Manifest]:
    """Both passes in this process."""
    config = IngestConfig.model_validate({"source": str(folder), "out": "out", "dataset": "set", **settings})
    source = config.open_source()
    listing = source.listing()
    starts = range(0, len(listing), CHUNK_PATCHES)
    chunks = [
        scan_chunk(source, listing.items(range(s, min(s + CHUNK_PATCHES, len(listing))))) for s in starts
    ]
    assembly = assemble(config, listing, Scan.join(listing, chunks))
    plans = [assembly.plan(cut, config.encoding) for cut in assembly.cuts(config)]
    shards = [make_shard(source, plan, {})[1] for plan in plans]
    return assembly, assembly.manifest(config, source.kind, shards)


def balanced(count: int) -> list[int]:
    return [i % 2 for i in range(count)]


def test_folder_without_splits_is_carved_by_content(tmp_path: Path) -> None:
    write_classes(tmp_path, noise_patches(60), balanced(60))
    _, manifest = run(tmp_path, shard_samples=20)
    assert {s.origin for s in manifest.splits.values()} == {"carved by content hash"}
    assert sum(s.samples for s in manifest.splits.values()) == 60
    assert not manifest.slides_known
    assert [s.split for s in manifest.shards] == sorted(
        (s.split for s in manifest.shards), key=[Split.TRAIN, Split.VALID, Split.TEST].index
    )
    assert all(s.samples <= 20 for s in manifest.shards)
    assert len({s.name for s in manifest.shards}) == len(manifest.shards)
    assert str(tmp_path) not in manifest.to_json().decode()


def test_fraction_zero_carves_nothing(tmp_path: Path) -> None:
    write_classes(tmp_path, noise_patches(6), balanced(6))
    _, manifest = run(tmp_path, valid_fraction=0, test_fraction=0)
    assert list(manifest.splits) == [Split.TRAIN]


def test_source_splits_are_kept_and_only_missing_ones_carved(tmp_path: Path) -> None:
    write_pcam(tmp_path, "train", noise_patches(60, 1), balanced(60))
    write_pcam(tmp_path, "valid", noise_patches(10, 2), balanced(10))
    _, manifest = run(tmp_path)
    assert {k: v.origin for k, v in manifest.splits.items()} == {
        Split.TRAIN: "source", Split.VALID: "source", Split.TEST: "carved by content hash"
    }  # fmt: skip
    assert manifest.splits[Split.VALID].samples == 10


def test_only_a_test_split_is_fine(tmp_path: Path) -> None:
    write_pcam(tmp_path, "test", noise_patches(4), balanced(4))
    assert list(run(tmp_path)[1].splits) == [Split.TEST]


def slides_pcam(folder: Path, unknown: int = 0) -> None:
    """120 patches of 12 slides, 10 each; the first ``unknown`` have none."""
    slides = [f"slide_{i // 10}" if i >= unknown else "" for i in range(120)]
    write_pcam(folder, "train", noise_patches(120), balanced(120), slides)


def test_carving_by_slide(tmp_path: Path) -> None:
    slides_pcam(tmp_path)
    assembly, manifest = run(tmp_path)
    assert manifest.slides_known
    assert manifest.splits[Split.VALID].origin == "carved by slide"
    assert [s.slides for s in manifest.splits.values()] == [10, 1, 1]
    codes = {
        split: set(assembly.listing.slides.codes[o].tolist())
        for split, o in assembly.assignment.order.items()
    }
    assert sum(map(len, codes.values())) == 12


def test_carving_by_patient(tmp_path: Path) -> None:
    slides = [f"patient_{i // 20:03d}_node_{i // 10 % 2}" for i in range(120)]
    write_pcam(tmp_path, "train", noise_patches(120), balanced(120), slides)
    assembly, _ = run(tmp_path, valid_fraction=0.2, test_fraction=0.2)
    patients = assembly.listing.patients.codes
    sides = [set(patients[order].tolist()) for order in assembly.assignment.order.values()]
    assert len(sides) == 3
    assert sum(map(len, sides)) == 6


def test_a_slide_without_a_patient_divides_no_patient(tmp_path: Path) -> None:
    nodes = [f"patient_{p:03d}_node_{n}" for p in range(10) for n in range(5)]
    slides = [[*nodes, "camelyon16_train_tumor_001"][i % 51] for i in range(510)]
    write_pcam(tmp_path, "train", noise_patches(510), [i // 51 % 2 for i in range(510)], slides)
    assembly, _ = run(tmp_path)
    patients = assembly.listing.patients.codes
    sides = [set(patients[order].tolist()) - {-1} for order in assembly.assignment.order.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 10


def test_patient_on_both_sides_of_the_sources_splits(tmp_path: Path) -> None:
    for n, split in enumerate(("train", "valid", "test")):
        slides = [f"patient_007_node_{n}"] * 20
        write_pcam(tmp_path, split, noise_patches(20, n), balanced(20), slides)
    with pytest.raises(LeakError, match=r"1 patients .* patient_007[\s\S]*--no-use-source-splits"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("slide", "digests"),
    [
        ("patient_{0:03d}_node_{1}", ["802272df", "591200b5", "f4389449"]),
        ("slide_{0}_{1}", ["7d8c00f4", "80dd7fe8", "47781ae7"]),
        ("", ["5af11827", "e8751073", "f7a3cea6"]),
    ],
)
def test_carved_splits_stay_what_they_were(tmp_path: Path, slide: str, digests: list[str]) -> None:
    """Where all patches have a patient, none has one, or nothing is known."""
    slides = [slide.format(i // 20, i // 10 % 2) for i in range(240)]
    write_pcam(tmp_path, "train", noise_patches(240), balanced(240), slides)
    assembly, _ = run(tmp_path)
    keys = [assembly.scan.keys[order].tobytes() for order in assembly.assignment.order.values()]
    assert [hashlib.sha1(of_split).hexdigest()[:8] for of_split in keys] == digests


def test_few_unknown_slides_stay_in_train_with_a_warning(tmp_path: Path) -> None:
    slides_pcam(tmp_path, unknown=5)
    _, manifest = run(tmp_path)
    assert not manifest.slides_known
    assert manifest.splits[Split.VALID].origin == "carved by slide"
    assert manifest.splits[Split.TRAIN].slides is None
    assert manifest.warnings == ("5 patches have no slide and stay in train",)


def test_of_many_unknown_slides_the_known_ones_are_not_divided(tmp_path: Path) -> None:
    slides_pcam(tmp_path, unknown=60)
    assembly, manifest = run(tmp_path)
    assert manifest.splits[Split.VALID].origin == "carved by content hash"
    assert manifest.warnings == (
        "only 50% of the patches have a slide: the others are split by content hash",
    )
    slides = assembly.listing.slides.codes
    sides = [set(slides[order].tolist()) for order in assembly.assignment.order.values()]
    assert all(-1 in side for side in sides)
    assert sum(len(side - {-1}) for side in sides) == len(set.union(*sides) - {-1}) == 6


@pytest.mark.parametrize("unknown", [20, 118, 119])
def test_what_is_too_little_to_be_divided_stays_in_train(tmp_path: Path, unknown: int) -> None:
    """First two negatives and 18 tumour patches without a slide; then two patches, or one, with a slide."""
    labels = [int(i > 1) for i in range(20)] + balanced(100)
    slides = [""] * unknown + [f"slide_{i // 10}" for i in range(120 - unknown)]
    write_pcam(tmp_path, "train", noise_patches(120), labels, slides)
    assembly, manifest = run(tmp_path)
    assert all(min(summary.class_counts) > 0 for summary in manifest.splits.values())
    slides_of = assembly.listing.slides.codes
    outside = np.concatenate([assembly.assignment.order[s] for s in (Split.VALID, Split.TEST)])
    assert ((slides_of[outside] == -1) == (unknown > 20)).all()


def test_slide_on_both_sides_of_the_sources_splits(tmp_path: Path) -> None:
    for n, split in enumerate(("train", "valid", "test")):
        write_pcam(tmp_path, split, noise_patches(20, n), balanced(20), [f"s{i % 5}" for i in range(20)])
    with pytest.raises(LeakError, match=r"5 slides .* s0, s1[\s\S]*--no-use-source-splits"):
        run(tmp_path)
    _, manifest = run(tmp_path, use_source_splits=False)
    assert {s.origin for s in manifest.splits.values()} == {"carved by slide"}


def test_duplicates_within_and_over_splits(tmp_path: Path) -> None:
    patches = noise_patches(12)
    write_pcam(tmp_path, "train", patches[[0, 1, 2, 3, 0, 0]], [0, 1, 0, 1, 0, 0])
    write_pcam(tmp_path, "valid", patches[[4, 5, 3, 5]], [0, 1, 1, 1])
    write_pcam(tmp_path, "test", patches[[6, 7, 3, 4]], [0, 1, 1, 0])
    _, manifest = run(tmp_path)
    assert (manifest.dropped.duplicates, manifest.dropped.cross_split_duplicates) == (3, 3)
    assert [s.samples for s in manifest.splits.values()] == [3, 1, 4]


def test_conflicting_labels(tmp_path: Path) -> None:
    patches = noise_patches(30)
    write_pcam(tmp_path, "train", patches[[*range(30), 0]], [*balanced(30), 1])
    with pytest.raises(
        LabelConflictError, match=r"1 patches [\s\S]*#0 is 0, .*#30 is 1[\s\S]*--on-conflict drop"
    ) as caught:
        run(tmp_path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - our own object
    _, manifest = run(tmp_path, on_conflict="drop")
    assert manifest.dropped.conflicting == 2
    assert sum(s.samples for s in manifest.splits.values()) == 29


def test_long_lists_are_cut(tmp_path: Path) -> None:
    patches = noise_patches(25)
    write_pcam(tmp_path, "train", np.concatenate([patches, patches]), [0] * 25 + [1] * 25)
    with pytest.raises(LabelConflictError, match=r"25 patches [\s\S]* and 5 more"):
        run(tmp_path)


def bad_folder(folder: Path, patches: Patches) -> None:
    paths = write_classes(folder, patches, balanced(len(patches)))
    paths[0].write_bytes(b"")
    Image.fromarray(patches[1]).resize((95, 96)).save(paths[1])


def test_bad_images_end_the_run_unless_tolerated(tmp_path: Path) -> None:
    bad_folder(tmp_path, noise_patches(40))
    with pytest.raises(
        BadImagesError, match=r"2 images [\s\S]*0/0000.png: the file is empty[\s\S]*1/0001.png: 95x96"
    ):
        run(tmp_path, max_bad=1)
    _, manifest = run(tmp_path, max_bad=2)
    assert manifest.dropped.bad == 2
    assert sum(s.samples for s in manifest.splits.values()) == 38


def test_nothing_left(tmp_path: Path) -> None:
    bad_folder(tmp_path, noise_patches(2))
    with pytest.raises(SourceError, match="none of 2"):
        run(tmp_path, max_bad=2)


def test_kaggle_oddities_are_flagged_and_kept(tmp_path: Path) -> None:
    patches = noise_patches(40)
    patches[0], patches[1], patches[2] = 255, 0, (200, 180, 190)
    ids = write_kaggle(tmp_path, patches, balanced(40), unlabelled=10)
    (tmp_path / "train" / f"{ids[3]}.tif").unlink()
    Image.fromarray(noise_patches(1, 9)[0]).save(tmp_path / "train" / f"{ids[3]}.tif")
    _, manifest = run(tmp_path)
    assert manifest.flagged[ids[0]] == "all pixels are RGB (255, 255, 255)"
    assert manifest.flagged[ids[1]] == "known: black image of the Kaggle training set (list 1)"
    assert manifest.flagged[ids[2]] == "all pixels are RGB (200, 180, 190)"
    assert "its id is not the SHA-1 of its pixels" in manifest.flagged.values()
    assert manifest.warnings == ("1 ids are not the SHA-1 of their pixels",)
    assert manifest.splits[Split.UNLABELLED].samples == 10
    assert manifest.splits[Split.UNLABELLED].class_counts == (0, 0)


def test_known_oddities_are_known_by_key() -> None:
    noise = noise_patches(1)[0]
    assert oddity("dd6dfed324f9fcb6f93f46f32fc800f2ec196be2", noise) == (
        "known: white image of the Kaggle training set (list 1)"
    )
    assert oddity("0" * 40, noise) is None


def test_same_input_same_manifest_wherever_it_lies(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_classes(tmp_path / name, noise_patches(30), balanced(30))
    assert run(tmp_path / "one")[1] == run(tmp_path / "two")[1]
    assert run(tmp_path / "one", split_seed=1)[1].digest() != run(tmp_path / "one")[1].digest()


def test_shards_mix_classes(tmp_path: Path) -> None:
    write_classes(tmp_path, noise_patches(120), balanced(120))
    _, manifest = run(tmp_path, shard_samples=40)
    assert all(min(s.class_counts) > 8 for s in manifest.of_split(Split.TRAIN) if s.samples == 40)


def test_source_changed_between_the_passes(tmp_path: Path) -> None:
    paths = write_classes(tmp_path, noise_patches(30), balanced(30))
    config = IngestConfig(source=str(tmp_path), out="out")
    source = config.open_source()
    listing = source.listing()
    assembly = assemble(config, listing, Scan.join(listing, [scan_chunk(source, listing.items(range(30)))]))
    for path in paths:
        path.write_bytes(b"gone")
    with pytest.raises(SourceError, match="has changed since it was scanned"):
        make_shard(source, assembly.plan(assembly.cuts(config)[0], config.encoding), {})


def test_config_refuses_what_leaves_no_training_patches() -> None:
    with pytest.raises(ConfigError, match="sum below 1"):
        IngestConfig(source="synthetic", out="out", valid_fraction=0.5, test_fraction=0.5)


@pytest.mark.parametrize(
    ("source", "name"),
    [("synthetic", "synthetic"), ("/data/PCam v1 (JPEG)/", "pcam-v1-jpeg"), ("/", "dataset")],
)
def test_dataset_name_comes_from_the_folder(source: str, name: str) -> None:
    assert IngestConfig(source=source, out="out").dataset_name() == name
