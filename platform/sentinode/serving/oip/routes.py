"""``/v2/...``: the routes of the protocol over HTTP, with what tritonclient asks beyond it."""

from __future__ import annotations

from typing import Final

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sentinode.config import Frozen
from sentinode.errors import RequestError
from sentinode.serving.catalogue import Model
from sentinode.serving.http_parts import HEADERS, ClientGoneError, read_body
from sentinode.serving.oip import http
from sentinode.serving.oip import model as names
from sentinode.serving.oip.inference import Inferences
from sentinode.serving.pages import json_response

_INDEX: Final = TypeAdapter(list[names.IndexEntry])
_BINARY: Final = (b"content-type", b"application/octet-stream")
_JSON: Final = (b"content-type", b"application/json")


def oip_routes(inferences: Inferences) -> list[Route]:
    """All of them."""
    pages, infer = _Pages(inferences), _Infer(inferences)
    routes = [
        Route("/v2", pages.server),
        Route("/v2/health/live", pages.live),
        Route("/v2/health/ready", pages.ready),
        Route("/v2/repository/index", pages.index, methods=["POST"]),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        routes += [
            Route(path, pages.model),
            Route(f"{path}/ready", pages.model_ready),
            Route(f"{path}/config", pages.config),
            Route(f"{path}/infer", infer, methods=["POST"]),
        ]
    return routes


class Live(Frozen):
    """The reply to ``GET /v2/health/live``."""

    live: bool = True


class Ready(Frozen):
    """The reply to ``GET /v2/health/ready``."""

    ready: bool = True


class ModelReady(Frozen):
    """The reply to ``GET /v2/models/{name}/ready``."""

    name: str
    ready: bool = True


class _Pages:
    def __init__(self, inferences: Inferences) -> None:
        self._fleet = inferences.fleet

    async def live(self, _: Request) -> Response:
        return json_response(Live())

    async def ready(self, _: Request) -> Response:
        """503 until a bundle has reproduced its golden patches."""
        assert self._fleet.catalogue
        return json_response(Ready())

    async def server(self, _: Request) -> Response:
        return json_response(names.ServerMetadata())

    async def model(self, request: Request) -> Response:
        one, version = self._asked(request)
        return json_response(names.metadata(one, version))

    async def model_ready(self, request: Request) -> Response:
        one, _ = self._asked(request)
        return json_response(ModelReady(name=one.name))

    async def config(self, request: Request) -> Response:
        one, _ = self._asked(request)
        return json_response(names.ModelConfig(name=one.name))

    async def index(self, _: Request) -> Response:
        """The body (a filter) does not count: whatever is listed is ready."""
        return Response(_INDEX.dump_json(names.index(self._fleet.catalogue)), media_type="application/json")

    def _asked(self, request: Request) -> tuple[Model, str]:
        version = request.path_params.get("version", "")
        return names.found(self._fleet.catalogue, request.path_params["name"], version), version


class _Infer:
    """Bare ASGI: no Request and no Response object."""

    def __init__(self, inferences: Inferences) -> None:
        self._inferences = inferences

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, asked = dict(scope["headers"]), scope["path_params"]
        args = self._inferences.args
        model, version = self._inferences.choose(scope, asked["name"], asked.get("version", ""))
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise RequestError("the body is compressed", "no content-encoding", status=415)
        try:
            body = await read_body(headers, receive, args.max_bulk_bytes)
        except ClientGoneError:
            return
        inference, request = http.parse(body, headers.get(http.HEADER_LENGTH), args.max_body_bytes)
        answer = await self._inferences.answer(scope, model, version, inference)
        reply, json_size = http.render(answer, request)
        kind = [_JSON] if json_size == len(reply) else [_BINARY, (http.HEADER_LENGTH, b"%d" % json_size)]
        length = (b"content-length", b"%d" % len(reply))
        await send({"type": "http.response.start", "status": 200, "headers": [*kind, length, *HEADERS]})
        await send({"type": "http.response.body", "body": reply})
