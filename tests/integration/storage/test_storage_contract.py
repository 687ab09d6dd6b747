"""What every store promises (storage/interface.py), asked of a local folder, moto's server and Ceph's gateway."""

from __future__ import annotations

import hashlib
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from sentinode.errors import (
    ConfigError,
    IntegrityError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreError,
)
from sentinode.storage import ObjectInfo, Store

BIG_BYTES = (11 << 20) + 7
"""Three parts of at most 5 MiB."""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("big") / "big.bin"
    path.write_bytes(random.Random(1).randbytes(BIG_BYTES))
    return path


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.tmp")]


class TestSmallObjects:
    def test_put_then_get_and_stat(self, store: Store) -> None:
        etag = store.put("a/b.json", b"hello")
        assert store.get("a/b.json") == b"hello"
        assert store.get_with_etag("a/b.json") == (b"hello", etag)
        assert store.stat("a/b.json") == ObjectInfo("a/b.json", 5, etag)
        assert store.locate("a/b.json") == f"{store.url}/a/b.json"

    def test_overwriting_changes_the_etag(self, store: Store) -> None:
        first = store.put("k", b"one")
        second = store.put("k", b"two")
        assert first != second
        assert store.get_with_etag("k") == (b"two", second)

    def test_empty_object(self, store: Store, tmp_path: Path) -> None:
        store.put("empty", b"")
        assert store.get("empty") == b""
        store.download("empty", tmp_path / "empty", sha256=hashlib.sha256().hexdigest(), size_bytes=0)
        assert (tmp_path / "empty").read_bytes() == b""

    @pytest.mark.parametrize(
        "key", ["with space", "plus+and%41", "ünï/cödé", "a=b&c?d#e", "~.hidden", "x" * 200]
    )
    def test_keys_with_special_characters(self, store: Store, key: str) -> None:
        store.put(key, key.encode())
        assert store.get(key) == key.encode()
        assert [info.key for info in store.list()] == [key]

    @pytest.mark.parametrize("key", ["", "/a", "../a", "a/../b", "a//b", "a/", "a\n", "."])
    def test_keys_that_climb_or_are_empty(self, store: Store, key: str) -> None:
        with pytest.raises(ConfigError):
            store.put(key, b"")
        with pytest.raises(ConfigError):
            store.get(key)

    def test_missing_object(self, store: Store, tmp_path: Path) -> None:
        assert store.stat("no/such") is None
        for read in (store.get, store.get_with_etag, lambda key: store.download(key, tmp_path / "x")):
            with pytest.raises(ObjectNotFoundError, match="no/such"):
                read("no/such")
        assert not (tmp_path / "x").exists()

    def test_delete(self, store: Store) -> None:
        store.put("k", b"1")
        store.delete("k")
        store.delete("k")
        assert store.stat("k") is None
        assert list(store.list()) == []


class TestRanges:
    @pytest.mark.parametrize(
        ("start", "length", "expected"),
        [
            (0, 3, b"012"),
            (4, 3, b"456"),
            (7, None, b"789"),
            (9, 1, b"9"),
            (0, 10, b"0123456789"),
            (3, 0, b""),
        ],
    )
    def test_within(self, store: Store, start: int, length: int | None, expected: bytes) -> None:
        store.put("digits", b"0123456789")
        assert store.get("digits", start=start, length=length) == expected

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (8, 3), (10, None), (12, 1)])
    def test_beyond_the_end(self, store: Store, start: int, length: int | None) -> None:
        store.put("digits", b"0123456789")
        with pytest.raises(IntegrityError, match="digits"):
            store.get("digits", start=start, length=length)


class TestConditionalPut:
    def test_create_only(self, store: Store) -> None:
        store.put("k", b"first", if_none_match=True)
        with pytest.raises(PreconditionFailedError, match="/k"):
            store.put("k", b"second", if_none_match=True)
        assert store.get("k") == b"first"

    def test_replace_only_the_version_read(self, store: Store) -> None:
        first = store.put("k", b"one")
        second = store.put("k", b"two", if_match=first)
        with pytest.raises(PreconditionFailedError, match="/k"):
            store.put("k", b"three", if_match=first)
        assert store.get_with_etag("k") == (b"two", second)

    def test_replace_what_is_not_there(self, store: Store) -> None:
        with pytest.raises(PreconditionFailedError):
            store.put("k", b"one", if_match="0123456789abcdef0123456789abcdef")
        assert store.stat("k") is None

    def test_both_conditions(self, store: Store) -> None:
        with pytest.raises(ConfigError):
            store.put("k", b"", if_none_match=True, if_match="x")

    def test_one_of_racing_creators_wins(self, store: Store) -> None:
        writers, rounds = 4, 10
        start = Barrier(writers)

        def create(writer: int, turn: int) -> bool:
            start.wait()
            try:
                store.put(f"k{turn}", str(writer).encode(), if_none_match=True)
            except PreconditionFailedError:
                return False
            return True

        with ThreadPoolExecutor(writers) as pool:
            for turn in range(rounds):
                won = list(pool.map(create, range(writers), [turn] * writers))
                assert sum(won) == 1
                assert store.get(f"k{turn}") == str(won.index(True)).encode()

    def test_no_increment_of_racing_counters_is_lost(self, store: Store) -> None:
        writers, increments = 3, 8
        store.put("counter", b"0")

        def count(_: int) -> None:
            done = tries = 0
            while done < increments:
                tries += 1
                assert tries < 500
                value, etag = store.get_with_etag("counter")
                try:
                    store.put("counter", str(int(value) + 1).encode(), if_match=etag)
                    done += 1
                except PreconditionFailedError:
                    continue

        with ThreadPoolExecutor(writers) as pool:
            list(pool.map(count, range(writers)))
        assert store.get("counter") == str(writers * increments).encode()


class TestList:
    def test_more_than_a_page_in_key_order(self, store: Store) -> None:
        keys = [f"shards/{i:04d}" for i in range(1003)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: store.put(key, b"x"), keys))
        assert [(info.key, info.size_bytes) for info in store.list("shards/")] == [(key, 1) for key in keys]

    def test_prefix_order_and_sub(self, store: Store) -> None:
        for key in ("a/2", "a/1", "a-b", "a.c", "ab/3", "z"):
            store.put(key, key.encode())
        assert [info.key for info in store.list()] == ["a-b", "a.c", "a/1", "a/2", "ab/3", "z"]
        assert [info.key for info in store.list("a")] == ["a-b", "a.c", "a/1", "a/2", "ab/3"]
        assert [info.key for info in store.list("a/")] == ["a/1", "a/2"]
        assert [info.key for info in store.list("none")] == []
        below = store.sub("a")
        assert [info.key for info in below.list()] == ["1", "2"]
        assert below.get("1") == b"a/1"
        assert below.url == f"{store.url}/a"

    def test_etags_are_those_of_stat(self, store: Store) -> None:
        store.put("k", b"1")
        assert list(store.list()) == [store.stat("k")]


class TestFiles:
    def test_large_file_goes_and_comes_back(self, store: Store, big: Path, tmp_path: Path) -> None:
        sent: list[int] = []
        received: list[int] = []
        info = store.upload(big, "big", progress=sent.append)
        assert info.size_bytes == sum(sent) == BIG_BYTES
        assert info == store.stat("big")
        digest = hashlib.sha256(big.read_bytes()).hexdigest()
        store.download(
            "big", tmp_path / "in/new", sha256=digest, size_bytes=BIG_BYTES, progress=received.append
        )
        assert (tmp_path / "in/new").read_bytes() == big.read_bytes()
        assert sum(received) == BIG_BYTES
        assert len(received) > 1
        assert store.get("big", start=5 << 20, length=9) == big.read_bytes()[5 << 20 : (5 << 20) + 9]
        assert store.get("big") == big.read_bytes()

    def test_small_file(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "small").write_bytes(b"small")
        store.upload(tmp_path / "small", "k")
        assert store.get("k") == b"small"

    @pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size_bytes": 4}])
    def test_mismatch_leaves_the_old_file(
        self, store: Store, tmp_path: Path, wrong: dict[str, object]
    ) -> None:
        store.put("k", b"12345")
        (tmp_path / "file").write_bytes(b"old")
        with pytest.raises(IntegrityError, match="/k"):
            store.download("k", tmp_path / "file", **wrong)  # type: ignore[arg-type]
        assert (tmp_path / "file").read_bytes() == b"old"
        assert leftovers(tmp_path) == []

    def test_file_to_upload_is_missing(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="absent"):
            store.upload(tmp_path / "absent", "k")
        assert store.stat("k") is None


def test_used_in_a_forked_process_after_use_in_this_one(store: Store) -> None:
    store.put("k", b"1")
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(store.get, ["k"] * 4)) == [b"1"] * 4
