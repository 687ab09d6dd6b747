"""What stands before every request: request id, credential, scope, rate, time for the body, headers of the reply.

A plain ASGI middleware: it looks at bytes, makes no Request object and costs an admitted request a few microseconds.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinode import logs
from sentinode.serving.auth import ApiKeys, Caller
from sentinode.serving.body_budget import DEFAULT_BYTES, BodyBudget
from sentinode.serving.body_watch import BodyWatch
from sentinode.serving.hosts import are_local, is_local
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
SECURITY_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""On every reply."""
_OPEN: Final = (
    "/viewer/",
    "/v2/health/",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
OnRefusal = Callable[[str], None]


class Admitted(NamedTuple):
    """A request that may pass."""

    caller: Caller | None
    """None where everybody may."""
    allowance: Allowance | None
    """To be left when the request is over; None where the caller has no limits."""


class _Refused(NamedTuple):
    reason: str
    reply: Response


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
    deadline that is none, 421 another host, 503 no room for the body.

    ``on_refusal`` is told the reason (``credential``, ``scope``, ``rate``, ``slow``, ``host``, ``memory``), to be
    counted. ``tells_id``: replies carry the request id; not where the server around it puts it on them already.
    ``local_alone``: nothing is answered that was sent to another host than this machine, by its name.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: ApiKeys,
        body_timeout_s: float = 10.0,
        on_refusal: OnRefusal = lambda _: None,
        *,
        tells_id: bool = True,
        local_alone: bool = False,
        max_inflight_bytes: int = DEFAULT_BYTES,
    ) -> None:
        self._app = app
        self._keys = keys
        self._bodies = BodyWatch(body_timeout_s, lambda: on_refusal("slow"))
        self.budget = BodyBudget(max_inflight_bytes, lambda: on_refusal("memory"))
        """Of the bodies under way."""
        self._on_refusal = on_refusal
        self._tells_id = tells_id
        self._local_alone = local_alone
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
        added = [*SECURITY_HEADERS]
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
        is_for_us = not self._local_alone or are_local(scope["headers"])
        verdict = self._admit(path, found[0], found[1]) if is_for_us else _ELSEWHERE
        if isinstance(verdict, _Refused):
            self._on_refusal(verdict.reason)
            await verdict.reply(scope, receive, send_with_headers)
            return
        state[CALLER], allowance = verdict
        state[CONNECTION] = connection = getattr(receive, "__self__", None)
        watched = self._bodies.watched(receive)
        share = self.budget.share(scope["headers"]) if getattr(connection, "more_body", True) else None
        try:
            await self._app(scope, share.counted(watched) if share else watched, send_with_headers)
        finally:
            if share is not None:
                share.give_back()
            if allowance is not None:
                allowance.leave()

    def admitted(self, path: str, headers: Mapping[bytes, bytes]) -> tuple[Admitted, dict[str, Any]] | None:
        """For a request without ASGI, whose headers come once each: who asks, and the state that observers read; None
        where it would be refused, which is neither told nor counted.
        """
        if self._local_alone and not is_local(headers.get(b"host", b"")):
            return None
        verdict = self._admit(path, headers.get(b"authorization", b""), headers.get(b"x-api-key", b""))
        if isinstance(verdict, _Refused):
            return None
        request_id = self._request_id(headers.get(b"x-request-id", b""))
        return verdict, {REQUEST_ID: request_id, CALLER: verdict.caller}

    def _admit(self, path: str, authorization: bytes, key: bytes) -> Admitted | _Refused:
        needed = scope_of(path)
        if needed is None:
            return Admitted(None, None)
        caller = self._keys.identify(authorization.decode("latin-1"), key.decode("latin-1"))
        if caller is None:
            return _Refused("credential", _UNAUTHORISED)
        if needed not in caller.scopes:
            reason = f"the key may not do this: it lacks the scope {needed}"
            return _Refused("scope", _refusal(403, reason, f"a key with {needed}"))
        if caller.limits is None:
            return Admitted(caller, None)
        now_s = time.monotonic()
        allowance = self._throttle.of(caller.name, caller.limits, now_s)
        wait_s = allowance.enter(now_s)
        if wait_s > 0:
            return _Refused("rate", _too_much(wait_s))
        return Admitted(caller, allowance)

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
_ELSEWHERE: Final = _Refused(
    "host",
    _refusal(
        421,
        "without API keys, this endpoint answers to the names of this machine alone",
        "the host localhost, 127.0.0.1 or [::1]; or API keys (`sentinode keys`), with which any name will do",
    ),
)
"""Else any page could read the endpoint through its visitor's browser (see ``hosts``)."""
_NO_DEADLINE: Final = _refusal(
    400, "X-Request-Timeout-Seconds is no time", "seconds, more than 0, e.g. 2.5; or no such header"
)
