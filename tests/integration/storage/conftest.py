"""One fixture for each kind of store, and ``store`` for all of them."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from sentinode.storage import Store, open_store
from sentinode.storage.s3 import S3Store

CEPH = pytest.param("ceph_gateway", marks=pytest.mark.ceph, id="ceph")
MOTO = pytest.param("embedded_store", id="moto")


def s3_store(server: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A prefix of its own on one of the S3 servers, whose environment this process then has."""
    running = request.getfixturevalue(server)
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    # Small parts, so that some megabytes already make a multipart object; 5 MiB is what S3 asks for at least.
    monkeypatch.setattr(S3Store, "part_bytes", 5 << 20)
    return S3Store(running.bucket, uuid4().hex)


@pytest.fixture(params=["local", MOTO, CEPH])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """An empty store: a local folder, moto's server, Ceph's gateway."""
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    return s3_store(request.param, request, monkeypatch)


@pytest.fixture(params=[MOTO, CEPH])
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """An empty store on each S3 server."""
    return s3_store(request.param, request, monkeypatch)


@pytest.fixture
def moto(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """An empty store on moto's server."""
    return s3_store("embedded_store", request, monkeypatch)


@pytest.fixture
def ceph(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """An empty store on Ceph's gateway."""
    return s3_store("ceph_gateway", request, monkeypatch)
