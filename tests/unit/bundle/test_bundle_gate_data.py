"""What the trainings of two bundles have seen of the validation split on which they would be compared."""

from __future__ import annotations

from pathlib import Path

from datapath_parts import make_manifest
from promote_parts import write_data

from sentinode.bundle.gate_data import DataSet, data_facts
from sentinode.data.manifest import Manifest, load_manifest
from sentinode.schema import Split
from sentinode.storage import open_store


def written(folder: Path, seed: int) -> DataSet:
    """20 patches for training, 30 for validation, as ``seed`` draws them, at ``folder``."""
    write_data(str(folder), train=20, valid=30, seed=seed)
    return loaded(folder)


def loaded(folder: Path) -> DataSet:
    return DataSet(*load_manifest(str(folder)))


def turned_round(folder: Path, name: str) -> DataSet:
    """The data set at ``folder``, its splits exchanged, under another name."""
    store = open_store(str(folder))
    old = Manifest.from_json(store.get("manifest.json"), "manifest.json")
    other = {Split.TRAIN: Split.VALID, Split.VALID: Split.TRAIN}
    manifest = make_manifest([s.model_copy(update={"split": other[s.split]}) for s in old.shards], name)
    store.put("turned.json", manifest.to_json())
    return DataSet(manifest, store)


def test_one_data_set_without_leaks_is_fair_to_both(tmp_path: Path) -> None:
    data = written(tmp_path / "a", 0)
    facts = data_facts(data, loaded(tmp_path / "a"))
    assert facts.patches == 30
    assert facts.current == facts.candidate
    assert not facts.candidate.anything
    assert facts.same_validation is True


def test_validation_patches_in_the_present_bundle_s_training_split_are_counted(tmp_path: Path) -> None:
    data, other = written(tmp_path / "a", 0), turned_round(tmp_path / "a", "other")
    facts = data_facts(data, other)
    assert facts.current is not None
    assert (facts.candidate.patches, facts.current.patches, facts.current.slides) == (0, 30, 0)
    assert len(set(facts.current.examples)) == 3
    assert facts.same_validation is False
    assert str(facts.current) == "30 patches"


def test_slides_are_compared_within_a_data_set_only(tmp_path: Path) -> None:
    data, version = written(tmp_path / "a", 0), written(tmp_path / "b", 1)
    assert data.manifest.dataset == version.manifest.dataset
    clean = data_facts(data, version).current
    assert clean is not None
    assert not clean.anything, "slides of train are others than those of valid, and so are the patches"
    # Names of slides are the same in both; only under one name of a data set they mean the same slides.
    same = data_facts(data, turned_round(tmp_path / "b", data.manifest.dataset)).current
    other = data_facts(data, turned_round(tmp_path / "b", "other")).current
    assert same is not None
    assert other is not None
    assert (same.patches, same.slides) == (0, 8)
    assert str(same) == "8 slides"
    assert not other.anything


def test_what_is_not_known_is_told(tmp_path: Path) -> None:
    data = written(tmp_path / "a", 0)
    facts = data_facts(data, "no such run")
    assert (facts.current, facts.unknown, facts.same_validation) == (None, "no such run", None)
    assert data_facts(data, None).unknown == ""
