"""The embedded store comes up alone and never outlives its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from sentinode.errors import MissingDependencyError, StoreError
from sentinode.storage import open_store
from sentinode.storage.embedded import EmbeddedStore

PARENT = """
import time
from sentinode.storage.embedded import EmbeddedStore
store = EmbeddedStore().start()
print(store.endpoint_url, flush=True)
time.sleep(600)
"""


def listens(endpoint_url: str) -> bool:
    address = urlsplit(endpoint_url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=1).close()
    except OSError:
        return False
    return True


def stops_within(endpoint_url: str, seconds: float) -> bool:
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        if not listens(endpoint_url):
            return True
        time.sleep(0.05)
    return False


def test_store_works_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedStore("my-bucket") as embedded:
        assert embedded.endpoint_url.startswith("http://127.0.0.1:")
        for name, value in embedded.environment.items():
            monkeypatch.setenv(name, value)
        store = open_store(f"{embedded.url}/runs")
        store.put("k", b"1")
        assert store.get("k") == b"1"
        assert listens(embedded.endpoint_url)
    assert not listens(embedded.endpoint_url)
    embedded.close()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_it_stops_when_its_parent_is_killed(end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=_environment()
    )
    with parent:
        assert parent.stdout is not None
        endpoint_url = parent.stdout.readline().strip()
        assert listens(endpoint_url)
        parent.send_signal(end)
    assert stops_within(endpoint_url, 10)


def test_moto_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moto", None)
    with pytest.raises(MissingDependencyError, match="moto"):
        EmbeddedStore().start()


def test_a_server_that_does_not_start_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EmbeddedStore, "start_timeout_s", 0.01)
    with pytest.raises(StoreError, match="did not start within"):
        EmbeddedStore().start()


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
