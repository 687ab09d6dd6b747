"""Whatever goes wrong on the wire: the right bytes come, or a typed error that names bucket, key and cause."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import faults
import pytest
from faults import Fault, FaultProxy

from sentinode.errors import (
    IntegrityError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreAccessError,
    StoreError,
)
from sentinode.storage.s3 import S3Store

CONTENT = random.Random(2).randbytes((5 << 19) + 3)
"""Three parts of the 1 MiB that the downloads of these tests take at once."""
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LARGE_CONTENT = CONTENT * 3
"""Two parts of the 5 MiB that S3 wants of uploads at least."""

BREAKS = {
    "500": faults.error(500, "InternalError"),
    "503": faults.error(503, "SlowDown"),
    "late": faults.delay(1.5),
    "stall": faults.stall(200_000, 1.5),
    "truncated": faults.truncate(200_000),
    "truncated-at-once": faults.truncate(0),
    "reset": faults.reset(200_000),
    "no-answer": faults.lose_answer(),
}
"""Faults that pass when the request is repeated. 1.5 s is longer than the read time-out of these tests."""

broken = pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in BREAKS.items()])


@pytest.fixture
def proxy(moto: S3Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before moto's server, over which ``moto`` goes from now on, with short time-outs and few attempts."""
    monkeypatch.setattr(S3Store, "connect_timeout_s", 1)
    monkeypatch.setattr(S3Store, "read_timeout_s", 1)
    monkeypatch.setattr(S3Store, "attempts", 4)
    moto.put("k", b"small")
    with FaultProxy(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        yield proxy


@pytest.fixture
def big(moto: S3Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """A stored object that is downloaded in three parts."""
    monkeypatch.setattr(S3Store, "part_bytes", 1 << 20)
    moto.put("big", CONTENT)
    proxy.clear()
    return "big"


def assert_named(error: pytest.ExceptionInfo[StoreError], store: S3Store, key: str, cause: str) -> None:
    assert store.locate(key) in error.value.found
    assert cause in error.value.found


class TestFaultsThatPass:
    @broken
    def test_download(self, moto: S3Store, proxy: FaultProxy, big: str, tmp_path: Path, fault: Fault) -> None:
        proxy.fail("GET .*/big", 2, fault)
        moto.download(big, tmp_path / "got", sha256=SHA256, size_bytes=len(CONTENT))
        assert (tmp_path / "got").read_bytes() == CONTENT

    @broken
    def test_get(self, moto: S3Store, proxy: FaultProxy, big: str, fault: Fault) -> None:
        proxy.fail("GET .*/big", 1, fault)
        assert moto.get(big) == CONTENT
        proxy.fail("GET .*/big", 1, fault)
        assert moto.get(big, start=500_000, length=2_000_000) == CONTENT[500_000:2_500_000]

    @pytest.mark.parametrize(
        "fault", [BREAKS["503"], BREAKS["late"], BREAKS["no-answer"]], ids=lambda fault: fault.name
    )
    def test_upload(self, moto: S3Store, proxy: FaultProxy, tmp_path: Path, fault: Fault) -> None:
        (tmp_path / "file").write_bytes(LARGE_CONTENT)
        proxy.fail("PUT .*/up", 1, fault)
        proxy.fail(r"POST .*/up\?uploads", 1, fault)
        moto.upload(tmp_path / "file", "up")
        assert moto.get("up") == LARGE_CONTENT

    @pytest.mark.parametrize(
        "fault", [BREAKS["503"], BREAKS["late"], BREAKS["no-answer"]], ids=lambda fault: fault.name
    )
    def test_put_stat_list_delete(self, moto: S3Store, proxy: FaultProxy, fault: Fault) -> None:
        proxy.fail("", 1, fault)
        moto.put("k", b"new")
        proxy.fail("", 1, fault)
        assert moto.stat("k") is not None
        proxy.fail("", 1, fault)
        assert [info.key for info in moto.list()] == ["k"]
        proxy.fail("", 1, fault)
        moto.delete("k")
        assert moto.stat("k") is None

    def test_a_broken_body_is_resumed_where_it_stopped(
        self, moto: S3Store, proxy: FaultProxy, big: str
    ) -> None:
        proxy.fail("GET .*/big", 1, faults.truncate(1_500_000))
        assert moto.get(big) == CONTENT
        assert len([r for r in proxy.requests if r.startswith("GET")]) == 2

    def test_a_flipped_byte_is_read_again(
        self, moto: S3Store, proxy: FaultProxy, big: str, tmp_path: Path
    ) -> None:
        proxy.fail("GET .*/big", 1, faults.flip(1234))
        moto.download(big, tmp_path / "got", sha256=SHA256)
        assert (tmp_path / "got").read_bytes() == CONTENT
        proxy.fail("GET .*/k", 1, faults.flip(2))
        assert moto.get("k") == b"small"

    @pytest.mark.parametrize("condition", ["create", "replace"])
    def test_a_won_conditional_put_whose_answer_is_lost(
        self, moto: S3Store, proxy: FaultProxy, condition: str
    ) -> None:
        etag = moto.get_with_etag("k")[1]
        proxy.fail("PUT", 1, faults.lose_answer())
        if condition == "create":
            written = moto.put("new", b"mine", if_none_match=True)
            assert moto.get_with_etag("new") == (b"mine", written)
        else:
            written = moto.put("k", b"mine", if_match=etag)
            assert moto.get_with_etag("k") == (b"mine", written)

    def test_a_lost_conditional_put_stays_lost(self, moto: S3Store, proxy: FaultProxy) -> None:
        proxy.fail("PUT", 1, BREAKS["503"])
        with pytest.raises(PreconditionFailedError):
            moto.put("k", b"mine", if_none_match=True)
        assert moto.get("k") == b"small"


class TestFaultsThatStay:
    @pytest.fixture(autouse=True)
    def give_up_early(self, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(S3Store, "attempts", 2)

    @pytest.mark.parametrize(
        ("fault", "cause"),
        [
            pytest.param(BREAKS["500"], "InternalError", id="500"),
            pytest.param(BREAKS["503"], "SlowDown", id="503"),
            pytest.param(BREAKS["late"], "timeout", id="late"),
            pytest.param(faults.stall(1000, 1.5), "timed out", id="stall"),
            pytest.param(faults.truncate(1000), "attempts", id="truncated"),
            pytest.param(faults.reset(1000), "attempts", id="reset"),
            pytest.param(BREAKS["no-answer"], "Connection", id="no-answer"),
        ],
    )
    @pytest.mark.parametrize("how", ["get", "range", "download"])
    def test_reading(
        self, moto: S3Store, proxy: FaultProxy, big: str, tmp_path: Path, fault: Fault, cause: str, how: str
    ) -> None:
        (tmp_path / "got").write_bytes(b"old")
        read: dict[str, Callable[[], object]] = {
            "get": lambda: moto.get(big),
            "range": lambda: moto.get(big, start=5, length=100_000),
            "download": lambda: moto.download(big, tmp_path / "got", sha256=SHA256),
        }
        proxy.fail("GET .*/big", None, fault)
        begin_s = time.monotonic()
        with pytest.raises(StoreError) as error:
            read[how]()
        assert time.monotonic() - begin_s < 20
        assert_named(error, moto, big, cause)
        assert (tmp_path / "got").read_bytes() == b"old"
        assert not list(tmp_path.glob(".sentinode*"))

    def test_expired_token(self, moto: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
        proxy.fail("(GET|PUT|DELETE) ", None, faults.expired_token())
        calls: list[Callable[[], object]] = [
            lambda: moto.get("k"),
            lambda: moto.put("k", b""),
            lambda: list(moto.list("k")),
            lambda: moto.delete("k"),
        ]
        for call in calls:
            proxy.requests.clear()
            with pytest.raises(StoreAccessError) as error:
                call()
            assert_named(error, moto, "k", "ExpiredToken")
            assert len(proxy.requests) == 1

    def test_object_that_vanishes(self, moto: S3Store, proxy: FaultProxy, big: str, tmp_path: Path) -> None:
        proxy.fail("GET .*/big", None, faults.not_found())
        for read in (moto.get, lambda key: moto.download(key, tmp_path / "got")):
            with pytest.raises(ObjectNotFoundError) as error:
                read(big)
            assert_named(error, moto, big, "NoSuchKey")

    def test_bytes_that_stay_wrong(self, moto: S3Store, proxy: FaultProxy, big: str, tmp_path: Path) -> None:
        proxy.fail("GET .*/big", None, faults.flip(1234))
        with pytest.raises(IntegrityError) as error:
            moto.download(big, tmp_path / "got", sha256=SHA256)
        assert_named(error, moto, big, "SHA-256")
        assert list(tmp_path.glob("*got*")) == []
        proxy.fail("GET .*/k", None, faults.flip(2))
        with pytest.raises(IntegrityError) as error:
            moto.get("k")
        assert_named(error, moto, "k", "SHA-256")

    def test_upload(self, moto: S3Store, proxy: FaultProxy, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(LARGE_CONTENT)
        proxy.fail(r"PUT .*/up\?.*partNumber=2", None, BREAKS["503"])
        with pytest.raises(StoreError) as error:
            moto.upload(tmp_path / "file", "up")
        assert_named(error, moto, "up", "SlowDown")
        assert moto.stat("up") is None
        client = moto._client()
        assert not client.list_multipart_uploads(Bucket=moto.bucket, Prefix=moto.prefix).get("Uploads")

    def test_object_replaced_while_it_is_read(self, moto: S3Store, proxy: FaultProxy, big: str) -> None:
        proxy.fail("GET .*/big", 1, faults.stall(1_200_000, 1.5))
        reader = moto._reader(big)
        etag = moto.stat(big).etag  # type: ignore[union-attr]
        moto.put(big, b"another version")
        with pytest.raises(IntegrityError, match="replaced"):
            reader.copy(bytearray().extend, 0, len(CONTENT), etag)


@pytest.mark.ceph
class TestUploadsAreVerifiedByTheServer:
    """Only Ceph checks payloads; moto takes what comes."""

    def test_flipped_bytes_are_refused(
        self, ceph: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_bytes(LARGE_CONTENT)
        with FaultProxy(os.environ["AWS_ENDPOINT_URL_S3"]) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
            proxy.fail("PUT .*/k", None, faults.flip_upload(3))
            with pytest.raises(StoreError) as error:
                ceph.put("k", b"12345")
            assert_named(error, ceph, "k", "SHA256")
            proxy.fail(r"PUT .*/up\?.*partNumber=2", None, faults.flip_upload(70_000))
            with pytest.raises(StoreError) as error:
                ceph.upload(tmp_path / "file", "up")
            assert_named(error, ceph, "up", "SHA256")
            assert list(ceph.list()) == []
            proxy.clear()
            ceph.upload(tmp_path / "file", "up")
            assert ceph.get("up") == LARGE_CONTENT
