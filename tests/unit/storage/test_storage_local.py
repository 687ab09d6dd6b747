"""What is particular to local folders; the promises of every store are in tests/integration/storage."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sentinode.errors import IntegrityError, ObjectNotFoundError, PreconditionFailedError, StoreError
from sentinode.storage.files import typed_os_errors
from sentinode.storage.local import LocalStore


def create(store: LocalStore, writer: int) -> bool:
    try:
        store.put("lock", str(writer).encode(), if_none_match=True)
    except PreconditionFailedError:
        return False
    return True


def count(store: LocalStore, increments: int) -> None:
    done = 0
    while done < increments:
        value, etag = store.get_with_etag("counter")
        try:
            store.put("counter", str(int(value) + 1).encode(), if_match=etag)
            done += 1
        except PreconditionFailedError:
            continue


class TestRacingProcesses:
    def test_one_creator_wins(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path)
        with multiprocessing.get_context("fork").Pool(4) as pool:
            won = pool.starmap(create, [(store, writer) for writer in range(16)])
        assert sum(won) == 1
        assert store.get("lock") == str(won.index(True)).encode()

    def test_no_increment_is_lost(self, tmp_path: Path) -> None:
        store = LocalStore(tmp_path)
        store.put("counter", b"0")
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pool.starmap(count, [(store, 25)] * 4)
        assert store.get("counter") == b"100"


def test_an_etag_never_comes_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    etags = {store.put("k", content) for content in [b"1", b"2", b"1"] * 100}
    assert len(etags) == 300


def test_the_etag_grows_although_the_clock_goes_back(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    future_ns = 1 << 62
    store.put("k", b"1")
    os.utime(tmp_path / "k", ns=(future_ns, future_ns))
    before = store.stat("k")
    assert before is not None
    etag = store.put("k", b"2", if_match=before.etag)
    assert etag != before.etag
    assert (tmp_path / "k").stat().st_mtime_ns > future_ns


def test_a_file_changed_by_another_program_is_another_version(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    etag = store.put("k", b"1")
    (tmp_path / "k").write_bytes(b"23")
    with pytest.raises(PreconditionFailedError, match="changed"):
        store.put("k", b"4", if_match=etag)


def test_locks_and_temporary_files_are_no_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/k", b"1")
    (tmp_path / "a" / ".sentinode.0123.tmp").write_bytes(b"left by a killed writer")
    assert [info.key for info in store.list()] == ["a/k"]
    assert store.get("a/k") == b"1"
    with pytest.raises(ObjectNotFoundError):
        store.get("a/.sentinode.0123.tmp")


def test_a_reader_keeps_the_version_that_it_opened(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("k", b"one")
    with (tmp_path / "k").open("rb") as reading:
        store.put("k", b"two")
        assert reading.read() == b"one"


def test_missing_folder_is_an_empty_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "none")
    assert list(store.list()) == []
    assert store.stat("k") is None
    store.delete("k")
    assert not (tmp_path / "none").exists()


def test_folders_are_no_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"1")
    assert store.stat("a") is None
    with pytest.raises(ObjectNotFoundError, match="directory"):
        store.get("a")
    with pytest.raises(StoreError, match="directory"):
        store.put("a", b"1")
    assert store.stat("a/b/c") is None
    with pytest.raises(StoreError):
        store.put("a/b/c", b"1")
    assert store.get("a/b") == b"1"


def test_names_that_can_be_no_key_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = LocalStore(tmp_path)
    store.put("k", b"1")
    for name in (b"\xff.tif", b"Icon\r"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    assert [info.key for info in store.list()] == [info.key for info in store.list()] == ["k"]
    assert len(caplog.records) == 2, "each is told once"
    assert "Icon\\r" in caplog.text
    caplog.text.encode()


def test_linked_folders_are_listed_where_asked_for(tmp_path: Path) -> None:
    LocalStore(tmp_path / "big").put("n.tif", b"1")
    store = LocalStore(tmp_path / "slides")
    store.put("tumor/a.tif", b"1")
    (tmp_path / "slides" / "normal").symlink_to(tmp_path / "big")
    (tmp_path / "slides" / "latest").symlink_to(tmp_path / "slides" / "tumor")
    (tmp_path / "big" / "loop").symlink_to(tmp_path / "big")
    assert [info.key for info in store.list(linked=True)] == ["normal/n.tif", "tumor/a.tif"]
    assert [info.key for info in store.list()] == ["tumor/a.tif"], "what is deleted lies in the store itself"


def test_download_to_a_place_that_is_no_folder(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put("k", b"1")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file/k"):
        store.download("k", tmp_path / "file" / "k")


def test_pickles(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert pickle.loads(pickle.dumps(store)) == store  # noqa: S301


def test_a_full_device_is_a_store_error() -> None:
    with (
        pytest.raises(StoreError, match=r"/data/k: No space left on device") as error,
        typed_os_errors("/data/k"),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert "free some space" in error.value.remedy


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        folder = tmp_path / "disk"
        folder.mkdir()
        mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mounting, capture_output=True).returncode:
            pytest.skip("may not mount a small file system here")
        yield folder
        subprocess.run(["umount", str(folder)], check=True)

    def test_nothing_is_left_behind(self, small_disk: Path, tmp_path: Path) -> None:
        store = LocalStore(small_disk)
        store.put("k", b"old")
        with pytest.raises(StoreError, match="No space left"):
            store.put("k", bytes(100_000))
        (tmp_path / "large").write_bytes(bytes(100_000))
        with pytest.raises(StoreError, match="No space left"):
            store.upload(tmp_path / "large", "k")
        other = LocalStore(tmp_path)
        with pytest.raises(StoreError, match="No space left"):
            other.download("large", small_disk / "copy")
        assert store.get("k") == b"old"
        assert {path.name for path in small_disk.iterdir()} == {"k", ".sentinode.lock"}


def test_a_damaged_file_is_not_downloaded(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("k", b"12345")
    with pytest.raises(IntegrityError, match="4 bytes"):
        store.download("k", tmp_path / "copy", size_bytes=4)
    assert not (tmp_path / "copy").exists()
