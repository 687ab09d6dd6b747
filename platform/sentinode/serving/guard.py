"""What stands before every request: request id, credential, scope, rate, time for the body, headers of the reply.

A plain ASGI middleware: it looks at bytes, makes no Request object and costs an admitted request a few microseconds.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinode import logs
from sentinode.serving.auth import ApiKeys, Caller
from sentinode.serving.body_watch import BodyWatch
from sentinode.serving.keys import Scope as KeyScope
from sentinode.serving.protocol import Refusal
from sentinode.serving.ray_refusals import DEADLINE
from sentinode.serving.throttle import Allowance, Throttle

REQUEST_ID: Final = "sentinode.request_id"
"""Key of ``scope["state"]``: what the client called its request, or a new id."""
CALLER: Final = "sentinode.caller"
"""Key of ``scope["state"]``: the Caller."""

CONNECTION: Final = "sentinode.connection"
"""Key of ``scope["state"]``: the server's own object of the request, which knows whether the client is still there."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_WANTED: Final = (b"authorization", b"x-api-key", b"x-request-id", DEADLINE)
_SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_OPEN: Final = (
    "/viewer/",
    "/v2/health/",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
OnRefusal = Callable[[str], None]


def scope_of(path: str) -> KeyScope | None:
    """What a caller needs for ``path``; None for what everybody may see (health, the page, which hold no data)."""
    if path in ("/v1/predict",) or path.startswith("/v2/models"):
        return KeyScope.PREDICT
    if path == "/v1/explain":
        return KeyScope.EXPLAIN
    if path == "/metrics":
        return KeyScope.METRICS
    if path.startswith("/v1/admin"):
        return KeyScope.ADMIN
    if path in ("/", "/healthz", "/openapi.json") or path.startswith(_OPEN):
        return None
    return KeyScope.PREDICT


class Guard:
    """Admits or refuses: 401 no valid credential, 403 not its scope, 429 too much, 408 the body came too slowly, 400 a
    deadline that is none.

    ``on_refusal`` is told the reason (``credential``, ``scope``, ``rate``, ``slow``), for counting.
    ``tells_id``: replies carry the request id; not where the server around it puts it on them already.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: ApiKeys,
        body_timeout_s: float = 10.0,
        on_refusal: OnRefusal = lambda _: None,
        *,
        tells_id: bool = True,
    ) -> None:
        self._app = app
        self._keys = keys
        self._bodies = BodyWatch(body_timeout_s, lambda: on_refusal("slow"))
        self._on_refusal = on_refusal
        self._tells_id = tells_id
        self._throttle = Throttle()
        self._prefix = os.urandom(4).hex()
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = _headers(scope)
        request_id = self._request_id(found[2])
        state: dict[str, Any] = scope.setdefault("state", {})
        state[REQUEST_ID] = request_id
        logs.REQUEST_ID.set(request_id)
        added = [*_SECURITY_HEADERS]
        if self._tells_id:
            added.append((b"x-request-id", request_id.encode()))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        if found[3] and not _is_time(found[3]):
            await _NO_DEADLINE(scope, receive, send_with_headers)
            return
        path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        verdict = self._admit(path, found[0].decode("latin-1"), found[1].decode("latin-1"))
        if isinstance(verdict, Response):
            await verdict(scope, receive, send_with_headers)
            return
        state[CALLER], allowance = verdict
        state[CONNECTION] = getattr(receive, "__self__", None)
        try:
            await self._app(scope, self._bodies.watched(receive), send_with_headers)
        finally:
            if allowance is not None:
                allowance.leave()

    def _admit(
        self, path: str, authorization: str, key: str
    ) -> tuple[Caller | None, Allowance | None] | Response:
        needed = scope_of(path)
        if needed is None:
            return None, None
        caller = self._keys.identify(authorization, key)
        if caller is None:
            self._on_refusal("credential")
            return _UNAUTHORISED
        if needed not in caller.scopes:
            self._on_refusal("scope")
            return _refusal(
                403, f"the key may not do this: it lacks the scope {needed}", f"a key with {needed}"
            )
        if caller.limits is None:
            return caller, None
        now_s = time.monotonic()
        allowance = self._throttle.of(caller.name, caller.limits, now_s)
        wait_s = allowance.enter(now_s)
        if wait_s > 0:
            self._on_refusal("rate")
            return _too_much(wait_s)
        return caller, allowance

    def _request_id(self, given: bytes) -> str:
        if _REQUEST_ID.fullmatch(given):
            return given.decode()
        self._count += 1
        return f"{self._prefix}-{self._count:x}"


def _headers(scope: Scope) -> list[bytes]:
    """The values of ``_WANTED``; the first counts where a client sends several, of deadlines none."""
    found = [b"", b"", b"", b""]
    for name, value in scope["headers"]:
        if name in _WANTED:
            at = _WANTED.index(name)
            # Of several deadlines Ray would take the last.
            found[at] = b"several" if name == DEADLINE and found[at] else found[at] or value
    return found


def _is_time(text: bytes) -> bool:
    """Whether it is a number of seconds. Ray takes what is none for no deadline, and 0 for leave to wait for ever."""
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _refusal(status: int, reason: str, expected: str, headers: dict[str, str] | None = None) -> Response:
    return Response(
        Refusal(status=status, reason=reason, expected=expected).model_dump_json(),
        status,
        headers={"cache-control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def _too_much(wait_s: float) -> Response:
    return _refusal(
        429,
        "the key asks more than its limits allow",
        "fewer requests a second, or fewer at once",
        # Whole seconds, and never 0: clients would ask again at once.
        {"retry-after": str(max(1, round(wait_s + 0.5)))},
    )


_UNAUTHORISED: Final = _refusal(
    401,
    "the request has no valid API key or token",
    "Authorization: Bearer <key or token>, or X-API-Key: <key>",
    {"www-authenticate": "Bearer"},
)
_NO_DEADLINE: Final = _refusal(
    400, "X-Request-Timeout-Seconds is no time", "seconds, more than 0, e.g. 2.5; or no such header"
)
