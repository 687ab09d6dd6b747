"""``/v1/slides``: scored slides for the page, and what pathologists correct."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sentinode.config import Frozen
from sentinode.errors import RequestError, SentinodeError
from sentinode.serving.body import read_body
from sentinode.serving.guard import CALLER
from sentinode.serving.pages import json_response
from sentinode.serving.slide_shelf import SlideShelf

SLIDES: Final = "/v1/slides"
_FRESH: Final = {"cache-control": "no-store"}
_KEPT: Final = {"cache-control": "private, max-age=3600"}
"""Tiles of a slide do not change."""
_NUMBER: Final = re.compile(r"[0-9]{1,9}")

Found = TypeVar("Found")
OnCorrected = Callable[[Request, str], None]


def slide_routes(shelf: SlideShelf, on_corrected: OnCorrected) -> list[Route]:
    """The routes over ``shelf``; ``on_corrected`` is told the request and the slide's name."""
    routes = _Routes(shelf, on_corrected)
    one = SLIDES + "/{name}"
    return [
        Route(SLIDES, routes.listing),
        Route(one, routes.shown),
        Route(one + "/tiles/{level}/{column}_{row}.jpg", routes.tile),
        Route(one + "/heat.png", routes.heat_map),
        Route(one + "/lesions", routes.lesions),
        Route(one + "/corrections", routes.corrections, methods=["GET"]),
        Route(one + "/corrections", routes.correct, methods=["PUT"]),
    ]


class _Routes:
    def __init__(self, shelf: SlideShelf, on_corrected: OnCorrected) -> None:
        self._shelf = shelf
        self._on_corrected = on_corrected

    async def listing(self, _: Request) -> Response:
        return json_response(await _in_thread(self._shelf.listing))

    async def shown(self, request: Request) -> Response:
        found: Frozen = await _in_thread(self._shelf.shown, _name(request))
        return json_response(found)

    async def tile(self, request: Request) -> Response:
        place = [_number(request.path_params[part]) for part in ("level", "column", "row")]
        zoom = await _in_thread(self._shelf.zoom, _name(request))
        return Response(await _in_thread(zoom.tile, *place), headers=_KEPT, media_type="image/jpeg")

    async def heat_map(self, request: Request) -> Response:
        png = await _in_thread(self._shelf.heat_map, _name(request))
        return Response(png, headers=_FRESH, media_type="image/png")

    async def lesions(self, request: Request) -> Response:
        geojson = await _in_thread(self._shelf.lesions, _name(request))
        return Response(geojson, headers=_FRESH, media_type="application/geo+json")

    async def corrections(self, request: Request) -> Response:
        geojson, version = await _in_thread(self._shelf.corrections, _name(request))
        headers = {**_FRESH, "etag": f'"{version}"'}
        return Response(geojson, headers=headers, media_type="application/geo+json")

    async def correct(self, request: Request) -> Response:
        """``If-Match`` names the version that was corrected: that of GET's ``ETag``."""
        stated = request.headers.get("if-match")
        if stated is None:
            raise RequestError(
                "If-Match is missing", "the ETag of the corrections that were changed", status=428
            )
        body = await read_body(request, self._shelf.args.max_correction_bytes)
        name, by = _name(request), request.scope["state"][CALLER]
        version = await _in_thread(
            self._shelf.correct, name, body, stated.strip().strip('"'), by.name if by else "anonymous"
        )
        self._on_corrected(request, name)
        return Response(status_code=204, headers={**_FRESH, "etag": f'"{version}"'})


def _number(text: str) -> int:
    """Starlette's own converter fails on thousands of digits."""
    if not _NUMBER.fullmatch(text):
        raise RequestError("there is no such tile", "level/column_row.jpg, in whole numbers", status=404)
    return int(text)


def _name(request: Request) -> str:
    name: str = request.path_params["name"]
    return name


async def _in_thread(work: Callable[..., Found], *arguments: Any) -> Found:
    """``work`` off the event loop; what goes wrong with the slide or the store is said, not hidden as a fault."""
    try:
        return await run_in_threadpool(work, *arguments)
    except RequestError:
        raise
    except SentinodeError as error:
        raise RequestError(error.found, error.expected, error.remedy, status=502) from error
