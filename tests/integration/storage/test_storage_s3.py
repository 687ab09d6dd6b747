"""What concerns S3 alone: credentials, buckets, endpoints, pickling, and pyarrow's view of the same store."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sentinode.errors import ConfigError, StoreAccessError, StoreError
from sentinode.storage import open_parent, open_store
from sentinode.storage.arrow import arrow_filesystem
from sentinode.storage.s3 import S3Store


def calls(store: S3Store, folder: Path) -> list[Callable[[], object]]:
    (folder / "file").write_bytes(b"1")
    return [
        lambda: store.stat("k"),
        lambda: store.get("k"),
        lambda: store.get("k", start=1, length=2),
        lambda: store.put("k", b"1"),
        lambda: store.put("k", b"1", if_none_match=True),
        lambda: store.upload(folder / "file", "k"),
        lambda: store.download("k", folder / "k"),
        lambda: list(store.list()),
        lambda: store.delete("k"),
    ]


@pytest.mark.ceph
@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_refused(
    ceph: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    ceph.put("k", b"123")
    monkeypatch.setenv(variable, "wrong")
    for call in calls(ceph, tmp_path):
        with pytest.raises(StoreAccessError, match=ceph.url):
            call()


def test_no_credentials(moto: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for call in calls(moto, tmp_path):
        with pytest.raises(StoreAccessError, match="credentials"):
            call()


def test_missing_profile(moto: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(StoreAccessError, match="no-such-profile"):
        moto.get("k")


def test_missing_bucket(s3: S3Store, tmp_path: Path) -> None:
    gone = S3Store("no-such-bucket-here")
    for call in calls(gone, tmp_path):
        with pytest.raises(StoreError, match="no-such-bucket-here") as error:
            call()
        assert "create it" in error.value.remedy


class TestDeadEndpoint:
    def test_nobody_listens(self, moto: S3Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{unused.getsockname()[1]}")
            monkeypatch.setattr(S3Store, "attempts", 2)
            for call in calls(moto, tmp_path):
                begin_s = time.monotonic()
                with pytest.raises(StoreError, match=moto.bucket) as error:
                    call()
                assert time.monotonic() - begin_s < 10
                assert "AWS_ENDPOINT_URL" in error.value.remedy

    def test_with_the_default_attempts(self, moto: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        begin_s = time.monotonic()
        with pytest.raises(StoreError, match=r"127\.0\.0\.1:9"):
            moto.get("k")
        assert time.monotonic() - begin_s < 30

    def test_somebody_listens_and_says_nothing(self, moto: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{mute.getsockname()[1]}")
            monkeypatch.setattr(S3Store, "read_timeout_s", 0.5)
            monkeypatch.setattr(S3Store, "attempts", 2)
            begin_s = time.monotonic()
            with pytest.raises(StoreError, match=f"{moto.url}/k.*timeout"):
                moto.get("k")
            assert time.monotonic() - begin_s < 10

    def test_endpoint_is_no_url(self, moto: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "localhost")
        with pytest.raises(ConfigError, match="localhost"):
            moto.get("k")
        with pytest.raises(ConfigError, match="localhost"):
            arrow_filesystem("s3://bucket/prefix")


def test_pickled_store_holds_no_credentials(s3: S3Store) -> None:
    s3.put("k", b"1")
    pickled = pickle.dumps(s3)
    assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in pickled
    assert pickle.loads(pickled).get("k") == b"1"  # noqa: S301


def test_open_by_url(s3: S3Store) -> None:
    store, key = open_parent(f"{s3.url}/folder/manifest.json")
    store.put(key, b"{}")
    assert open_store(s3.url).get("folder/manifest.json") == b"{}"


def test_a_folder_marker_is_no_object(s3: S3Store) -> None:
    s3._client().put_object(Bucket=s3.bucket, Key=f"{s3.prefix}/folder/", Body=b"")
    s3.put("folder/k", b"1")
    assert [info.key for info in s3.list()] == ["folder/k"]


class TestArrow:
    def test_writes_what_the_store_reads(self, s3: S3Store) -> None:
        filesystem, path = arrow_filesystem(s3.url)
        content = os.urandom(11 << 20)
        with filesystem.open_output_stream(f"{path}/large") as stream:
            stream.write(content)
        with filesystem.open_output_stream(f"{path}/small") as stream:
            stream.write(b"small")
        assert s3.get("large") == content
        assert s3.get("small") == b"small"
        s3.put("ours", b"ours")
        with filesystem.open_input_stream(f"{path}/ours") as stream:
            assert stream.read() == b"ours"

    def test_pickled_it_holds_nothing_of_the_environment(self, s3: S3Store) -> None:
        filesystem, path = arrow_filesystem(s3.url)
        pickled = pickle.dumps(filesystem)
        assert b"127.0.0.1" not in pickled
        assert os.environ["AWS_SECRET_ACCESS_KEY"].encode() not in pickled
        s3.put("k", b"1")
        with pickle.loads(pickled).open_input_stream(f"{path}/k") as stream:  # noqa: S301
            assert stream.read() == b"1"

    def test_local_folder(self, tmp_path: Path) -> None:
        filesystem, path = arrow_filesystem(str(tmp_path / "new"))
        with filesystem.open_output_stream(f"{path}/k") as stream:
            stream.write(b"1")
        assert open_store(str(tmp_path / "new")).get("k") == b"1"
