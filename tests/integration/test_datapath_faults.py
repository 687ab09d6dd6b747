"""The data path on a real S3 server behind a proxy that breaks things: right bytes, or an error that tells why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import faults
import pytest
from datapath_parts import KnownSet, make_set
from faults import Fault, FaultProxy

from sentinode.data.cache import ShardCache
from sentinode.data.loader import PatchLoader
from sentinode.errors import IntegrityError, ObjectNotFoundError, StoreAccessError, StoreError
from sentinode.schema import Split
from sentinode.storage import Store
from sentinode.storage.embedded import EmbeddedStore
from sentinode.storage.s3 import S3Store

WORKER = Path(__file__).with_name("datapath_worker.py")
BATCH = 16
SHARDS = 8


@dataclass(frozen=True)
class Remote:
    """A known set in S3, reached through a proxy."""

    known: KnownSet
    store: S3Store
    proxy: FaultProxy

    def read(self, folder: Path) -> list[int]:
        """Sample ids of an epoch, after a check of every pixel."""
        ids: list[int] = []
        with PatchLoader(
            self.known.manifest,
            self.store,
            Split.TRAIN,
            batch_size=BATCH,
            training=True,
            cache=ShardCache(self.store, folder),
        ) as loader:
            for batch in loader.epoch():
                mine = batch.sample_ids_B.numpy()
                assert (batch.images_BHWC.numpy() == self.known.pixels_NHWC[mine]).all()
                ids += mine.tolist()
        return ids

    def start(self, out: Path, *numbers: int) -> subprocess.Popen[bytes]:
        """A worker that shares this test's cache; ``numbers``: rank, world, epoch, start and stop step."""
        command = [
            sys.executable,
            str(WORKER),
            self.store.url,
            "train",
            str(BATCH),
            *map(str, numbers),
            str(out),
        ]
        return subprocess.Popen(command, env=dict(os.environ))


@pytest.fixture
def remote(
    embedded_store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Remote]:
    known = make_set(tmp_path / "set", (20,) * SHARDS)
    for name, value in embedded_store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(S3Store, "read_timeout_s", 1.0)
    monkeypatch.setattr(S3Store, "attempts", 3)
    store = S3Store(embedded_store.bucket, uuid4().hex)
    upload(known, tmp_path / "set", store)
    with FaultProxy(embedded_store.endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
        yield Remote(known, store, proxy)


def upload(known: KnownSet, folder: Path, store: Store) -> None:
    for record in known.manifest.shards:
        store.upload(folder / record.name, record.name)
    store.put("manifest.json", known.manifest.to_json())


TRANSIENT = {
    "500": faults.error(500, "InternalError"),
    "503": faults.error(503, "SlowDown"),
    "slow": faults.delay(0.3),
    "stalled": faults.stall(5000, 4),
    "late answer": faults.delay(3),
    "reset": faults.reset(5000),
    "cut short": faults.truncate(70_000),
    "wrong byte": faults.flip(12_345),
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_passing_fault_is_survived(remote: Remote, tmp_path: Path, fault: Fault) -> None:
    remote.proxy.fail(r"GET .*train-000003\.tar", 1, fault)
    remote.proxy.fail(r"GET .*train-000006\.tar", 2 if fault.name != "flip" else 1, fault)
    assert sorted(remote.read(tmp_path / "cache")) == list(range(20 * SHARDS))


LASTING: dict[str, tuple[Fault, type[StoreError], str]] = {
    "500": (faults.error(500, "InternalError"), StoreError, "InternalError"),
    "503": (faults.error(503, "SlowDown"), StoreError, "SlowDown"),
    "stalled": (faults.stall(5000, 4), StoreError, r"of \d+ bytes"),
    "reset": (faults.reset(5000), StoreError, r"of \d+ bytes"),
    "cut short": (faults.truncate(70_000), StoreError, r"of \d+ bytes"),
    "wrong byte": (faults.flip(12_345), IntegrityError, "SHA-256"),
    "expired credentials": (faults.expired_token(), StoreAccessError, "ExpiredToken"),
    "missing": (faults.not_found(), ObjectNotFoundError, "NoSuchKey"),
}


@pytest.mark.parametrize(("fault", "kind", "cause"), LASTING.values(), ids=LASTING.keys())
def test_a_lasting_fault_is_an_error_that_names_shard_bucket_and_cause(
    remote: Remote, tmp_path: Path, fault: Fault, kind: type[StoreError], cause: str
) -> None:
    remote.proxy.fail(r"GET .*train-000005\.tar", None, fault)
    began = time.monotonic()
    with pytest.raises(kind, match=cause) as caught:
        remote.read(tmp_path / "cache")
    assert time.monotonic() - began < 60
    assert f"s3://{remote.store.bucket}/" in str(caught.value)
    assert "train-000005.tar" in str(caught.value)
    assert type(caught.value) is kind
    asked = sum("train-000005.tar" in r and r.startswith("GET") for r in remote.proxy.requests)
    assert asked <= 20, "retries are bounded"
    remote.proxy.clear()
    assert sorted(remote.read(tmp_path / "cache")) == list(range(20 * SHARDS)), "nothing bad was kept"


def test_a_shard_that_is_gone_is_an_error(remote: Remote, tmp_path: Path) -> None:
    remote.store.delete(remote.known.manifest.shards[2].name)
    with pytest.raises(ObjectNotFoundError, match=r"s3://.*train-000002\.tar"):
        remote.read(tmp_path / "cache")


def test_workers_of_one_node_download_each_shard_once(remote: Remote, tmp_path: Path) -> None:
    remote.proxy.fail(r"GET .*\.tar", None, faults.delay(0.2))
    workers = [remote.start(tmp_path / f"rank{rank}", rank, 4, 0, 0, -1) for rank in range(4)]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * 4
    gets = Counter(re.findall(r"GET \S+?(train-\d+\.tar)", "\n".join(remote.proxy.requests)))
    assert gets == Counter({f"train-{i:06d}.tar": 1 for i in range(SHARDS)})
    assert sorted(seen(remote, *(tmp_path / f"rank{rank}" for rank in range(4)))) == list(range(160))


def test_a_worker_killed_while_it_downloads_leaves_nothing_broken(remote: Remote, tmp_path: Path) -> None:
    remote.proxy.fail(r"GET .*train-00000[2-4]\.tar", 3, faults.stall(300_000, 60))
    worker = remote.start(tmp_path / "killed", 0, 1, 0, 0, -1)
    cache = Path(os.environ["SENTINODE_CACHE"])
    wait_for(lambda: len(list(cache.glob("partial/*/*"))) >= 3 and len(list(cache.glob("shards/*.tar"))) >= 5)
    worker.kill()
    worker.wait()
    assert list(cache.glob("partial/*/*")), "it was killed in the middle"
    began = time.monotonic()
    assert sorted(remote.read(cache)) == list(range(160))
    assert time.monotonic() - began < 20, "locks of the dead do not hold up the living"
    assert list(cache.glob("partial/*")) == []


@pytest.mark.parametrize("ranks_after", [1, 2, 4])
def test_a_run_killed_within_an_epoch_goes_on_with_the_samples_not_yet_seen(
    remote: Remote, tmp_path: Path, ranks_after: int
) -> None:
    workers = [remote.start(tmp_path / f"before{rank}", rank, 2, 7, 0, 4) for rank in range(2)]
    assert [worker.wait(timeout=120) for worker in workers] == [-9, -9]
    before = seen(remote, *(tmp_path / f"before{rank}" for rank in range(2)))
    workers = [
        remote.start(tmp_path / f"after{rank}", rank, ranks_after, 7, 4, -1) for rank in range(ranks_after)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * ranks_after
    after = seen(remote, *(tmp_path / f"after{rank}" for rank in range(ranks_after)))
    assert len(before) == 4 * BATCH
    assert sorted(before + after) == list(range(160))


def test_a_full_disk_is_an_error_that_names_shard_and_cause(remote: Remote, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        with (
            pytest.raises(StoreError, match="No space left") as caught,
            PatchLoader(
                remote.known.manifest,
                remote.store,
                Split.TRAIN,
                batch_size=BATCH,
                training=True,
                cache=ShardCache(remote.store, small, budget_bytes=10**9),
            ) as loader,
        ):
            list(loader.epoch())
        assert re.search(r"s3://\S+train-00000\d\.tar", str(caught.value))
        left = [path.stat().st_size for path in (small / "shards").glob("*.tar")]
        assert set(left) <= {remote.known.manifest.shards[0].size_bytes}, (
            "no half shard passes for a whole one"
        )
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def wait_for(condition: object, timeout_s: float = 60) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(FileNotFoundError):  # a folder that goes while it is listed
            if condition():
                return
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def seen(remote: Remote, *notes: Path) -> list[int]:
    """The sample ids that workers noted, after a check that each had the right pixels."""
    ids = []
    for path in notes:
        for number, key in re.findall(r"(\d+):(\w+)", path.read_text()):
            assert remote.known.keys[int(number)] == key
            ids.append(int(number))
    return ids
