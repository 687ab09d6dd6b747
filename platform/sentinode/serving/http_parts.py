"""The little of HTTP that every handler needs, on bare ASGI messages: read a body, send a reply, refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Send

from sentinode.config import Frozen
from sentinode.errors import RequestError
from sentinode.serving.protocol import Refusal

HEADERS: Final = [(b"cache-control", b"no-store")]
JSON: Final = (b"content-type", b"application/json")
Headers = Mapping[bytes, bytes]


class ClientGoneError(Exception):
    """The client went away before its request was complete: there is nobody to answer."""


async def read_body(headers: Headers, receive: Receive, limit_bytes: int) -> bytes:
    """The whole body. Raises RequestError 413 above ``limit_bytes``, whatever the client declared, and
    ClientGoneError.
    """
    declared_size(headers, limit_bytes)
    message = await receive()
    if message["type"] != "http.request":
        raise ClientGoneError
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= limit_bytes:
        return body
    chunks = [body]
    size = len(body)
    while message.get("more_body", False) and size <= limit_bytes:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    return b"".join(chunks)


async def read_into(receive: Receive, out: NDArray[np.uint8], connection: Any = None) -> None:
    """Read a body of exactly ``out``'s size into it. Raises RequestError 400 and 413.

    ``connection``: uvicorn's object of the request, where it is known. It would collect the body in an array of its
    own, stop reading whenever 64 KiB lie there, and hand out copies; a batch of pixels goes past all that.
    """
    sink, more = _Sink(out), True
    is_uvicorn = isinstance(getattr(connection, "body", None), bytearray)
    if is_uvicorn:
        # What has come so far.
        sink += connection.body
    while more:
        if is_uvicorn:
            connection.body = sink
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        sink += message.get("body", b"")
        more = message.get("more_body", False)
        if sink.is_over:
            raise _too_large(out.nbytes)
    if sink.filled < out.nbytes:
        raise RequestError(
            f"the body ends after {sink.filled} bytes", f"{out.nbytes} bytes, as the shape says"
        )


class _Sink:
    """In the place of a bytearray that is added to: what is added goes where the pixels belong, and nothing is held."""

    def __init__(self, out: NDArray[np.uint8]) -> None:
        self._flat = memoryview(out.data).cast("B")
        self.filled = 0
        self.is_over = False

    def __iadd__(self, chunk: bytes | bytearray) -> Self:
        end = self.filled + len(chunk)
        if end > len(self._flat):
            self.is_over = True
        else:
            self._flat[self.filled : end] = chunk
            self.filled = end
        return self

    def __len__(self) -> int:
        return 0

    def __bytes__(self) -> bytes:
        return b""


def declared_size(headers: Headers, limit_bytes: int) -> int | None:
    """What content-length says; None where the client did not say. Raises RequestError 413 above the limit."""
    text = headers.get(b"content-length", b"")
    if not text.isdigit():
        return None
    size = int(text[:20])
    if size > limit_bytes:
        raise _too_large(limit_bytes)
    return size


async def send_json(
    send: Send, body: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    """Answer with JSON text."""
    length = (b"content-length", b"%d" % len(body))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [JSON, length, *HEADERS, *(headers or ())],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_value(send: Send, value: Frozen, status: int = 200) -> None:
    """Answer with a record."""
    await send_json(send, value.model_dump_json().encode(), status)


async def refuse(send: Send, error: RequestError, retry_after_s: int = 1) -> None:
    """Answer with an error in the endpoint's own words."""
    refusal = Refusal(status=error.status, reason=error.found, expected=error.expected, remedy=error.remedy)
    retry = [(b"retry-after", b"%d" % retry_after_s)] if error.status == 503 else None
    await send_json(send, refusal.model_dump_json().encode(), error.status, retry)


def _too_large(limit_bytes: int) -> RequestError:
    return RequestError(
        f"the request body is larger than {limit_bytes} bytes", "fewer or smaller patches", status=413
    )
