"""Storage URLs: what is understood, and what is refused with a reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinode.errors import ConfigError
from sentinode.storage import join_url, open_parent, open_store
from sentinode.storage.local import LocalStore
from sentinode.storage.s3 import S3Store
from sentinode.storage.urls import check_key, check_prefix, parse_url


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://bucket/a/b", "bucket", "a/b"),
        ("s3://my.bucket-1/a/b/", "my.bucket-1", "a/b"),
    ],
)
def test_s3(url: str, bucket: str, prefix: str) -> None:
    store = open_store(url)
    assert store == S3Store(bucket, prefix)
    assert store.url == url.rstrip("/")


def test_local_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert open_store("runs").url == str(tmp_path / "runs")
    assert open_store("/a/b/").url == "/a/b"
    assert open_store("~/runs").url == "/home/somebody/runs"
    assert open_store("C:name").url == str(tmp_path / "C:name")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("gs://bucket/x", "'gs'"),
        ("file:///tmp/x", "'file'"),
        ("http://host/bucket", "'http'"),
        ("S3://bucket", "'S3'"),
        ("s3:/bucket", "'s3'"),
        ("s3:bucket/x", "'s3'"),
        ("s3://", "no bucket"),
        ("s3:///key", "no bucket"),
        ("s3://UPPER/x", "bucket name"),
        ("s3://ab", "bucket name"),
        ("s3://host:9000/x", "bucket name"),
        ("s3://bucket/../x", "'../x'"),
        ("s3://bucket/a//b", "'a//b'"),
        ("s3://bucket/a/../../b", "cannot be used"),
    ],
)
def test_refused(url: str, reason: str) -> None:
    for opening in (open_store, open_parent):
        with pytest.raises(ConfigError, match=reason):
            opening(url)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as error:
        open_store("s3://AKIA:very-secret@bucket/x")
    assert "very-secret" not in str(error.value)
    assert "AWS_SECRET_ACCESS_KEY" in error.value.remedy


def test_open_parent() -> None:
    assert open_parent("s3://bucket/a/b.json") == (S3Store("bucket", "a"), "b.json")
    assert open_parent("s3://bucket/b.json") == (S3Store("bucket", ""), "b.json")
    assert open_parent("/a/b.json") == (LocalStore(Path("/a")), "b.json")
    assert open_parent("/b.json") == (LocalStore(Path("/")), "b.json")


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "/"])
def test_open_parent_of_no_object(url: str) -> None:
    with pytest.raises(ConfigError, match="names no object"):
        open_parent(url)


def test_join_url() -> None:
    assert join_url("s3://bucket/", "runs/", "a/b.json") == "s3://bucket/runs/a/b.json"
    assert join_url("/data", "x") == "/data/x"
    assert join_url("/", "x") == "/x"
    assert join_url("s3://bucket/x") == "s3://bucket/x"
    for part in ("..", "/x", "a/../b", ""):
        with pytest.raises(ConfigError):
            join_url("s3://bucket", part)


@given(st.text(max_size=30))
def test_a_key_that_passes_stays_below_its_folder(key: str) -> None:
    try:
        check_key(key)
    except ConfigError:
        return
    below = Path("/top") / key
    assert below.is_relative_to("/top")
    assert below.as_posix() == f"/top/{key}"
    assert parse_url(join_url("s3://bucket", key)) == ("bucket", key)


def test_keys_have_a_longest_size() -> None:
    assert check_key("ü" * 512)
    with pytest.raises(ConfigError, match="1024"):
        check_key("ü" * 513)


def test_prefixes() -> None:
    for prefix in ("", "a", "a/", "a/b", "shards/kaggle-"):
        assert check_prefix(prefix) == prefix
    for prefix in ("/", "/a", "../", "a/../b", "a//"):
        with pytest.raises(ConfigError):
            check_prefix(prefix)
