"""The loader: exact samples for every rank, in every mode, after a resume and after errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from datapath_parts import KnownSet, RemoteFolder, make_set

from sentinode.data.cache import ShardCache
from sentinode.data.columns import read_labels
from sentinode.data.loader import Batch, LoaderConfig, PatchLoader
from sentinode.data.manifest import ShardRecord
from sentinode.data.plan import ShuffleConfig
from sentinode.errors import ConfigError, ManifestError, ObjectNotFoundError
from sentinode.schema import Encoding, Split


@pytest.fixture
def known(tmp_path: Path) -> KnownSet:
    return make_set(tmp_path / "set", (40, 40, 17))


def loader(known: KnownSet, **settings: object) -> PatchLoader:
    settings = {"batch_size": 12, "training": True, **settings}
    return PatchLoader(known.manifest, known.store, Split.TRAIN, **settings)  # type: ignore[arg-type]


def ids_of(known: KnownSet, batches: Iterable[Batch]) -> list[int]:
    """Real sample ids, after a check that pixels, labels and padding are right."""
    ids: list[int] = []
    for batch in batches:
        mask = batch.mask_B.numpy()
        mine = batch.sample_ids_B.numpy()[mask]
        assert (batch.images_BHWC.cpu().numpy()[mask] == known.pixels_NHWC[mine]).all()
        assert (batch.labels_B.cpu().numpy()[mask] == known.labels_N[mine]).all()
        assert (batch.images_BHWC.cpu().numpy()[~mask] == 0).all()
        assert (batch.labels_B.cpu().numpy()[~mask] == -1).all()
        assert (batch.sample_ids_B.cpu().numpy()[~mask] == -1).all()
        ids += mine.tolist()
    return ids


CONFIGS = {
    "mapped": LoaderConfig(),
    "by offset": LoaderConfig(mapped_bytes=0, read_threads=2),
    "resident": LoaderConfig(resident="whole"),
    "none ahead": LoaderConfig(ahead_batches=0),
    "three ahead": LoaderConfig(ahead_batches=3, read_threads=1),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_an_epoch_brings_each_sample_once(known: KnownSet, config: LoaderConfig) -> None:
    with loader(known, config=config) as data:
        epochs = [ids_of(known, data.epoch(e)) for e in (0, 1, 0)]
    assert all(len(set(ids)) == len(ids) == 96 for ids in epochs)
    assert epochs[0] == epochs[2] != epochs[1]
    assert data.steps == 8


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_evaluation_is_in_order_whole_and_padded(known: KnownSet, config: LoaderConfig) -> None:
    per_rank = []
    for rank in range(3):
        with loader(known, training=False, batch_size=10, rank=rank, world_size=3, config=config) as data:
            batches = [b.sample_ids_B.clone() for b in data.epoch()]
            per_rank.append(torch.stack(batches))
            ids_of(known, data.epoch())
    assert len({part.shape for part in per_rank}) == 1
    ids = torch.cat(per_rank, dim=1).flatten()
    assert ids[ids >= 0].tolist() == list(range(97))


def test_ranks_share_each_step_of_the_order(known: KnownSet) -> None:
    with loader(known) as data:
        alone = [b.sample_ids_B.tolist() for b in data.epoch(3)]
    parts = []
    for rank in range(4):
        with loader(known, rank=rank, world_size=4) as data:
            parts.append([b.sample_ids_B.tolist() for b in data.epoch(3)])
    assert [list(chain(*step)) for step in zip(*parts, strict=True)] == alone


@pytest.mark.parametrize("ranks_after", [1, 2, 6])
def test_a_run_killed_within_an_epoch_sees_exactly_the_rest(known: KnownSet, ranks_after: int) -> None:
    seen: list[int] = []
    for rank in range(3):
        with loader(known, rank=rank, world_size=3) as data:
            batches = data.epoch(5)
            seen += ids_of(known, (next(batches) for _ in range(4)))
            batches.close()  # type: ignore[attr-defined]
    rest: list[int] = []
    for rank in range(ranks_after):
        with loader(known, rank=rank, world_size=ranks_after) as data:
            rest += ids_of(known, data.epoch(5, start_step=4))
    with loader(known) as data:
        whole = ids_of(known, data.epoch(5))
    assert len(seen) == 48
    assert sorted(seen + rest) == sorted(whole)


@pytest.mark.parametrize("encoding", [Encoding.NPY, Encoding.WEBP])
def test_blocks_need_only_a_part_of_the_set_at_a_time(tmp_path: Path, encoding: Encoding) -> None:
    known = make_set(tmp_path / "set", (20,) * 12, encoding=encoding)
    remote = RemoteFolder(known.store)
    budget_bytes = 6 * max(s.size_bytes for s in known.manifest.shards)
    cache = ShardCache(remote, tmp_path / "cache", budget_bytes)  # type: ignore[arg-type]
    blocks = ShuffleConfig(kind="block", block_samples=40)
    config = LoaderConfig(download_threads=2)
    with loader(known, cache=cache, shuffle=blocks, config=config) as data:
        for epoch in range(2):
            assert sorted(ids_of(known, data.epoch(epoch))) == list(range(240))
            held = sum(p.stat().st_size for p in (tmp_path / "cache" / "shards").glob("*.tar"))
            assert held <= budget_bytes
    assert len(remote.downloads) <= 2 * 12 + 4
    with pytest.raises(ConfigError, match="set shuffle kind block"):
        loader(known, cache=cache)


def test_balanced_blocks_need_one_more_pass_over_a_set_that_does_not_fit(tmp_path: Path) -> None:
    known = make_set(tmp_path / "set", (20,) * 12)
    remote = RemoteFolder(known.store)
    cache = ShardCache(remote, tmp_path / "cache", 6 * known.manifest.shards[0].size_bytes)  # type: ignore[arg-type]
    blocks = ShuffleConfig(kind="block", block_samples=40, balanced=True)
    config = LoaderConfig(download_threads=2)
    with loader(known, cache=cache, shuffle=blocks, config=config) as data:
        for epoch in range(2):
            ids = ids_of(known, data.epoch(epoch))
            assert known.labels_N[ids].mean() == 0.5
    assert len(remote.downloads) <= 3 * 12 + 8


def test_each_shard_is_downloaded_once_for_all_ranks(tmp_path: Path) -> None:
    known = make_set(tmp_path / "set", (10,) * 9)
    remote = RemoteFolder(known.store)
    results: dict[int, list[int]] = {}

    def run(rank: int) -> None:
        cache = ShardCache(remote, tmp_path / "cache")  # type: ignore[arg-type]
        with loader(known, cache=cache, batch_size=9, rank=rank, world_size=3) as data:
            results[rank] = ids_of(known, data.epoch())

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chain(*results.values())) == list(range(90))
    assert sorted(remote.downloads) == sorted(s.name for s in known.manifest.shards)


@pytest.mark.parametrize("kind", ["full", "block"])
def test_balanced_epochs_alternate_classes(tmp_path: Path, kind: Literal["full", "block"]) -> None:
    known = make_set(tmp_path / "set", (30, 30), split=Split.TRAIN)
    with loader(known, shuffle=ShuffleConfig(kind=kind, balanced=True), batch_size=10) as data:
        for batch in data.epoch():
            assert batch.labels_B.sum() == 5


def test_a_missing_shard_is_an_error_in_its_place_never_fewer_samples(
    known: KnownSet, tmp_path: Path
) -> None:
    remote = RemoteFolder(known.store)
    name = known.manifest.shards[2].name
    (tmp_path / "set" / name).unlink()
    cache = ShardCache(remote, tmp_path / "cache")  # type: ignore[arg-type]
    with (
        loader(known, cache=cache, training=False) as data,
        pytest.raises(ObjectNotFoundError, match=name),
    ):
        list(data.epoch())


def test_a_loop_may_be_left_early_and_begun_again(known: KnownSet) -> None:
    before = threading.active_count()
    with loader(known) as data:
        for _ in range(5):
            for _batch in data.epoch():
                break
        assert len(ids_of(known, data.epoch())) == 96
    time.sleep(0.05)
    assert threading.active_count() <= before + 1


@pytest.mark.parametrize("ahead_batches", [0, 1])
@pytest.mark.parametrize("end", ["another epoch", "close"])
def test_an_epoch_ended_from_outside_never_looks_complete(
    known: KnownSet, end: str, ahead_batches: int
) -> None:
    data = loader(known, batch_size=4, config=LoaderConfig(ahead_batches=ahead_batches))
    first = data.epoch()
    next(first)
    if end == "close":
        data.close()
    else:
        assert len(ids_of(known, data.epoch())) == 96
    with pytest.raises(ConfigError, match="one epoch at a time"):
        list(first)
    data.close()


def test_the_wait_fraction_tells_slow_data_from_slow_work(known: KnownSet) -> None:
    with loader(known) as data:
        for _batch in data.epoch():
            time.sleep(0.02)
        slow_work = data.wait_fraction
        for _batch in data.epoch():
            pass
        no_work = data.wait_fraction
    assert 0 <= slow_work < 0.5 < no_work <= 1


def test_unfit_settings_are_refused_before_any_download(known: KnownSet) -> None:
    with pytest.raises(ConfigError, match="set the batch size to 10 or 15"):
        loader(known, batch_size=12, world_size=5)
    with pytest.raises(ConfigError, match="do not fill"):
        loader(known, batch_size=1000)
    with loader(known) as data:
        assert list(data.epoch(0, start_step=8)) == []
        with pytest.raises(ConfigError, match="a step within 0 to 8"):
            data.epoch(0, start_step=9)
    with pytest.raises(ManifestError, match="no test split"):
        PatchLoader(known.manifest, known.store, Split.TEST, batch_size=4, training=False)


def test_batches_are_new_only_where_that_is_promised(known: KnownSet) -> None:
    """On a CPU ``ahead_batches`` + 1 buffers take turns; the one just handed out stays as it is."""
    with loader(known, batch_size=4) as data:
        for batch in data.epoch():
            held = batch.images_BHWC.clone()
            time.sleep(0.002)
            assert (batch.images_BHWC == held).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_batches_reach_the_gpu_whole(known: KnownSet, config: LoaderConfig) -> None:
    with loader(known, device="cuda", config=config, batch_size=4) as data:
        kept = [(b.images_BHWC, b.sample_ids_B) for b in data.epoch()]
    for images, ids in kept:
        assert (images.cpu().numpy() == known.pixels_NHWC[ids.cpu().numpy()]).all()


def test_a_set_cannot_be_shared_without_a_process_group(known: KnownSet) -> None:
    config = LoaderConfig(resident="shared")
    with (
        loader(known, config=config, rank=1, world_size=2) as data,
        pytest.raises(ConfigError, match="group"),
    ):
        next(data.epoch())


def test_labels_are_read_only_once(known: KnownSet, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []

    def labels(record: ShardRecord, cache: ShardCache) -> npt.NDArray[np.int8]:
        names.append(record.name)
        return read_labels(record, cache)

    monkeypatch.setattr("sentinode.data.loader.read_labels", labels)
    with loader(known, shuffle=ShuffleConfig(balanced=True)) as data:
        list(data.epoch(0))
        list(data.epoch(1))
    assert names == [record.name for record in known.manifest.shards]
