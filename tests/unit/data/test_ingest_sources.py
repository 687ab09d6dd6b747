"""Layouts: what is recognised, what is listed, and which error a broken source gives."""

from __future__ import annotations

import errno
import gzip
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from ingest_parts import Patches, noise_patches, write_classes, write_kaggle, write_pcam

from sentinode.data.sources import Source, detect, open_source
from sentinode.data.sources.h5_rows import open_rows
from sentinode.data.sources.synthetic import SyntheticSource
from sentinode.data.synthetic import SyntheticConfig
from sentinode.errors import SourceError

LABELS = [0, 1, 0, 1, 1, 0]


def read_all(source: Source) -> Patches:
    """Every patch in listing order; none may be bad."""
    items = source.listing().items(range(len(source.listing())))
    pixels = {item.index: found for item, found in source.read(items)}
    return np.stack([pixels[i] for i in range(len(items))])


def refusing(call: Callable[..., object], closed: Path) -> Callable[..., object]:
    """``call`` as it is for somebody who may not read ``closed``; the tests may be root, who may read all."""

    def refuse(path: object, *args: object, **settings: object) -> object:
        if str(path) == str(closed):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return call(path, *args, **settings)

    return refuse


class TestKaggle:
    def test_lists_labelled_then_unlabelled(self, tmp_path: Path) -> None:
        patches = noise_patches(6)
        ids = write_kaggle(tmp_path, patches, LABELS, unlabelled=2)
        source = detect(tmp_path)
        listing = source.listing()
        assert source.kind == "kaggle"
        assert listing.labels.tolist() == [0, 1, 0, 1, -1, -1]
        assert listing.splits.tolist() == [0, 0, 0, 0, 3, 3]
        assert listing.refs[0] == f"train/{ids[0]}.tif"
        assert sorted(listing.refs[4:]) == sorted(f"test/{i}.tif" for i in ids[4:])
        assert source.promised_key(listing.items([0])[0]) == ids[0]
        np.testing.assert_array_equal(read_all(source)[:4], patches[:4])

    def test_slides_from_the_community_table(self, tmp_path: Path) -> None:
        ids = write_kaggle(tmp_path, noise_patches(3), [0, 1, 0])
        rows = [f"{ids[0]},camelyon16_train_tumor_009", f"{ids[1]},patient_021_node_4"]
        (tmp_path / "patch_id_wsi_full.csv").write_text("\n".join(["id,wsi", *rows]))
        listing = detect(tmp_path).listing()
        items = listing.items(range(3))
        assert [i.slide for i in items] == ["camelyon16_train_tumor_009", "patient_021_node_4", None]
        assert [i.patient for i in items] == [None, "patient_021", None]
        assert [i.centre for i in items] == [None, "1", None]

    def test_named_but_missing_image_is_bad(self, tmp_path: Path) -> None:
        ids = write_kaggle(tmp_path, noise_patches(3), [0, 1, 0])
        (tmp_path / "train" / f"{ids[1]}.tif").unlink()
        assert list(detect(tmp_path).listing().bad) == [1]

    def test_broken_links_are_bad_one_by_one(self, tmp_path: Path) -> None:
        ids = write_kaggle(tmp_path, noise_patches(6), LABELS, unlabelled=2)
        for path in (tmp_path / "train" / f"{ids[1]}.tif", tmp_path / "test" / "x.tif"):
            path.unlink(missing_ok=True)
            path.symlink_to(tmp_path / "nowhere")
        listing = detect(tmp_path).listing()
        bad = {listing.refs[i]: reason for i, reason in listing.bad.items()}
        assert bad == {f"train/{ids[1]}.tif": "a broken link", "test/x.tif": "a broken link"}
        assert len(listing) == 7

    def test_unnamed_image_in_train(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path, noise_patches(3), [0, 1, 0])
        (tmp_path / "train" / "stranger.tif").write_bytes(b"x")
        with pytest.raises(SourceError, match=r"1 images .* stranger"):
            detect(tmp_path).listing()

    def test_sample_submission_without_images_is_a_warning(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path, noise_patches(3), [0, 1, 0])
        (tmp_path / "sample_submission.csv").write_text("id,label\nabc,0\n")
        assert "1 ids of sample_submission.csv" in detect(tmp_path).listing().warnings[0]

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("id,name\na,0\n", "columns"),
            ("", "columns"),
            ("id,label\na,2\n", r"not 0 or 1 \(line 2: '2'"),
            ("id,label\na,\n", "not 0 or 1"),
            ("id,label\na\n", "cut short"),
            ("id,label\na,0\na,0\n", "a more than once"),
            ("id,label\n../../etc/passwd,0\n", "passwd"),
            ('id,label\n"a,0\n', "no CSV"),
            ("id,label\n\x00\udcff,0\n", "no CSV"),
        ],
    )
    def test_malformed_tables(self, tmp_path: Path, text: str, match: str) -> None:
        (tmp_path / "train").mkdir()
        (tmp_path / "train_labels.csv").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(SourceError, match=match):
            detect(tmp_path).listing()


class TestPcam:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"chunks": (4, 96, 96, 3)},
            {"chunks": (2, 48, 96, 3)},
            {"compression": "gzip"},
            {"chunks": True},
        ],
        ids=["contiguous", "chunked", "odd chunks", "gzip", "automatic"],
    )
    def test_rows_are_found_in_every_storage_layout(self, tmp_path: Path, options: dict[str, object]) -> None:
        patches = noise_patches(10)
        write_pcam(tmp_path, "train", patches, [0, 1] * 5, **options)
        source = detect(tmp_path)
        np.testing.assert_array_equal(read_all(source), patches)
        source.close()

    def test_gzipped_files_are_unpacked_and_cleaned_up(self, tmp_path: Path) -> None:
        patches = noise_patches(6)
        write_pcam(tmp_path, "test", patches, LABELS)
        for path in list(tmp_path.glob("*.h5")):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        source = detect(tmp_path)
        np.testing.assert_array_equal(read_all(source), patches)
        raw = open_rows(next(tmp_path.glob("*_x.h5.gz"))).path
        assert raw.stat().st_size == patches.nbytes
        source.close()
        assert not raw.exists()

    def test_splits_and_slides(self, tmp_path: Path) -> None:
        for n, split in enumerate(("train", "valid", "test")):
            write_pcam(tmp_path, split, noise_patches(2, n), [0, 1], [f"s{n}a", f"s{n}b"])
        (tmp_path / "camelyonpatch_level_2_split_train_mask.h5").write_bytes(b"ignored")
        listing = detect(tmp_path).listing()
        assert listing.splits.tolist() == [0, 0, 1, 1, 2, 2]
        assert [listing.slides[i] for i in range(6)] == ["s0a", "s0b", "s1a", "s1b", "s2a", "s2b"]
        assert listing.refs[3] == "camelyonpatch_level_2_split_valid_x.h5#1"

    def test_names_of_a_mirror(self, tmp_path: Path) -> None:
        write_pcam(tmp_path, "valid", noise_patches(2), [0, 1])
        (tmp_path / "pcam").mkdir()
        (tmp_path / "Labels").mkdir()
        stem = "camelyonpatch_level_2_split_valid"
        (tmp_path / f"{stem}_x.h5").rename(tmp_path / "pcam" / "validation_split.h5")
        (tmp_path / f"{stem}_y.h5").rename(tmp_path / "Labels" / f"{stem}_y.h5")
        assert detect(tmp_path).listing().refs == ["pcam/validation_split.h5#0", "pcam/validation_split.h5#1"]

    def test_meta_that_contradicts_labels_is_a_warning(self, tmp_path: Path) -> None:
        write_pcam(tmp_path, "train", noise_patches(2), [0, 1], ["a", "b"])
        meta = tmp_path / "camelyonpatch_level_2_split_train_meta.csv"
        meta.write_text(meta.read_text().replace("True", "False"))
        assert detect(tmp_path).listing().warnings == (
            f"1 rows of {meta.name} contradict the labels in y, which were taken",
        )

    @pytest.mark.parametrize(
        ("part", "key", "value", "match"),
        [
            ("x", "x", np.zeros((6, 64, 64, 3), np.uint8), r"uint8 \[6, 64, 64, 3\]"),
            ("x", "x", np.zeros((6, 96, 96, 3), np.float32), "float32"),
            ("x", "x", np.zeros((5, 96, 96, 3), np.uint8), "5 patches.* 6 labels"),
            ("x", "images", np.zeros((6, 96, 96, 3), np.uint8), "images"),
            ("y", "y", np.zeros((6, 2), np.uint8), "uint8"),
            ("y", "y", np.zeros(6, np.float32), "float32"),
            ("y", "y", np.full(6, 7, np.uint8), r"\[7\]"),
            ("y", "labels", np.zeros(6, np.uint8), "labels"),
        ],
    )
    def test_wrong_arrays(self, tmp_path: Path, part: str, key: str, value: Patches, match: str) -> None:
        write_pcam(tmp_path, "train", noise_patches(6), LABELS)
        with h5py.File(tmp_path / f"camelyonpatch_level_2_split_train_{part}.h5", "w") as file:
            file[key] = value
        with pytest.raises(SourceError, match=match):
            detect(tmp_path).listing()

    def test_missing_partner_and_short_meta(self, tmp_path: Path) -> None:
        write_pcam(tmp_path, "train", noise_patches(2), [0, 1], ["a", "b"])
        stem = tmp_path / "camelyonpatch_level_2_split_train"
        meta = Path(f"{stem}_meta.csv")
        meta.write_text("\n".join(meta.read_text().splitlines()[:2]))
        with pytest.raises(SourceError, match="1 rows"):
            detect(tmp_path).listing()
        Path(f"{stem}_y.h5").unlink()
        with pytest.raises(SourceError, match="no y array for train"):
            detect(tmp_path).listing()

    @pytest.mark.parametrize("suffix", ["h5", "h5.gz"])
    @pytest.mark.parametrize("part", ["x", "y"])
    def test_truncated_files(self, tmp_path: Path, part: str, suffix: str) -> None:
        write_pcam(tmp_path, "train", noise_patches(6), LABELS, compression="gzip")
        path = tmp_path / f"camelyonpatch_level_2_split_train_{part}.h5"
        data = path.read_bytes()
        path.unlink()
        packed = data if suffix == "h5" else gzip.compress(data)
        path.with_suffix(f".{suffix}").write_bytes(packed[: len(packed) // 2])
        with pytest.raises(SourceError, match=f"{part}.{suffix}"):
            detect(tmp_path).listing()

    def test_two_files_for_one_place(self, tmp_path: Path) -> None:
        write_pcam(tmp_path, "train", noise_patches(2), [0, 1])
        write_pcam(tmp_path / "copy", "train", noise_patches(2), [0, 1])
        with pytest.raises(SourceError, match="both claim to be train"):
            detect(tmp_path)


class TestFolder:
    @pytest.mark.parametrize(
        "names", [("0", "1"), ("negative", "positive"), ("Normal", "Tumour"), ("benign", "malignant")]
    )
    def test_usual_class_names(self, tmp_path: Path, names: tuple[str, str]) -> None:
        patches = noise_patches(6)
        write_classes(tmp_path, patches, LABELS, names)
        source = detect(tmp_path)
        assert source.kind == "folder"
        assert source.listing().labels.tolist() == [0, 0, 0, 1, 1, 1]
        assert (source.listing().splits == -1).all()
        np.testing.assert_array_equal(read_all(source), patches[[0, 2, 5, 1, 3, 4]])

    @pytest.mark.parametrize("valid", ["valid", "val", "validation"])
    def test_splits(self, tmp_path: Path, valid: str) -> None:
        for n, split in enumerate(("train", valid, "test")):
            write_classes(tmp_path / split, noise_patches(2, n), [0, 1])
        (tmp_path / "labels.csv").write_text("a table beside them is ignored")
        assert sorted(detect(tmp_path).listing().splits.tolist()) == [0, 0, 1, 1, 2, 2]

    def test_positive_class(self, tmp_path: Path) -> None:
        write_classes(tmp_path, noise_patches(3), [0, 1, 2], ["fat", "lesion", "stroma"])
        with pytest.raises(SourceError, match=r"fat, lesion, stroma[\s\S]*--positive-class"):
            detect(tmp_path).listing()
        assert detect(tmp_path, "lesion").listing().labels.tolist() == [0, 1, 0]
        with pytest.raises(SourceError, match="nothing"):
            detect(tmp_path, "nothing").listing()

    def test_one_class_is_not_enough(self, tmp_path: Path) -> None:
        write_classes(tmp_path, noise_patches(2), [0, 0])
        with pytest.raises(SourceError, match="the classes are 0"):
            detect(tmp_path).listing()

    def test_strange_files_are_listed_as_bad(self, tmp_path: Path) -> None:
        write_classes(tmp_path, noise_patches(2), [0, 1])
        (tmp_path / "0" / "scan.gif").write_bytes(b"GIF89a")
        (tmp_path / "0" / "dead.png").symlink_to(tmp_path / "nowhere")
        (tmp_path / "0" / ".hidden").write_bytes(b"")
        (tmp_path / "0" / "notes.txt").write_text("")
        listing = detect(tmp_path).listing()
        bad = {listing.refs[i]: reason for i, reason in listing.bad.items()}
        assert bad.keys() == {"0/scan.gif", "0/dead.png"}

    def test_names_that_are_not_utf8(self, tmp_path: Path) -> None:
        write_classes(tmp_path, noise_patches(2), [0, 1])
        (tmp_path / "0" / "0000.png").rename(
            tmp_path / "0" / b"\xff\xfe.png".decode(errors="surrogateescape")
        )
        listing = detect(tmp_path).listing()
        assert "not UTF-8" in listing.bad[0]
        assert listing.refs[0] == "0/\\xff\\xfe.png"

    def test_linked_folders_are_followed_and_loops_are_not(self, tmp_path: Path) -> None:
        write_classes(tmp_path / "in", noise_patches(4), [0, 1, 1, 1])
        write_classes(tmp_path / "elsewhere", noise_patches(4, seed=1), [0, 0, 1, 1])
        (tmp_path / "in" / "1" / "more").symlink_to(tmp_path / "elsewhere" / "1")
        (tmp_path / "elsewhere" / "1" / "again").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
        (tmp_path / "in" / "1" / "itself").symlink_to(tmp_path / "in" / "1")
        refs = detect(tmp_path / "in").listing().refs
        assert {"1/more/0002.png", "1/more/0003.png"} <= set(refs)
        assert not [ref for ref in refs if "itself" in ref]
        assert len(refs) < 20

    def test_a_folder_that_cannot_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_classes(tmp_path, noise_patches(4), [0, 1, 0, 1])
        (tmp_path / "1" / "closed").mkdir()
        monkeypatch.setattr(os, "scandir", refusing(os.scandir, tmp_path / "1" / "closed"))
        with pytest.raises(SourceError, match=r"1/closed cannot be read \(Permission denied\)"):
            detect(tmp_path).listing()

    def test_images_outside_of_classes(self, tmp_path: Path) -> None:
        paths = write_classes(tmp_path, noise_patches(2), [0, 1])
        paths[0].rename(tmp_path / "stray.png")
        write_classes(tmp_path, noise_patches(2), [0, 1])
        with pytest.raises(SourceError, match=r"such as stray\.png"):
            detect(tmp_path).listing()

    def test_classes_beside_splits(self, tmp_path: Path) -> None:
        write_classes(tmp_path, noise_patches(2), [0, 1])
        write_classes(tmp_path / "train", noise_patches(2), [0, 1])
        with pytest.raises(SourceError, match="beside splits"):
            detect(tmp_path).listing()


class TestDetect:
    def test_nothing_known(self, tmp_path: Path) -> None:
        (tmp_path / "slide.svs").write_bytes(b"")
        with pytest.raises(SourceError, match=r"slide\.svs[\s\S]*kaggle[\s\S]*pcam-h5[\s\S]*folder"):
            detect(tmp_path)

    def test_missing_folder_and_file(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="does not exist"):
            detect(tmp_path / "none")
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(SourceError, match="is a file"):
            detect(tmp_path / "file")

    def test_two_layouts_need_a_choice(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path, noise_patches(2), [0, 1])
        write_pcam(tmp_path, "train", noise_patches(2), [0, 1])
        with pytest.raises(SourceError, match=r"several layouts \(kaggle, pcam-h5\)"):
            detect(tmp_path)
        assert open_source("pcam-h5", tmp_path).kind == "pcam-h5"

    @pytest.mark.parametrize("closed", ["train_labels.csv", "train", ""])
    def test_what_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str) -> None:
        write_kaggle(tmp_path, noise_patches(2), [0, 1])
        for module, name in ((io, "open"), (os, "scandir"), (os, "listdir"), (os, "stat")):
            monkeypatch.setattr(module, name, refusing(getattr(module, name), tmp_path / closed))
        with pytest.raises(SourceError, match=r"cannot be read \(Permission denied\)"):
            detect(tmp_path).listing()

    def test_wrong_kind(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="does not look like kaggle"):
            open_source("kaggle", tmp_path)

    def test_real_folders(self, real_data: Path) -> None:
        kaggle = detect(real_data / "kaggle").listing()
        assert (len(kaggle), int((kaggle.labels == -1).sum()), kaggle.bad) == (2520, 120, {})
        jpeg = detect(real_data / "pcam_jpeg").listing()
        assert np.bincount(jpeg.splits).tolist() == [20000, 3000]


def test_synthetic_labels_come_with_reading() -> None:
    source = SyntheticSource(SyntheticConfig(patches=8, slides=4, centres=2))
    listing = source.listing()
    items = listing.items([5, 2])
    read = [item for item, _ in source.read(items)]
    assert [item.index for item in read] == [5, 2]
    assert all(item.label in (0, 1) for item in read)
    assert [item.label for item in items] == [None, None]
    assert len(listing.slides.names) == 4


def test_sources_are_small_and_picklable(tmp_path: Path) -> None:
    write_kaggle(tmp_path, noise_patches(3), [0, 1, 0])
    source = detect(tmp_path)
    assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301 - our own object
    assert len(pickle.dumps(source)) < 500


def test_listing_digest_sees_every_column(tmp_path: Path) -> None:
    write_kaggle(tmp_path, noise_patches(3), [0, 1, 0])
    before = detect(tmp_path).listing().digest()
    assert detect(tmp_path).listing().digest() == before
    table = tmp_path / "train_labels.csv"
    table.write_text(table.read_text().replace(",1", ",0"))
    assert detect(tmp_path).listing().digest() != before
