"""HAProxy as Ray Serve sets it up, before replicas on two hosts of which one is cut off. The replicas are stand-ins."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from host_parts import ROOT, Network, program, why_not
from load_parts import HEADER_TIMEOUT_S, Load, until

from sentinode.serving.ingress import haproxy_variables

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "this machine can hold hosts")

SILENT_S = 20.0
"""HAProxy asks a replica every 5 s and gives it up after two answers that are 5 s late."""
REPLICA = """
import http.server, time

class Replica(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b'{"status": "healthy"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self._headers_buffer.append(b"\\r\\n" + body)
        self.flush_headers()

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.05)
        self.do_GET()

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", 9000), Replica).serve_forever()
"""


def test_haproxy_lets_no_request_hang_at_a_host_that_is_cut_off() -> None:
    with Network() as network:
        left, right = (network.add(name) for name in ("left", "right"))
        for host in (left, right):
            host.start(program("python"), "-c", REPLICA)
        variables = haproxy_variables(right.outside.parent / "haproxy", HEADER_TIMEOUT_S)
        worker = str(Path(__file__).with_name("haproxy_worker.py"))
        places = [f"{host.address}:9000" for host in (left, right)]
        proxy = right.start(
            *(program("python"), worker, "8000", *places),
            environment={**variables, "PYTHONPATH": str(ROOT / "platform")},
        )
        until("both replicas are up", lambda: proxy.poll() is None and right.log.count("2/2 UP") == 2)
        with right.entered():
            load = Load(f"http://{right.address}:8000", b"patch", connections=8)
            with load.running():
                load.after(100)
                network.unplug(left)
                cut_s = time.monotonic()
                time.sleep(SILENT_S)
                load.after(100)
    lost = [reply for reply in load.replies if reply.status != 200 or not _whole(reply.body)]
    waited_s = max(reply.took_s for reply in load.replies)
    print(f"{len(lost)} of {len(load.replies)} requests lost, the longest wait {waited_s:.1f} s")
    assert 0 < len(lost) <= load.connections, "those that were at the host that was cut off"
    assert all(reply.began_s < cut_s + 1 for reply in lost)
    assert waited_s < SILENT_S


def _whole(body: bytes) -> bool:
    try:
        return bool(json.loads(body))
    except ValueError:
        return False
