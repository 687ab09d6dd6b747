"""`sentinode serve` ends in good order: what is under way when SIGTERM comes is answered."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from load_parts import PATIENCE_S, free_ports, until
from serving_parts import encode, random_patches, sealed_registry

from sentinode.serving.auth import KEYS_VARIABLE
from sentinode.serving.protocol import Refusal

COMMAND = "from sentinode.cli import main; raise SystemExit(main())"
SLOW_S = 3.0
"""What a client takes for the rest of its request, once the endpoint has been told to stop."""
KEY = "a key of sixteen characters or more"
AUTHORIZATION = f"Bearer {KEY}"
PATCH = encode(random_patches(1, seed=2)[0], "JPEG")


def is_up(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def asked_in_a_hurry(port: int) -> tuple[int, bytes]:
    """Status and body of a request whose deadline passes at once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request(
        "POST", "/v1/predict", PATCH, {"X-Request-Timeout-Seconds": "0.0001", "Authorization": AUTHORIZATION}
    )
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


@pytest.mark.parametrize("ingress", ["python", "haproxy"])
def test_stopped_endpoint_answers_what_is_under_way(tmp_path: Path, ingress: str) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    (port,) = free_ports(1)
    command = [sys.executable, "-c", COMMAND, "serve", "--registry", store.url, "--bundle", digest]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--ingress", ingress],
            stdout=log,
            stderr=log,
            env={**os.environ, KEYS_VARIABLE: KEY},
        )
    text = (tmp_path / "log").read_text
    try:
        until("the endpoint answers", lambda: server.poll() is not None or is_up(port))
        status, body = asked_in_a_hurry(port)
        assert (status, Refusal.model_validate_json(body).status) == (408, 408), "Ray's refusal in our words"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.putrequest("POST", "/v1/predict")
        connection.putheader("Authorization", AUTHORIZATION)
        connection.putheader("Content-Length", str(len(PATCH)))
        connection.endheaders(PATCH[:1000])
        until("it is ready to be stopped", lambda: "research use only" in text())
        server.send_signal(signal.SIGTERM)
        until("it notices", lambda: "stopping" in text())
        time.sleep(SLOW_S)
        connection.send(PATCH[1000:])
        response = connection.getresponse()
        assert (response.status, b'"probability"' in response.read()) == (200, True)
        connection.close()
        assert server.wait(PATIENCE_S) == 0
    finally:
        server.kill()
        server.wait()
    assert text().rstrip().endswith("stopped")
    assert "Traceback" not in text()
    assert "***" not in text()
