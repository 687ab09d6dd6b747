"""Before the HTTP server of one connection of a replica: the usual predictions, answered without it.

uvicorn makes a scope, a cycle and a task of each request. ``_Front`` takes the place of its protocol on a connection
that has brought a prediction, and answers each further one that lies there as a whole, in one read, with
``direct.Direct``. At anything else uvicorn's protocol takes its place again and gets the same bytes, until the next
prediction is over: HTTP in all its ways, slow bodies, refusals and everything that is not a prediction stay uvicorn's
and the ASGI application's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from sentinode.serving.ray_refusals import refusal

if TYPE_CHECKING:
    from sentinode.serving.direct import Begun
    from sentinode.serving.fast_lane import Lane

logger = logging.getLogger(__name__)

_CYCLE: Final = ("transport", "scope", "keep_alive", "more_body", "response_complete")
_SERVER: Final = (
    "cycle",
    "scope",
    "loop",
    "parser",
    "flow",
    "server_state",
    "timeout_keep_alive",
    "timeout_keep_alive_task",
    "timeout_keep_alive_handler",
    "_unset_keepalive_if_required",
    "shutdown",
)
"""What is needed of uvicorn's objects of a request and of a connection."""


def front(cycle: Any, lane: Lane) -> None:
    """Answer what comes next on the connection of ``cycle``, uvicorn's object of a request, which is over.

    Does nothing where that is something else, or where the connection has more to read or to end.
    """
    if any(not hasattr(cycle, name) for name in _CYCLE):
        return
    transport = cycle.transport
    if not cycle.response_complete or not cycle.keep_alive or cycle.more_body or transport.is_closing():
        return
    server = transport.get_protocol()
    if any(not hasattr(server, name) for name in _SERVER):
        return
    # Else the next request has begun, at least with its first byte.
    if server.cycle is cycle and server.scope is cycle.scope:
        transport.set_protocol(_Front(server, lane))


class _Front(asyncio.Protocol):
    """``server``: uvicorn's protocol of the connection.

    A server that shuts down closes the connections whose last cycle is complete, and takes ``keep_alive`` from the
    others: so the last cycle, which is over, stands for the prediction that is under way.
    """

    def __init__(self, server: Any, lane: Lane) -> None:
        self._server = server
        self._transport = server.transport
        self._cycle = server.cycle
        self._lane = lane
        self._reader = _Reader(lane.path.encode())
        self._begun: Begun | None = None
        self._data = b""
        self._next = b""
        self._is_full = False
        self._is_lost = False

    def data_received(self, data: bytes) -> None:
        """One request, or not."""
        if self._begun is not None:
            # A client that does not wait for its reply. No more is read until it is there.
            self._next += data
            self._transport.pause_reading()
            return
        if not self._is_full and self._reader.is_usual(data):
            self._begun = self._lane.begin(self._reader.headers, self._reader.body, self._is_gone)
        if self._begun is None:
            self._leave_to_server(data)
            return
        self._data = data
        self._cycle.response_complete = False
        self._server._unset_keepalive_if_required()
        self._begun.answer.add_done_callback(self._answer)

    def _is_gone(self) -> bool:
        return self._is_lost

    def _answer(self, answer: asyncio.Future[Any]) -> None:
        begun, data = self._begun, self._data
        assert begun is not None
        self._cycle.response_complete = True
        self._begun, self._data = None, b""
        if self._is_lost or self._transport.is_closing():
            if not answer.cancelled():
                answer.exception()  # else asyncio logs that nobody asked for it
            self._lane.end(begun, 499)
            return
        if self._lane.is_late(begun):
            self._write(begun, 408, _late())
        elif (reply := self._reply(begun)) is not None:
            self._write(begun, 200, reply)
        else:
            # The application asks once more; if that fails too, it has the words for it.
            self._lane.end(begun, None)
            self._leave_to_server(data + self._next)
            return
        if self._next and self._cycle.keep_alive:
            data, self._next = self._next, b""
            self._transport.resume_reading()
            self.data_received(data)

    def _reply(self, begun: Begun) -> bytes | None:
        if begun.answer.cancelled() or begun.answer.exception() is not None:
            return None
        try:
            headers = [b"%b: %b\r\n" % pair for pair in self._server.server_state.default_headers]
            return begun.direct.reply(begun, b"".join(headers))
        except Exception:
            logger.exception("a prediction was scored and could not be answered")
            return None

    def _write(self, begun: Begun, status: int, reply: bytes) -> None:
        server = self._server
        if not self._cycle.keep_alive:
            self._transport.write(reply.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
            self._lane.end(begun, status)
            self._transport.close()
            return
        self._transport.write(reply)
        self._lane.end(begun, status)
        server.timeout_keep_alive_task = server.loop.call_later(
            server.timeout_keep_alive, server.timeout_keep_alive_handler
        )

    def _leave_to_server(self, data: bytes) -> None:
        self._transport.set_protocol(self._server)
        self._transport.resume_reading()
        self._server.data_received(data)
        if not self._cycle.keep_alive:
            # It shuts down, and meant the cycle before: now it means the one that has begun.
            self._server.shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left, or the server closed."""
        self._is_lost = True
        self._server.connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not read its replies: the server waits for it."""
        self._is_full = True
        self._server.pause_writing()

    def resume_writing(self) -> None:
        """It does again."""
        self._is_full = False
        self._server.resume_writing()


class _Reader:
    """Tells whether bytes are one whole ``POST target`` over HTTP/1.1; then ``headers`` (names in small letters) and
    ``body`` are its.
    """

    def __init__(self, target: bytes) -> None:
        # Only here: Ray's proxies import this module, and need no parser of ours.
        import httptools

        self._target = target
        self._parser: Any = httptools.HttpRequestParser(self)
        self._error: Any = (httptools.HttpParserError, httptools.HttpParserUpgrade)
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self._url = b""
        self._begun = self._ended = 0
        self._is_odd = False

    def is_usual(self, data: bytes) -> bool:
        """Once this said no, the reader must not be asked again."""
        self.headers, self.body, self._url = {}, b"", b""
        self._begun = self._ended = 0
        parser = self._parser
        try:
            parser.feed_data(data)
        except self._error:
            return False
        return (
            self._begun == self._ended == 1
            and not self._is_odd
            and self._url == self._target
            and bool(parser.get_method() == b"POST" and parser.should_keep_alive())
            and bool(parser.get_http_version() == "1.1")
        )

    def on_message_begin(self) -> None:
        """A request."""
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        """Path and query."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of them."""
        name = name.lower()
        # Which of two counts is not for this to say.
        self._is_odd = self._is_odd or name in self.headers or name in (b"transfer-encoding", b"expect")
        self.headers[name] = value

    def on_body(self, body: bytes) -> None:
        """All of it, or a piece."""
        self.body += body

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._ended += 1


def _late() -> bytes:
    headers, body = refusal(408, {})
    head = b"".join([b"%b: %b\r\n" % pair for pair in headers])
    return b"HTTP/1.1 408 Request Timeout\r\n%b\r\n%b" % (head, body)
