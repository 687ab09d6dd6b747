"""A proxy in front of an S3 endpoint that breaks answers on demand.

    with FaultProxy(endpoint_url) as proxy:
        os.environ["AWS_ENDPOINT_URL_S3"] = proxy.url
        proxy.fail(r"GET .*/shards/", times=2, fault=truncate(1000))

``fail(pattern, times, fault)``: the next ``times`` requests (None: all) whose ``"METHOD /path?query"`` holds the
regular expression ``pattern`` suffer ``fault``; rules are tried in the order in which they were made.
``proxy.requests`` lists every request seen, ``proxy.clear()`` forgets rules and requests. The Host header is
forwarded unchanged, since S3 signatures cover it. Bodies are held in memory: use objects of up to some 100 MB.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What goes back to the client. ``body`` may be shorter than the length that ``headers`` promise."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Fault:
    """One way to go wrong; use the functions below to make one."""

    name: str
    instead: Answer | None = None
    """Answer this and do not ask the store."""
    delay_s: float = 0
    """Wait before the answer."""
    change_request: Callable[[bytes], bytes] = bytes
    change_body: Callable[[bytes], bytes] = bytes
    """Applied to the body of the answer; its promised length stays."""
    stop_after: int | None = None
    """Send so many bytes of the body only, then wait ``stall_s`` and close (or reset) the connection."""
    stall_s: float = 0
    reset: bool = False
    silent: bool = False
    """Ask the store, but send nothing back."""


def error(status: int, code: str) -> Fault:
    """An S3 error answer, e.g. ``error(503, "SlowDown")``; the store is not asked."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
    headers = (("Content-Type", "application/xml"), ("Content-Length", str(len(body))))
    return Fault(f"{status} {code}", instead=Answer(status, headers, body))


def expired_token() -> Fault:
    """403 ExpiredToken."""
    return error(403, "ExpiredToken")


def not_found() -> Fault:
    """404 NoSuchKey."""
    return error(404, "NoSuchKey")


def delay(seconds: float) -> Fault:
    """The right answer, but late."""
    return Fault("delay", delay_s=seconds)


def stall(after_bytes: int, seconds: float) -> Fault:
    """The body stops after ``after_bytes`` for ``seconds``, then the connection closes."""
    return Fault("stall", stop_after=after_bytes, stall_s=seconds)


def truncate(after_bytes: int) -> Fault:
    """The connection closes in an orderly way after ``after_bytes`` of the body."""
    return Fault("truncate", stop_after=after_bytes)


def reset(after_bytes: int) -> Fault:
    """The connection is reset (RST) after ``after_bytes`` of the body."""
    return Fault("reset", stop_after=after_bytes, reset=True)


def flip(at_byte: int) -> Fault:
    """One byte of the body is wrong, its length right."""
    return Fault("flip", change_body=lambda body: _flipped(body, at_byte))


def flip_upload(at_byte: int) -> Fault:
    """One byte of the request's body is wrong when it reaches the store."""
    return Fault("flip upload", change_request=lambda body: _flipped(body, at_byte))


def lose_answer() -> Fault:
    """The store does as asked, but its answer is lost: the connection is reset."""
    return Fault("lost answer", silent=True, reset=True)


class FaultProxy:
    """Listens on a free loopback port while the block lasts."""

    def __init__(self, endpoint_url: str) -> None:
        self.upstream = urlsplit(endpoint_url).netloc
        self.requests: list[str] = []
        self.closing = threading.Event()
        self._rules: list[tuple[re.Pattern[str], float, Fault]] = []
        self._lock = threading.Lock()
        self._server = _Server(self)

    @property
    def url(self) -> str:
        """The endpoint URL to give to clients."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, pattern: str, times: int | None, fault: Fault) -> None:
        """Let the next ``times`` requests (None: all) that match ``pattern`` suffer ``fault``."""
        with self._lock:
            self._rules.append((re.compile(pattern), float("inf") if times is None else times, fault))

    def clear(self) -> None:
        """Forget all rules and requests."""
        with self._lock:
            self._rules.clear()
            self.requests.clear()

    def take(self, request: str) -> Fault | None:
        """Note a request and use up one of the first rule that matches it."""
        with self._lock:
            self.requests.append(request)
            for index, (pattern, left, fault) in enumerate(self._rules):
                if left > 0 and pattern.search(request):
                    self._rules[index] = (pattern, left - 1, fault)
                    return fault
        return None

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _serve(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.server.proxy
        fault = proxy.take(f"{self.command} {self.path}") or Fault("none")
        answer = fault.instead or self._ask(fault.change_request(sent))
        proxy.closing.wait(fault.delay_s)
        if fault.silent:
            self._hang_up(fault.reset)
            return
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = fault.change_body(answer.body)
        self.wfile.write(body[: fault.stop_after])
        if fault.stop_after is not None:
            proxy.closing.wait(fault.stall_s)
            self._hang_up(fault.reset)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _ask(self, body: bytes) -> Answer:
        upstream = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            response = upstream.getresponse()
            content = response.read()
            headers = [
                (name, value)
                for name, value in response.getheaders()
                if name.lower() not in ("connection", "transfer-encoding", "content-length")
            ]
            length = response.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
            if length is not None:
                headers.append(("Content-Length", length))
            return Answer(response.status, tuple(headers), content)
        finally:
            upstream.close()

    def _hang_up(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the requests are in ``FaultProxy.requests``."""


def _flipped(body: bytes, at_byte: int) -> bytes:
    if at_byte >= len(body):
        return body
    return body[:at_byte] + bytes([body[at_byte] ^ 0xFF]) + body[at_byte + 1 :]
