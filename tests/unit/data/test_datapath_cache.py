"""The node cache: once per node, verified, within its budget, never pulled from under a reader."""

from __future__ import annotations

import mmap
import os
import pickle
import threading
from pathlib import Path

import pytest
from datapath_parts import KnownSet, RemoteFolder, make_set

from sentinode.data.cache import ShardCache, default_folder
from sentinode.data.manifest import ShardRecord
from sentinode.data.mapping import Mapping
from sentinode.errors import ConfigError, IntegrityError, ObjectNotFoundError, StoreError
from sentinode.storage import open_store


@pytest.fixture
def known(tmp_path: Path) -> KnownSet:
    return make_set(tmp_path / "source", (8, 8, 8, 8))


@pytest.fixture
def remote(known: KnownSet) -> RemoteFolder:
    return RemoteFolder(known.store)


def cache_of(remote: RemoteFolder, folder: Path, budget_bytes: int | None = None) -> ShardCache:
    return ShardCache(remote, folder / "cache", budget_bytes)  # type: ignore[arg-type]


def test_a_shard_is_downloaded_once_for_all_threads(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path
) -> None:
    record = known.manifest.shards[0]
    caches = [cache_of(remote, tmp_path) for _ in range(6)]
    threads = [threading.Thread(target=cache.fetch, args=(record,)) for cache in caches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert remote.downloads == [record.name]
    assert caches[0].fetch(record).read_bytes() == known.store.get(record.name)
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


def test_a_busy_shard_is_left_to_whoever_downloads_it(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path
) -> None:
    first, second = known.manifest.shards[:2]
    remote.gate = threading.Barrier(2)
    cache = cache_of(remote, tmp_path)
    thread = threading.Thread(target=cache.fetch, args=(first,))
    thread.start()
    while not remote.downloads:
        pass
    assert not cache.fetch_unless_busy(first)
    remote.gate.wait()
    thread.join()
    remote.gate = None
    assert cache.fetch_unless_busy(first)
    assert cache.fetch_unless_busy(second)
    assert remote.downloads == [first.name, second.name]


@pytest.mark.parametrize("damage", ["flipped byte", "cut", "empty", "replaced", "gone"])
def test_a_damaged_shard_is_fetched_anew(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path, damage: str
) -> None:
    record = known.manifest.shards[0]
    path = cache_of(remote, tmp_path).fetch(record)
    good = path.read_bytes()
    match damage:
        case "flipped byte":
            with path.open("r+b") as file:
                file.seek(5000)
                file.write(bytes([good[5000] ^ 255]))
        case "cut":
            os.truncate(path, record.size_bytes - 512)
        case "empty":
            os.truncate(path, 0)
        case "replaced":
            path.unlink()
            path.write_bytes(good[::-1])
        case "gone":
            path.unlink()
    assert cache_of(remote, tmp_path).fetch(record).read_bytes() == good
    assert len(remote.downloads) == 2


def test_an_untouched_shard_is_not_hashed_again_and_a_touched_one_is(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = known.manifest.shards[0]
    path = cache_of(remote, tmp_path).fetch(record)
    hashed: list[Path] = []

    def intact(path: Path, record: ShardRecord) -> bool:
        hashed.append(path)
        return True

    monkeypatch.setattr("sentinode.data.cache._intact", intact)
    cache_of(remote, tmp_path).fetch(record)
    assert hashed == []
    os.utime(path)
    cache_of(remote, tmp_path).fetch(record)
    cache_of(remote, tmp_path).fetch(record)
    assert hashed == [path]
    monkeypatch.setattr("sentinode.data.cache._BOOT_ID", tmp_path / "none")
    cache_of(remote, tmp_path).fetch(record)
    assert hashed == [path, path], "after a restart of the machine"


def test_equal_base_names_of_two_data_sets_never_meet(tmp_path: Path) -> None:
    sets = [make_set(tmp_path / name, (4,), seed=seed) for seed, name in enumerate("ab")]
    paths = [
        cache_of(RemoteFolder(s.store), tmp_path).fetch(s.manifest.shards[0])  # one cache for both
        for s in sets
    ]
    assert sets[0].manifest.shards[0].name == sets[1].manifest.shards[0].name
    assert paths[0] != paths[1]
    assert paths[0].read_bytes() != paths[1].read_bytes()


def test_least_recently_used_shards_make_way_and_used_ones_stay(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path
) -> None:
    a, b, c, d = known.manifest.shards
    cache = cache_of(remote, tmp_path, budget_bytes=2 * a.size_bytes)
    for record, age_s in ((a, 300), (b, 200)):
        cache.fetch(record)
        os.utime(cache.path(record).with_name(f"{cache.path(record).name}.lock"), (0, 10**9 - age_s))
    cache.fetch(a)
    cache.fetch(c)
    assert cache.path(a).exists()
    assert not cache.path(b).exists(), "b was used least recently"
    with cache.lease(a), cache.lease(c), pytest.raises(StoreError, match="are in use"):
        cache.fetch(d)
    cache.fetch(d)
    kept = [r for r in (a, b, c, d) if cache.path(r).exists()]
    assert d in kept
    assert len(kept) == 2


def test_a_lease_lasts_as_long_as_a_map_of_the_file(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path
) -> None:
    a, b = known.manifest.shards[:2]
    cache = cache_of(remote, tmp_path, budget_bytes=a.size_bytes)
    arena = Mapping(a.size_bytes)
    with cache.lease(a) as file:
        arena.place(file, 0, a.size_bytes)
    with pytest.raises(StoreError, match="are in use"):
        cache.fetch(b)
    assert bytes(arena.bytes_[257:262].tolist()) == b"ustar"
    arena.clear(0, a.size_bytes)
    cache.fetch(b)
    assert not cache.path(a).exists()
    with cache.lease(b) as file:
        plain = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with pytest.raises(StoreError, match="are in use"):
        cache.fetch(a)
    plain.close()
    cache.fetch(a)


def test_the_budget_counts_again_after_a_kill(known: KnownSet, remote: RemoteFolder, tmp_path: Path) -> None:
    a, b = known.manifest.shards[:2]
    cache = cache_of(remote, tmp_path, budget_bytes=2 * a.size_bytes)
    cache.fetch(a)
    (tmp_path / "cache" / "usage").write_text(str(10**12))  # reserved by a process that was killed
    leftover = tmp_path / "cache" / "partial" / f"{cache.path(b).name}.{b.size_bytes}"
    leftover.mkdir()
    (leftover / "half").write_bytes(b"x" * 1000)
    other = tmp_path / "cache" / "partial" / f"other.{10**12}"
    other.mkdir()
    cache.fetch(b)
    assert not other.exists()
    assert cache.path(a).exists()
    assert cache.path(b).exists()
    assert int((tmp_path / "cache" / "usage").read_text()) <= 2 * a.size_bytes


@pytest.mark.parametrize("content", ["", "12x", "-5"])
def test_a_torn_count_is_made_anew(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path, content: str
) -> None:
    a, b = known.manifest.shards[:2]
    cache = cache_of(remote, tmp_path)
    cache.fetch(a)
    (tmp_path / "cache" / "usage").write_text(content)
    cache.fetch(b)
    assert int((tmp_path / "cache" / "usage").read_text()) == 2 * a.size_bytes


def test_a_shard_larger_than_the_budget_is_a_configuration_error(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="raise the budget"):
        cache_of(remote, tmp_path, budget_bytes=1000).fetch(known.manifest.shards[0])


def test_wrong_bytes_and_missing_shards_name_shard_and_place(
    known: KnownSet, remote: RemoteFolder, tmp_path: Path
) -> None:
    record = known.manifest.shards[0]
    path = tmp_path / "source" / record.name
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(IntegrityError, match=rf"{remote.url}/{record.name}"):
        cache_of(remote, tmp_path).fetch(record)
    path.unlink()
    with pytest.raises(ObjectNotFoundError, match=rf"{remote.url}/{record.name}"):
        cache_of(remote, tmp_path).fetch(record)
    assert (tmp_path / "cache" / "usage").read_text() == "0"
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


def test_shards_of_a_local_folder_are_used_where_they_lie(known: KnownSet, tmp_path: Path) -> None:
    cache = ShardCache(known.store, tmp_path / "cache")
    record = known.manifest.shards[0]
    path = tmp_path / "source" / record.name
    assert cache.fetch(record) == path
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(IntegrityError, match="differs from what the manifest states"):
        cache.fetch(record)
    path.unlink()
    with pytest.raises(ObjectNotFoundError):
        cache.fetch(record)


def test_an_unusable_folder_is_a_store_error(known: KnownSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="SENTINODE_CACHE"):
        ShardCache(known.store, tmp_path / "file" / "cache")


def test_the_default_folder_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SENTINODE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.setenv("SENTINODE_CACHE", "~/shards")  # in a file of variables no shell expands it
    assert default_folder() == Path.home() / "shards"
    monkeypatch.delenv("SENTINODE_CACHE")
    assert default_folder() == Path.home() / ".cache" / "sentinode" / "shards"


def test_a_cache_travels_to_other_processes(known: KnownSet, tmp_path: Path) -> None:
    sent = pickle.dumps(ShardCache(open_store(known.store.url), tmp_path / "cache", 10**9))
    cache = pickle.loads(sent)  # noqa: S301
    assert cache.budget_bytes == 10**9
    assert cache.fetch(known.manifest.shards[0]).exists()
