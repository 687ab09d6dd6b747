"""Real object stores that integration tests share. This folder's helpers (faults, ceph_gateway) can be imported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ceph_gateway import CephGateway, missing_programs

from sentinode.storage.embedded import EmbeddedStore


@pytest.fixture(scope="session")
def embedded_store() -> Iterator[EmbeddedStore]:
    """moto's server. Export ``embedded_store.environment`` by monkeypatch to use it."""
    with EmbeddedStore("embedded-tests") as store:
        yield store


@pytest.fixture(scope="session")
def ceph_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephGateway]:
    """Ceph's gateway; skips, visibly, where Ceph is not installed, and fails where it is and does not start."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"Ceph is not installed ({', '.join(missing)} not found): run .ci/install-ceph")
    with CephGateway(tmp_path_factory.mktemp("ceph")) as gateway:
        yield gateway
