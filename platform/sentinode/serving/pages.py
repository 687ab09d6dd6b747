"""The routes beside the hot path, in Starlette: health, models, cards, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sentinode.config import Frozen
from sentinode.errors import RequestError
from sentinode.serving.catalogue import Fleet
from sentinode.serving.metrics import Metrics
from sentinode.serving.protocol import Refusal
from sentinode.serving.traffic import Traffic

HEALTH: Final = "/healthz"
_HEADERS: Final = {"cache-control": "no-store"}
_KNOWN: Final = (
    "POST /v1/predict, GET /healthz, GET /metrics, GET /v1/models, GET /v1/bundles/{digest}, "
    "POST /v2/models/{name}/infer"
)


class Health(Frozen):
    """The reply to ``GET /healthz``."""

    status: str = "ok"
    bundle: str
    """Digest of the bundle that answers by default."""


class Models(Frozen):
    """The reply to ``GET /v1/models``."""

    serving: Traffic
    """What answers now."""
    failure: str
    """Why the last change of configuration was not made; empty where it was."""


def create_pages(fleet: Fleet, metrics: Metrics, more: Sequence[BaseRoute] = ()) -> Starlette:
    """The application for all that is not hot; ``more`` are the routes of other modules, which win."""
    pages = _Pages(fleet, metrics)
    app = Starlette(
        routes=[
            *more,
            Route(HEALTH, pages.health),
            Route("/metrics", pages.export_metrics),
            Route("/v1/models", pages.models),
            Route("/v1/bundles/{digest}", pages.card),
        ],
        exception_handlers={
            RequestError: _on_request_error,
            HTTPException: _on_http_exception,
            ClientDisconnect: _on_disconnect,
            Exception: _on_fault,
        },
    )
    app.router.redirect_slashes = False
    return app


class _Pages:
    def __init__(self, fleet: Fleet, metrics: Metrics) -> None:
        self._fleet = fleet
        self._metrics = metrics

    async def health(self, _: Request) -> Response:
        """Nothing is served before an engine has reproduced its golden patches."""
        return json_response(Health(bundle=self._fleet.catalogue.default.stable.bundle.digest))

    async def models(self, _: Request) -> Response:
        return json_response(Models(serving=self._fleet.catalogue.traffic, failure=self._fleet.failure))

    async def export_metrics(self, _: Request) -> Response:
        """Of this replica."""
        self._metrics.waiting.set(self._fleet.waiting)
        return Response(self._metrics.text(), headers=_HEADERS, media_type=Metrics.CONTENT_TYPE)

    async def card(self, request: Request) -> Response:
        """The card of a bundle that is served, in whatever part."""
        version = self._fleet.catalogue.version(request.path_params["digest"])
        if version is None:
            raise RequestError("this endpoint does not serve that bundle", "see GET /v1/models", status=404)
        return json_response(version.bundle.card)


def json_response(value: Frozen, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A record as a reply."""
    return Response(
        value.model_dump_json(),
        status,
        headers={**_HEADERS, **(headers or {})},
        media_type="application/json",
    )


def refusal(
    status: int, reason: str, expected: str = "", remedy: str = "", headers: dict[str, str] | None = None
) -> Response:
    """A reply that says why there is no answer."""
    return json_response(
        Refusal(status=status, reason=reason, expected=expected, remedy=remedy), status, headers
    )


async def _on_request_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    retry = {"retry-after": "1"} if error.status == 503 else None
    return refusal(error.status, error.found, error.expected, error.remedy, retry)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = dict(error.headers or {}).get("Allow", "")
    reason = {404: "there is no such page", 405: f"{request.method} is not possible here"}.get(
        error.status_code
    )
    return refusal(
        error.status_code, reason or error.detail, allowed or _KNOWN, headers=dict(error.headers or {})
    )


async def _on_disconnect(_: Request, __: Exception) -> Response:
    return refusal(400, "the client went away before its request was complete")


async def _on_fault(_: Request, __: Exception) -> Response:
    # Starlette raises the error again after this reply, so the server's log has the traceback; the client
    # gets none.
    return refusal(500, "the endpoint failed", remedy="try again; if it stays, tell the operator")
