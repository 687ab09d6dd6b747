"""The endpoint described for programs: ``GET /openapi.json`` (OpenAPI 3.1), built from the records it answers with."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, Final

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from sentinode import __version__
from sentinode.bundle.card import Card
from sentinode.config import Frozen
from sentinode.schema import PATCH_BYTES, RESEARCH_USE_ONLY
from sentinode.serving.keys import Scope
from sentinode.serving.oip import openapi as oip
from sentinode.serving.openapi_parts import BINARY, operation, read, ref
from sentinode.serving.pages import Health, Models
from sentinode.serving.protocol import Prediction, Predictions, Refusal

_RECORDS: Final[tuple[type[Frozen], ...]] = (Prediction, Predictions, Refusal, Health, Models, Card)
_IMAGES: Final = ("image/jpeg", "image/png", "image/tiff")


def document() -> dict[str, Any]:
    """The document as JSON values."""
    pairs = [(record, "serialization") for record in (*_RECORDS, *oip.RECORDS)]
    pairs += [(record, "validation") for record in oip.REQUESTS]
    _, schemas = models_json_schema(pairs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sentinode endpoint", "version": __version__, "description": RESEARCH_USE_ONLY},
        "paths": {
            "/v1/predict": {"post": _predict()},
            "/v1/explain": {"post": _explain()},
            "/v1/models": {"get": read("What is served now", Scope.PREDICT, "Models")},
            "/v1/bundles/{digest}": {
                "get": {
                    **read("The card of a bundle that is served", Scope.PREDICT, "Card"),
                    "parameters": [_DIGEST],
                }
            },
            "/healthz": {"get": read("Whether a bundle is served", None, "Health")},
            "/metrics": {
                "get": operation("Counters for Prometheus", Scope.METRICS, "text/plain", {"type": "string"})
            },
            **oip.paths(),
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "API key, or JWT"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


@cache
def _text() -> str:
    return json.dumps(document())


async def openapi(_: Request) -> Response:
    """``GET /openapi.json``."""
    return Response(_text(), headers={"cache-control": "no-cache"}, media_type="application/json")


def _predict() -> dict[str, Any]:
    answer = {"oneOf": [ref("Prediction"), ref("Predictions")]}
    form = {"type": "object", "properties": {"image": {"type": "array", "items": BINARY, "minItems": 1}}}
    return {
        **operation("Score patches", Scope.PREDICT, "application/json", answer, has_body=True),
        "parameters": [_MODEL, _MPP, _SLIDE, _SHAPE],
        "requestBody": {
            "description": "One image; a form with several; or pixels, if X-Sentinode-Shape says their shape.",
            "required": True,
            "content": {
                **{kind: {"schema": BINARY} for kind in _IMAGES},
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {
                    "schema": {**BINARY, "description": f"{PATCH_BYTES} bytes a patch"}
                },
            },
        },
    }


def _explain() -> dict[str, Any]:
    return {
        **operation("What a probability rests on", Scope.EXPLAIN, "image/png", BINARY, has_body=True),
        "parameters": [
            {
                **_MODEL,
                "description": f"{_MODEL['description']}. `bundle` of a reply names the one that gave it",
            }
        ],
        "requestBody": {"required": True, "content": {kind: {"schema": BINARY} for kind in _IMAGES}},
    }


def _header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "required": False, "schema": schema}


_MODEL: Final = {
    "name": "model",
    "in": "query",
    "description": "Name of a model, or digest of its bundle; the default model where it is not given",
    "schema": {"type": "string", "minLength": 1, "maxLength": 64},
}
_DIGEST: Final = {
    "name": "digest",
    "in": "path",
    "required": True,
    "description": "SHA-256 of the card",
    "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
}
_MPP: Final = _header(
    "X-MPP-UM-PX", "Microns per pixel of the patches", {"type": "number", "exclusiveMinimum": 0}
)
_SLIDE: Final = _header(
    "X-Sentinode-Slide", "Which slide they are of: a canary answers for whole slides", {"type": "string"}
)
_SHAPE: Final = _header(
    "X-Sentinode-Shape",
    "The body is uint8 pixels of this shape",
    {"type": "string", "pattern": "^[1-9][0-9]{0,5},96,96,3$"},
)
