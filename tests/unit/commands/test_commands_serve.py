"""What ``sentinode serve`` refuses before anything is started."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import ray
from pydantic import ValidationError
from serving_parts import make_parts

from sentinode.commands.serve import ServeCommand, run
from sentinode.errors import ConfigError, ObjectNotFoundError
from sentinode.serving.args import ServeArgs
from sentinode.serving.auth import JWT_VARIABLES, KEY_FILE_VARIABLE, KEYS_VARIABLE
from sentinode.serving.local import LocalEndpoint
from sentinode.storage import open_store


def test_a_port_on_which_somebody_listens_is_refused() -> None:
    args = ServeArgs(registry="unused", bundle="a" * 64)
    with socket.socket() as other:
        # As Ray Serve does: without a check both would get a share of the clients.
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} cannot be had"):
            LocalEndpoint(args, port)
        with pytest.raises(ConfigError, match=f"port {port} cannot be had"):
            LocalEndpoint(args, grpc_port=port)
    assert LocalEndpoint(args, port).port == port


def test_slides_that_were_never_scored_are_no_slides_to_show(tmp_path: Path) -> None:
    store, parts = open_store(str(tmp_path / "registry")), make_parts(tmp_path / "parts")
    digest = parts.seal(store, parts.card)
    command = ServeCommand(registry=store.url, bundle=digest, scores=str(tmp_path / "nothing"))
    with pytest.raises(ObjectNotFoundError, match="score slides first"):
        command.args()


def test_corrections_want_slides() -> None:
    with pytest.raises(ValidationError, match="give --scores as well"):
        ServeCommand(registry="r", bundle="b", corrections="c")


@pytest.mark.parametrize("open_to_others", [{"ingress": "haproxy"}, {"grpc_port": 0}])
def test_missing_keys_are_told_before_ray_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_to_others: dict[str, Any]
) -> None:
    for name in (KEYS_VARIABLE, KEY_FILE_VARIABLE, *JWT_VARIABLES, "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    store, parts = open_store(str(tmp_path / "registry")), make_parts(tmp_path / "parts")
    digest = parts.seal(store, parts.card)
    with pytest.raises(ConfigError, match="has no API keys"):
        run(ServeCommand(registry=store.url, bundle=digest, **open_to_others))
    assert not ray.is_initialized()
