"""The endpoint as a plain ASGI application (Starlette), without Ray: routes, limits, errors, metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinode.config import Frozen
from sentinode.errors import RequestError
from sentinode.serving.args import ServeArgs
from sentinode.serving.auth import ApiKeys, Caller
from sentinode.serving.batching import MicroBatcher
from sentinode.serving.body import read_body
from sentinode.serving.engine import Engine
from sentinode.serving.guard import CALLER, REQUEST_ID, Guard
from sentinode.serving.metrics import Metrics
from sentinode.serving.predictor import Scored, score_bodies
from sentinode.serving.protocol import Prediction, Refusal, Timing
from sentinode.serving.quality import MPP_HEADER
from sentinode.serving.trust import ABSTAINED, TooManyExplanationsError, Trust
from sentinode.serving.viewer import Viewer, checkout_folder

logger = logging.getLogger(__name__)

_PREDICT, _EXPLAIN, _HEALTH, _METRICS = "/v1/predict", "/v1/explain", "/healthz", "/metrics"
_CARD, _PAGE, _PAGE_FILE = "/v1/bundles/{digest}", "/", "/viewer/{name}"
_HEADERS: Final = {"cache-control": "no-store"}


def create_app(engine: Engine, args: ServeArgs, keys: ApiKeys, replica: str = "local") -> Starlette:
    """The ASGI application over a started engine. Its batcher lives in the event loop that serves it."""
    endpoint = _Endpoint(engine, args, replica)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        endpoint.close()

    viewer_folder = args.trust.viewer_folder or checkout_folder()
    viewer = Viewer(viewer_folder) if viewer_folder else None
    page = [Route(_PAGE, viewer.page), Route(_PAGE_FILE, viewer.file)] if viewer else []
    app = Starlette(
        routes=[
            Route(_PREDICT, endpoint.predict, methods=["POST"]),
            Route(_EXPLAIN, endpoint.explain, methods=["POST"]),
            Route(_HEALTH, endpoint.health),
            Route(_METRICS, endpoint.export_metrics),
            Route(_CARD, endpoint.card),
            *page,
        ],
        middleware=[
            Middleware(_Watch, metrics=endpoint.metrics),
            Middleware(
                Guard,
                keys=keys,
                body_timeout_s=args.trust.body_timeout_s,
                on_refusal=endpoint.trust.metrics.refused,
            ),
        ],
        exception_handlers={
            RequestError: _on_request_error,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_disconnect,
            Exception: _on_fault,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Endpoint:
    """The handlers, and what they share."""

    def __init__(self, engine: Engine, args: ServeArgs, replica: str) -> None:
        self.engine = engine
        self.metrics = Metrics(engine.bundle, engine.operating_point.name, replica)
        self.trust = Trust(engine, args.trust, self.metrics.registry, replica)
        self.batcher: MicroBatcher[bytes, Scored] = MicroBatcher(
            partial(score_bodies, engine, judge=self.trust.judge), args.max_batch, args.batch_wait_ms / 1000
        )
        self._max_body_bytes = args.max_body_bytes

    async def predict(self, request: Request) -> Response:
        """``POST /v1/predict``: one image in, one Prediction out."""
        scale = self.trust.gate.check_scale(request.headers.get(MPP_HEADER, ""))
        answer = await self.batcher.submit(await read_body(request, self._max_body_bytes))
        scored, metrics, point = answer.result, self.metrics, self.engine.operating_point
        flags = (*scored.flags, *scale)
        verdict = ABSTAINED if flags else self.engine.verdict(scored.probability)
        metrics.batch_size.observe(answer.batch_size)
        metrics.score.observe(scored.probability)
        self.trust.count_scale(scale, scored.flags)
        self.trust.audit(*_asked_by(request), "predict", (verdict,), flags)
        metrics.verdicts.labels(verdict).inc()
        metrics.stage_seconds.labels("wait").observe(answer.wait_s)
        metrics.stage_seconds.labels("decode").observe(scored.decode_s)
        metrics.stage_seconds.labels("inference").observe(scored.inference_s)
        return _json(
            Prediction(
                probability=None if flags else scored.probability,
                verdict=verdict,
                flags=flags,
                operating_point=point.name,
                threshold=point.threshold,
                bundle=self.engine.bundle.digest,
                timing_ms=Timing(
                    wait=_ms(answer.wait_s), decode=_ms(scored.decode_s), inference=_ms(scored.inference_s)
                ),
                notice=self.engine.bundle.card.notice,
            )
        )

    async def explain(self, request: Request) -> Response:
        """``POST /v1/explain``: one image in, its occlusion map out (RGBA PNG)."""
        body = await read_body(request, self._max_body_bytes)
        try:
            found = await self.trust.explain(body)
        except TooManyExplanationsError:
            return _refuse(
                503, "as many explanations wait as may", "fewer at once", headers={"retry-after": "1"}
            )
        self.trust.audit(*_asked_by(request), "explain", ())
        headers = {**_HEADERS, "x-explanation-scale": f"{found.scale:.4f}"}
        return Response(found.png(), headers=headers, media_type="image/png")

    def close(self) -> None:
        """Finish what runs."""
        self.batcher.close()
        self.trust.close()

    async def health(self, _: Request) -> Response:
        """``GET /healthz``: there is no application before the engine has reproduced the golden patches."""
        return _json(Health(bundle=self.engine.bundle.digest))

    async def export_metrics(self, _: Request) -> Response:
        """``GET /metrics``, of this replica."""
        return Response(self.metrics.text(), headers=_HEADERS, media_type=Metrics.CONTENT_TYPE)

    async def card(self, request: Request) -> Response:
        """``GET /v1/bundles/<digest>``: the card of the bundle that is served."""
        digest = request.path_params["digest"]
        if digest != self.engine.bundle.digest:
            raise RequestError(
                "this endpoint does not serve that bundle", self.engine.bundle.digest, status=404
            )
        return _json(self.engine.bundle.card)


class Health(Frozen):
    """The reply to ``GET /healthz``."""

    status: str = "ok"
    bundle: str
    """Digest of the bundle that answers."""


class _Watch:
    """Around every request: counts, and takes the time."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            path = _path_label(scope)
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.request_seconds.labels(path).observe(time.perf_counter() - started_s)


def _asked_by(request: Request) -> tuple[str, Caller | None]:
    state = request.scope["state"]
    return state[REQUEST_ID], state[CALLER]


def _route_path(scope: Scope) -> str:
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _path_label(scope: Scope) -> str:
    """A label from a closed set: clients must not be able to make new time series."""
    path = _route_path(scope)
    if path in (_PREDICT, _EXPLAIN, _HEALTH, _METRICS, _PAGE):
        return path
    return _CARD if path.startswith("/v1/bundles/") else "other"


async def _on_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _refuse(error.status, error.found, error.expected, error.remedy)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = dict(error.headers or {}).get("Allow", "")
    reason = {404: "there is no such page", 405: f"{request.method} is not possible here"}.get(
        error.status_code
    )
    expected = allowed or f"POST {_PREDICT}, POST {_EXPLAIN}, GET {_HEALTH}, GET {_METRICS}, GET {_CARD}"
    return _refuse(error.status_code, reason or error.detail, expected, headers=dict(error.headers or {}))


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return _refuse(400, "the client went away before its request was complete")


async def _on_fault(_: Request, __: Exception) -> Response:
    # Starlette raises the error again after this reply, so the server's log has the traceback; the client
    # gets none.
    return _refuse(500, "the endpoint failed", remedy="try again; if it stays, tell the operator")


def _refuse(
    status: int, reason: str, expected: str = "", remedy: str = "", headers: dict[str, str] | None = None
) -> Response:
    refusal = Refusal(status=status, reason=reason, expected=expected, remedy=remedy)
    return _json(refusal, status, headers)


def _json(value: Frozen, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        value.model_dump_json(),
        status,
        headers={**_HEADERS, **(headers or {})},
        media_type="application/json",
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
