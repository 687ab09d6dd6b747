"""Predictions from a replica's server straight to the endpoint, past Ray Serve's own handling of a request.

Behind HAProxy a replica has an HTTP server of its own, and the endpoint lives in its event loop. What Ray does for a
request in between (two random ids, a context, a task and a waiter for the deadline, records for its log) costs more
processor time than the prediction. ``FastLane`` does what of it counts: it takes one of ``max_ongoing_requests``, so
that autoscaling, back-pressure and draining see the request; it counts Ray's metrics, keeps the deadline, tells the
request id. All else, and predictions that would have to wait for a place or that name a deadline of their own, goes
Ray's way, which stays as it is. So does everything where this Ray is not built as expected.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinode.serving.ray_refusals import DEADLINE, refuse

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
        self._lane = _Lane.of(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        lane = self._lane
        if lane is not None and scope["type"] == "http" and lane.takes(scope):
            await lane.predict(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Lane:
    """Of one replica: its Ray object is asked anew each time, for Ray may put another endpoint or limit there."""

    def __init__(self, replica: Any) -> None:
        # Only here: Ray's proxies import this module while Serve waits for them; a replica has all of it already.
        from ray.serve._private.common import RequestMetadata, RequestProtocol

        from sentinode.serving.asgi import PREDICT
        from sentinode.serving.guard import REQUEST_ID

        self._replica = replica
        prefix = replica._route_prefix or ""
        self._prefix = "" if prefix == "/" else prefix
        self._path = self._prefix + PREDICT
        self._id_key = REQUEST_ID
        self._deadlines = _Deadlines(replica._http_options.request_timeout_s)
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
    def of(cls, app: Any) -> _Lane | None:
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
        if scope["method"] != "POST" or scope["path"] != scope.get("root_path", "") + self._path:
            return False
        for name, _ in scope["headers"]:
            if name == DEADLINE:
                return False
        return not self._replica._semaphore.locked()

    async def predict(self, scope: Scope, receive: Receive, send: Send) -> None:
        replica, began_s, status = self._replica, time.time(), 499
        metrics, places = replica._metrics_manager, replica._semaphore
        scope["root_path"] = scope.get("root_path", "") + self._prefix

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id: str = scope["state"][self._id_key]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        connection: Any = getattr(send, "__self__", None)
        if hasattr(connection, "transport"):
            connection.transport = _OneWrite(connection.transport)
        # A place is free: nobody else runs until it is taken.
        await places.acquire()
        metrics.inc_num_ongoing_requests(self._as_counted)
        task = self._deadlines.begin()
        try:
            await replica._user_callable_asgi_app(scope, receive, with_id)
        except asyncio.CancelledError:
            if task is None or not self._deadlines.is_late(task):
                raise
            task.uncancel()
            if status == 499:
                status = 408
                await refuse(408, {}, send)
        finally:
            self._deadlines.end(task)
            metrics.dec_num_ongoing_requests(self._as_counted)
            places.release()
            took_ms = (time.time() - began_s) * 1000
            metrics.record_request_metrics(
                route=self._tags["route"], latency_ms=took_ms, is_error=status in (408, 499)
            )
            metrics.record_ingress_request_metrics(
                **self._tags, latency_ms=took_ms, is_error=status >= 400, status_code=str(status)
            )


class _OneWrite:
    """A transport that keeps the head of a reply until the body comes: one packet, where uvicorn would send two, each
    of which wakes HAProxy and the client.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """The first is the head."""
        if self._head is None:
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Deadlines:
    """One timer for all requests of an event loop: each has ``timeout_s`` seconds, None being for ever."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._due_s: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._is_set = False

    def begin(self) -> asyncio.Task[Any] | None:
        """The running task, from now on cancelled when its time is over; None where time is not limited."""
        if self._timeout_s is None:
            return None
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._due_s[task] = due_s = loop.time() + self._timeout_s
        if not self._is_set:
            self._is_set = True
            loop.call_at(due_s, self._look)
        return task

    def is_late(self, task: asyncio.Task[Any]) -> bool:
        """Whether it was cancelled by this."""
        return task in self._late

    def end(self, task: asyncio.Task[Any] | None) -> None:
        """It is done."""
        if task is not None:
            self._due_s.pop(task, None)
            self._late.discard(task)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        self._is_set = False
        # In the order in which they began, so in that of their deadlines.
        for task, due_s in self._due_s.items():
            if due_s > now_s:
                self._is_set = True
                loop.call_at(due_s, self._look)
                return
            if task not in self._late:
                self._late.add(task)
                task.cancel()
