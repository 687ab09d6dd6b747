"""How a rollout asks the endpoint."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sentinode.rollout.gateway import Gateway


@contextmanager
def endpoint(keeps: bool) -> Iterator[tuple[str, list[int]]]:
    """An endpoint that does not say what becomes of a connection, and the clients' ports it has seen."""
    clients: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            clients.append(self.client_address[1])
            self.close_connection = not keeps
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", clients
        server.shutdown()


def test_no_connection_is_kept() -> None:
    """Through a bare Service a kept connection stays with the cluster that is being replaced."""
    with endpoint(keeps=True) as (url, clients):
        gateway = Gateway(url)
        assert gateway.models() == gateway.models() == {}
    assert len(set(clients)) == 2


def test_a_connection_that_ends_without_a_word_fails_no_later_question() -> None:
    with endpoint(keeps=False) as (url, clients):
        gateway = Gateway(url)
        assert [gateway.models() for _ in range(50)] == [{}] * 50
    assert len(clients) == 50
