"""A step under traffic: what ends it before its time."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sentinode.rollout.decide import Patience
from sentinode.rollout.evidence import Limits
from sentinode.rollout.gateway import Gateway
from sentinode.rollout.outcome import StepFailedError
from sentinode.rollout.plan import Pace
from sentinode.rollout.record import Step
from sentinode.rollout.watch import Settings, watch


@pytest.fixture
def refusing() -> Iterator[Gateway]:
    """An endpoint that counts nothing, for it keeps its former traffic."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = json.dumps({"failure": "there is no bundle bbbb"}) if self.path == "/v1/models" else ""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Gateway(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_step_that_the_endpoint_refuses_is_not_waited_for(refusing: Gateway) -> None:
    settings = Settings(Pace(), Patience(), Limits(), by="test", evidence_s=2.0)
    step = Step(name="canary 5%", config="", images=(), bundle="b" * 64, hold_s=1.0)
    with pytest.raises(
        StepFailedError, match="canary 5%: the endpoint keeps its former traffic: there is no bundle"
    ):
        watch(step, "a" * 64, refusing, settings, lambda: None)
