"""Predictions from a replica's server straight to the endpoint, past Ray Serve's own handling of a request.

Behind HAProxy a replica has an HTTP server of its own, and the endpoint lives in its event loop. What Ray does for a
request in between (two random ids, a context, a task and a waiter for the deadline, records for its log) costs more
processor time than the prediction. ``Lane`` does what of it counts: it takes one of ``max_ongoing_requests``, so
that autoscaling, back-pressure and draining see the request; it counts Ray's metrics and keeps the deadline.
The first prediction of a connection passes through the ASGI application, further ones mostly past that as well
(``front.py``). All else, and predictions that would have to wait for a place or that name a deadline of their own, goes
Ray's way, which stays as it is. So does everything where this Ray is not built as expected.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinode.serving.deadlines import Deadlines
from sentinode.serving.front import front
from sentinode.serving.ray_refusals import DEADLINE, refuse

if TYPE_CHECKING:
    from sentinode.serving.direct import Begun

logger = logging.getLogger(__name__)

_NEEDED: Final = (
    "_semaphore",
    "_metrics_manager",
    "_http_options",
    "_route_prefix",
    "_deployment_id",
    "_user_callable_asgi_app",
    "_user_callable_wrapper",
)


class FastLane:
    """Middleware for Ray Serve, the outermost one. Around anything but a replica's server it does nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._lane = Lane.of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lane = self._lane
        if lane is not None and scope["type"] == "http" and lane.takes(scope):
            await lane.predict(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class Lane:
    """Of one replica: its Ray object is asked anew each time, for Ray may put another endpoint or limit there."""

    def __init__(self, replica: Any) -> None:
        # Only here: Ray's proxies import this module while Serve waits for them; a replica has all of it already.
        from ray.serve._private.common import RequestMetadata, RequestProtocol

        from sentinode.serving.guard import REQUEST_ID
        from sentinode.serving.predict import PREDICT

        self._replica = replica
        prefix = replica._route_prefix or ""
        self._prefix = "" if prefix == "/" else prefix
        self.path = self._prefix + PREDICT
        """Of predictions, below the server's root path."""
        self._id_key = REQUEST_ID
        self._deadlines = Deadlines(replica._http_options.request_timeout_s)
        self._as_counted: Any = RequestMetadata(
            request_id="",
            internal_request_id="",
            _request_protocol=RequestProtocol.HTTP,
            is_direct_ingress=True,
        )
        self._tags = {
            "protocol": RequestProtocol.HTTP,
            "method": "POST",
            "route": prefix,
            "app_name": replica._deployment_id.app_name,
            "deployment_name": replica._deployment_id.name,
        }

    @classmethod
    def of(cls, app: Any) -> Lane | None:
        """The lane to the endpoint of the replica whose server ``app`` is for; None where there is no such thing."""
        while hasattr(app, "_app"):
            app = app._app
        if getattr(app, "__name__", "") != "_direct_ingress_asgi":
            return None
        replica = app.__self__
        missing = [name for name in _NEEDED if not hasattr(replica, name)]
        if missing:
            logger.warning(
                "predictions go Ray's slower way: this Ray's replicas have no %s", ", ".join(missing)
            )
            return None
        if replica._user_callable_wrapper._run_user_code_in_separate_thread:
            return None
        args = getattr(replica._user_callable_asgi_app, "args", None)
        return cls(replica) if getattr(args, "fast_lane", False) else None

    def takes(self, scope: Scope) -> bool:
        """Whether the request is a prediction that need not wait for a place."""
        if scope["method"] != "POST" or scope["path"] != scope.get("root_path", "") + self.path:
            return False
        for name, _ in scope["headers"]:
            if name == DEADLINE:
                return False
        return not self._replica._semaphore.locked()

    def begin(self, headers: Mapping[bytes, bytes], body: bytes, is_gone: Callable[[], bool]) -> Begun | None:
        """Begin a prediction without ASGI; ``end`` follows. None where it has to go the long way."""
        direct = self._replica._user_callable_asgi_app.direct
        if direct is None or self._replica._semaphore.locked():
            return None
        begun: Begun | None = direct.begin(headers, body, is_gone)
        if begun is not None:
            self._enter()
            self._deadlines.begin(begun.answer)
        return begun

    def is_late(self, begun: Begun) -> bool:
        """Whether it was cancelled because its time was over."""
        return self._deadlines.is_late(begun.answer)

    def end(self, begun: Begun, status: int | None) -> None:
        """It was answered with ``status``, or its client left (499), or (None) it has to go the long way after all."""
        self._deadlines.end(begun.answer)
        if status is None:
            begun.direct.undo(begun)
        else:
            begun.direct.end(begun, status)
        self._leave(status, time.perf_counter() - begun.began_s)

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Through the ASGI application."""
        began_s, status = time.perf_counter(), 499
        scope["root_path"] = scope.get("root_path", "") + self._prefix

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id: str = scope["state"][self._id_key]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        task = asyncio.current_task()
        assert task is not None
        self._enter()
        self._deadlines.begin(task)
        try:
            await self._replica._user_callable_asgi_app(scope, receive, with_id)
        except asyncio.CancelledError:
            if not self._deadlines.is_late(task):
                raise
            task.uncancel()
            if status == 499:
                status = 408
                await refuse(408, {}, send)
        finally:
            self._deadlines.end(task)
            self._leave(status, time.perf_counter() - began_s)
        front(getattr(send, "__self__", None), self)

    def _enter(self) -> None:
        """Take a place. One is free, so Ray's coroutine ends at once."""
        with suppress(StopIteration):
            self._replica._semaphore.acquire().send(None)
        self._replica._metrics_manager.inc_num_ongoing_requests(self._as_counted)

    def _leave(self, status: int | None, took_s: float) -> None:
        """Give the place back and count what was answered, as Ray does."""
        metrics = self._replica._metrics_manager
        metrics.dec_num_ongoing_requests(self._as_counted)
        self._replica._semaphore.release()
        if status is None:
            return
        took_ms = took_s * 1000
        metrics.record_request_metrics(
            route=self._tags["route"], latency_ms=took_ms, is_error=status in (408, 499)
        )
        metrics.record_ingress_request_metrics(
            **self._tags, latency_ms=took_ms, is_error=status >= 400, status_code=str(status)
        )
