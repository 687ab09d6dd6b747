"""Joined data sets: what goes together stays as it was, and what would flatter a model is refused."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from audit_parts import plain, write

from sentinode.data.columns import read_columns
from sentinode.data.ingest.verify import verify_manifest
from sentinode.data.join import UNCHECKED, join
from sentinode.data.manifest import MANIFEST_NAME, Manifest, load_manifest
from sentinode.errors import (
    ConfigError,
    IntegrityError,
    LabelConflictError,
    LeakError,
    ObjectNotFoundError,
    StoreError,
)
from sentinode.schema import Split
from sentinode.storage import ObjectInfo, open_store
from sentinode.storage.local import LocalStore


def base(folder: Path) -> str:
    train = plain(range(20), slide="a") + plain(range(20, 30), 1, slide="b")
    return write(folder, "base", {Split.TRAIN: train, Split.VALID: plain(range(30, 40), slide="c")})


def joined(folder: Path, *urls: str) -> Manifest:
    return join(urls, "both", str(folder / "both"), lambda done, total: None)


def test_each_patch_stays_in_its_split_and_slides_are_counted_once(tmp_path: Path) -> None:
    more = write(tmp_path, "more", {Split.TRAIN: plain(range(50, 57), 1, slide="a")})
    made = joined(tmp_path, base(tmp_path), more)
    read, store = load_manifest(str(tmp_path / "both"))
    assert read == made
    train, valid = made.splits[Split.TRAIN], made.splits[Split.VALID]
    assert (train.samples, train.slides) == (37, 2)
    assert (valid.samples, valid.slides) == (10, 1)
    columns = read_columns(made, store, Split.TRAIN)
    assert len(set(columns.keys)) == 37
    assert sum(columns.labels == 1) == 17
    assert store.stat(UNCHECKED) is None
    assert made.warnings[0].startswith("joined of base (")


def test_again_it_is_left_and_killed_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = (base(tmp_path), write(tmp_path, "more", {Split.TRAIN: plain(range(50, 57))}))
    copied: list[str] = []
    upload = LocalStore.upload

    def counted(store: LocalStore, path: Path, key: str) -> ObjectInfo:
        copied.append(key)
        return upload(store, path, key)

    monkeypatch.setattr(LocalStore, "upload", counted)
    with pytest.raises(KeyboardInterrupt):
        join(urls, "both", str(tmp_path / "both"), _interrupt)
    assert not (tmp_path / "both" / MANIFEST_NAME).exists()
    first = joined(tmp_path, *urls)
    assert len(copied) == len(set(copied)) == 3, "each shard was copied once"
    assert joined(tmp_path, *urls) == first
    assert len(copied) == 3
    with pytest.raises(ConfigError, match="made of something else"):
        joined(tmp_path, *reversed(urls))


def test_what_was_copied_stays_when_the_store_fails_and_goes_when_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = (base(tmp_path), write(tmp_path, "more", {Split.TRAIN: plain(range(50, 57))}))
    for failure, left in ((StoreError("timed out"), 3), (IntegrityError("damaged"), 0)):
        with monkeypatch.context() as patched:
            patched.setattr("sentinode.data.join.audit", Mock(side_effect=failure))
            with pytest.raises(type(failure)):
                joined(tmp_path, *urls)
        assert len(list(open_store(str(tmp_path / "both")).list())) == left
    assert joined(tmp_path, *urls).splits[Split.TRAIN].samples == 37


def _interrupt(done: int, total: int) -> None:
    raise KeyboardInterrupt


def test_what_stands_in_two_splits_is_refused_and_no_data_set_is_left(tmp_path: Path) -> None:
    clean = base(tmp_path)
    for name, samples in (
        ("patch", plain(range(30, 31), slide="z")),
        ("slide", plain(range(60, 63), slide="c")),
    ):
        other = write(tmp_path, name, {Split.TRAIN: samples})
        with pytest.raises(LeakError, match="both/train and both/valid share"):
            joined(tmp_path, clean, other)
        with pytest.raises(ObjectNotFoundError):
            load_manifest(str(tmp_path / "both"))
        assert list(open_store(str(tmp_path / "both")).list()) == []


def test_a_slide_is_one_under_all_its_names(tmp_path: Path) -> None:
    train = plain(range(10), slide="camelyon16_train_tumor_001")
    valid = plain(range(10, 20), slide="camelyon16_train_tumor_009") + plain(
        range(20, 30), slide="camelyon16_train_normal_086"
    )
    first = write(tmp_path, "first", {Split.TRAIN: train, Split.VALID: valid})
    for number, name in enumerate(("tumor_009", "tumor_111")):
        other = write(tmp_path, f"other-{number}", {Split.TRAIN: plain(range(50, 53), 1, slide=name)})
        with pytest.raises(LeakError, match=f"both/train and both/valid share {name}"):
            joined(tmp_path, first, other)
    more = write(tmp_path, "more", {Split.TRAIN: plain(range(50, 53), 1, slide="tumor_001")})
    assert joined(tmp_path, first, more).splits[Split.TRAIN].slides == 1


def test_a_patch_with_two_labels_is_refused(tmp_path: Path) -> None:
    other = write(tmp_path, "other", {Split.TRAIN: plain(range(2), 1, slide="a")})
    with pytest.raises(LabelConflictError, match="2 patches have two labels"):
        joined(tmp_path, base(tmp_path), other)


def test_what_several_hold_is_taken_once_and_counted(tmp_path: Path) -> None:
    again = plain(range(5), slide="a") + plain(range(50, 53), 1, slide="a")
    urls = [
        base(tmp_path),
        write(tmp_path, "more", {Split.TRAIN: again, Split.VALID: plain(range(32, 34), slide="c")}),
        write(tmp_path, "rest", {Split.TRAIN: plain(range(50, 53), 1, slide="a")}),
    ]
    made = joined(tmp_path, *urls)
    train = made.splits[Split.TRAIN]
    assert (train.samples, train.class_counts) == (33, (20, 13))
    assert (made.dropped.duplicates, made.dropped.conflicting) == (10, 0)
    assert made.warnings[1:] == (
        "7 patches of more stand in an earlier data set too: left out",
        "3 patches of rest stand in an earlier data set too: left out",
    )
    assert [shard.samples for shard in made.shards] == [30, 10, 3], "no shard is left without a patch"
    assert not verify_manifest(str(tmp_path / "both"))


def test_what_does_not_go_together_is_refused(tmp_path: Path) -> None:
    clean = base(tmp_path)
    with pytest.raises(ConfigError, match="two of the data sets have a shard"):
        joined(tmp_path, clean, clean)
    other = write(tmp_path, "other", {Split.TRAIN: plain(range(80, 82))})
    manifest, store = load_manifest(other)
    store.put(MANIFEST_NAME, manifest.model_copy(update={"mpp_um_px": 0.5}).to_json())
    with pytest.raises(ConfigError, match=r"mpp_um_px is 0.972 in base and 0.5 in other"):
        joined(tmp_path, clean, other)
    with pytest.raises(ConfigError, match="nothing to join"):
        joined(tmp_path, clean)
