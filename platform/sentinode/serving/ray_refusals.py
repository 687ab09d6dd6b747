"""Ray Serve's own refusals in the endpoint's words: they are bare text, and clients are promised JSON.

Ray answers before, or instead of, the application: its queue is full (503), a deadline has passed (408), a replica
died (500). ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names ``middlewares`` on every node: Ray puts it around its
Python proxies and around the replicas that HAProxy talks to.
"""

from __future__ import annotations

import json
from typing import Final

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

DEADLINE: Final = b"x-request-timeout-seconds"
"""Ray's header: how long a client waits for its answer."""

# Words, not protocol.Refusal: Ray's proxies import this while Serve waits for them, and need nothing else of ours.
_WORDS: Final = {
    408: (
        "the answer was not there in time",
        "more seconds in X-Request-Timeout-Seconds, up to the endpoint's own limit",
        "ask for more time, or for fewer patches at once",
    ),
    500: ("the endpoint failed", "an answer", "ask again; if it stays, tell the operator"),
    503: (
        "the endpoint has as much to do as it can, or no replica is ready",
        "fewer requests at once",
        "ask again after Retry-After",
    ),
}
_REPLACED: Final = (b"content-length", b"content-type")


def middlewares() -> list[Middleware]:
    """For Ray Serve: called once in each process that takes requests."""
    from sentinode.serving.fast_lane import FastLane

    # The last is the outermost.
    return [Middleware(JsonRefusals), Middleware(FastLane)]


class JsonRefusals:
    """``app``, whose 408, 500 and 503 in plain text become JSON; other replies pass untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Below /-/ stand Ray's own pages, which probes read.
        if scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        status = 0

        async def in_json(message: Message) -> None:
            nonlocal status
            if status:
                # The text of a refusal that was replaced.
                return
            if message["type"] == "http.response.start" and message["status"] in _WORDS:
                headers = {name.lower(): value for name, value in message["headers"]}
                if headers.get(b"content-type", b"").startswith(b"text/plain"):
                    status = message["status"]
                    await refuse(status, headers, send, is_oip="/v2/" in scope["path"])
                    return
            await send(message)

        await self._app(scope, receive, in_json)


async def refuse(status: int, headers: dict[bytes, bytes], send: Send, *, is_oip: bool = False) -> None:
    """Answer with our words for ``status`` (408, 500, 503); ``headers`` are Ray's, by their names in small letters."""
    fresh, body = refusal(status, headers, is_oip=is_oip)
    await send({"type": "http.response.start", "status": status, "headers": fresh})
    await send({"type": "http.response.body", "body": body})


def refusal(
    status: int, headers: dict[bytes, bytes], *, is_oip: bool = False
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of that answer."""
    reason, expected, remedy = _WORDS[status]
    told = {"status": status, "reason": reason, "expected": expected, "remedy": remedy}
    error = {"error": f"{reason}; expected: {expected}; what to do: {remedy}"}
    body = json.dumps(error if is_oip else told).encode()
    kept = [(name, value) for name, value in headers.items() if name not in _REPLACED]
    if status == 503 and b"retry-after" not in headers:
        kept.append((b"retry-after", b"1"))
    described = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return [*kept, *described, (b"cache-control", b"no-store")], body
