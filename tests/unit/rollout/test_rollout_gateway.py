"""How a rollout asks the endpoint."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sentinode.rollout.gateway import Gateway


def test_no_connection_is_kept() -> None:
    """Through a bare Service a kept connection stays with the cluster that is being replaced."""
    clients: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            clients.append(self.client_address[1])
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        gateway = Gateway(f"http://127.0.0.1:{server.server_port}")
        assert gateway.models() == gateway.models() == {}
        server.shutdown()
    assert len(set(clients)) == 2
