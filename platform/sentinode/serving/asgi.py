"""The endpoint as a plain ASGI application, without Ray.

A request passes: watch (counts, takes the time) -> guard (credential, scope, rate, headers) -> ``predict`` for the
hot path, Starlette for all else. A prediction passes: read -> decode (one JPEG; all else in the batch's thread) ->
queue -> model (the batch's thread) -> calibration -> gate -> reply.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinode.errors import ConfigError
from sentinode.serving.args import ServeArgs
from sentinode.serving.audit import open_audit
from sentinode.serving.auth import ApiKeys, Caller
from sentinode.serving.batching import Answer
from sentinode.serving.catalogue import Fleet
from sentinode.serving.direct import Direct
from sentinode.serving.engine import Engine
from sentinode.serving.explain_route import EXPLAIN, Explanations
from sentinode.serving.guard import CALLER, REQUEST_ID, Guard
from sentinode.serving.loaded import Loaded
from sentinode.serving.metrics import Metrics
from sentinode.serving.oip.errors import speaking_oip
from sentinode.serving.oip.grpc_app import PREFIX, GrpcMethods
from sentinode.serving.oip.inference import Inferences
from sentinode.serving.oip.routes import oip_routes
from sentinode.serving.openapi import openapi
from sentinode.serving.pages import create_pages, refusal
from sentinode.serving.predict import PREDICT, Observer, Predict, State
from sentinode.serving.predictor import Scored
from sentinode.serving.tracing import open_tracing
from sentinode.serving.traffic import Traffic
from sentinode.serving.version import Version, VersionKey
from sentinode.serving.viewer import Viewer, checkout_folder

_COUNTED: Final = frozenset(
    {PREDICT, "/healthz", "/metrics", "/v1/models", EXPLAIN, "/openapi.json", "/", "/v2"}
)


class Endpoint:
    """One replica's application: call it as ASGI. ``await reconfigure(...)`` before the first request.

    ``tells_id`` and ``local_alone`` as for Guard.
    """

    def __init__(
        self,
        args: ServeArgs,
        keys: ApiKeys,
        replica: str = "local",
        *,
        tells_id: bool = True,
        local_alone: bool = False,
    ) -> None:
        self.args = args
        self.metrics = Metrics()
        self._audit = open_audit(args.trust.audit_log, replica)
        self._threads = ThreadPoolExecutor(args.workers, thread_name_prefix="sentinode-batch")
        self.fleet = Fleet(partial(Version.open, args=args, metrics=self.metrics, executor=self._threads))
        self.metrics.registry.register(Loaded(self.fleet, replica))
        self._explanations = Explanations(self.fleet, args, self.metrics.trust, self._on_explained)
        self._tracing = open_tracing(replica)
        self._predict = Predict(self.fleet, args, self._observers())
        self._pages = create_pages(self.fleet, self.metrics, self._more_routes())
        self._guarded = Guard(
            self._tracing.admitted(self._route) if self._tracing else self._route,
            keys,
            args.trust.body_timeout_s,
            on_refusal=self.metrics.trust.refused,
            tells_id=tells_id,
            local_alone=local_alone,
            max_inflight_bytes=args.max_inflight_bytes,
        )
        # A span is of an ASGI request.
        self.direct = (
            None if self._tracing else Direct(self._guarded, self._predict, self.fleet, args, self.metrics)
        )
        """The usual predictions without ASGI; None where they are traced."""
        self._http: ASGIApp = self._watched
        if self._tracing:
            self._http = self._tracing.watched(self._watched, lambda scope: path_label(route_path(scope)))

    def start(self, engine: Engine) -> None:
        """Serve an engine that has started already, alone."""
        traffic = self.args.first_traffic
        only = traffic.models[traffic.default]
        key = VersionKey(engine.bundle.digest, only.operating_point, only.prevalence)
        self.fleet.start(traffic, {key: Version(key, engine, self.args, self.metrics, self._threads)})

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Serve another ``Traffic`` from now on.

        Where it cannot be served, what is served stays, and ``GET /v1/models`` says why; raises ConfigError,
        BundleError, StoreError only before anything is served.
        """
        try:
            traffic = Traffic.parse(user_config)
        except ConfigError as error:
            self.fleet.reject(error)
            return
        await self.fleet.change(traffic)

    def close(self) -> None:
        """Let what runs end and take no more; write the audit log's end."""
        self._threads.shutdown(wait=True)
        self._explanations.close()
        if self._audit is not None:
            self._audit.close()
        if self._tracing is not None:
            self._tracing.close()

    def _observers(self) -> list[Observer]:
        observers: list[Observer] = [self._on_answered] if self._audit else []
        return [*observers, self._tracing.answered] if self._tracing else observers

    def _more_routes(self) -> list[Route]:
        """Of other modules."""
        folder = self.args.trust.viewer_folder or checkout_folder()
        viewer = Viewer(folder) if folder else None
        page = [Route("/", viewer.page), Route("/viewer/{name}", viewer.file)] if viewer else []
        inferences = Inferences(self.fleet, self.args, self._predict.score)
        return [
            Route(EXPLAIN, self._explanations.route, methods=["POST"]),
            Route("/openapi.json", openapi),
            *oip_routes(inferences),
            Route(f"{PREFIX}{{method}}", GrpcMethods(inferences), methods=["POST"]),
            *self._slides(),
            *page,
        ]

    def _slides(self) -> list[Route]:
        if self.args.slides is None:
            return []
        # Only here: most endpoints show no slides and have nothing installed that reads them.
        from sentinode.serving.slide_routes import slide_routes
        from sentinode.serving.slide_shelf import SlideShelf

        return slide_routes(SlideShelf(self.args.slides), self._on_corrected)

    def _on_answered(
        self, state: State, version: Version, answer: Answer[Scored], verdicts: list[str]
    ) -> None:
        flags = [flag for found in answer.result.flags for flag in found]
        self._record(state, "predict", version.bundle.digest, verdicts, flags)

    def _on_explained(self, request: Request, digest: str) -> None:
        self._record(request.scope["state"], "explain", digest)

    def _on_corrected(self, request: Request, slide: str) -> None:
        self._record(request.scope["state"], f"correct {slide}", "")

    def _record(
        self,
        state: State,
        action: str,
        digest: str,
        verdicts: Sequence[str] = (),
        flags: Sequence[str] = (),
    ) -> None:
        if self._audit is not None:
            caller: Caller | None = state[CALLER]
            name = caller.name if caller else "anonymous"
            self._audit.record(state[REQUEST_ID], name, action, digest, verdicts, flags)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _watched(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        path, status = route_path(scope), 499

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._guarded(scope, receive, speaking_oip(watched) if path.startswith("/v2") else watched)
        finally:
            self.metrics.answered(path_label(path), status, time.perf_counter() - started_s)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if route_path(scope) == PREDICT:
            app: ASGIApp = self._predict if scope["method"] == "POST" else _ONLY_POST
            await app(scope, receive, send)
        else:
            await self._pages(scope, receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message: dict[str, Any] = dict(await receive())
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                self.close()
                return


def create_app(engine: Engine, args: ServeArgs, keys: ApiKeys, replica: str = "local") -> Endpoint:
    """The application over one engine that has started already."""
    endpoint = Endpoint(args, keys, replica)
    endpoint.start(engine)
    return endpoint


def route_path(scope: Scope) -> str:
    """The path below the route prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def path_label(path: str) -> str:
    """A label from a closed set."""
    if path in _COUNTED:
        return path
    for prefix in ("/v1/bundles/", "/v1/slides", "/v2/", "/viewer/", PREFIX):
        if path.startswith(prefix):
            return f"{prefix}*"
    return "other"


_ONLY_POST: Final[ASGIApp] = refusal(
    405, "only POST is possible here", f"POST {PREDICT}", headers={"allow": "POST"}
)
