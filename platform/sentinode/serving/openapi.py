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
from sentinode.serving.pages import Health, Models
from sentinode.serving.protocol import Prediction, Predictions, Refusal

_RECORDS: Final[tuple[type[Frozen], ...]] = (Prediction, Predictions, Refusal, Health, Models, Card)
_IMAGES: Final = ("image/jpeg", "image/png", "image/tiff")
_BINARY: Final = {"type": "string", "format": "binary", "minLength": 1}
_REFUSALS: Final = {
    400: "the request cannot be understood, or its image not be decoded",
    401: "no valid API key",
    403: "the key lacks the scope",
    404: "there is no such page, model or bundle",
    405: "another method is possible here",
    408: "the body came too slowly",
    411: "pixels without content-length",
    413: "too large, or too many",
    415: "no JPEG, PNG or TIFF that the endpoint reads",
    422: "not 96x96 RGB pixels of 8 bits",
    429: "more than the key's limits allow; Retry-After says when to ask again",
    500: "the endpoint failed",
    503: "as much to do as can be done; Retry-After says when to ask again",
}
_OF_EVERY: Final = (400, 401, 403, 404, 405, 429, 500, 503)
_OF_BODIES: Final = (408, 411, 413, 415, 422)


def document() -> dict[str, Any]:
    """The document as JSON values."""
    pairs = [(record, "serialization") for record in _RECORDS]
    _, schemas = models_json_schema(pairs, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sentinode endpoint", "version": __version__, "description": RESEARCH_USE_ONLY},
        "paths": {
            "/v1/predict": {"post": _predict()},
            "/v1/explain": {"post": _explain()},
            "/v1/models": {"get": _read("What is served now", Scope.PREDICT, "Models")},
            "/v1/bundles/{digest}": {
                "get": {
                    **_read("The card of a bundle that is served", Scope.PREDICT, "Card"),
                    "parameters": [_DIGEST],
                }
            },
            "/healthz": {"get": _read("Whether a bundle is served", None, "Health")},
            "/metrics": {
                "get": _operation("Counters for Prometheus", Scope.METRICS, "text/plain", {"type": "string"})
            },
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


def _operation(
    summary: str, scope: Scope | None, kind: str, schema: dict[str, Any], has_body: bool = False
) -> dict[str, Any]:
    refusal = {"application/json": {"schema": _ref("Refusal")}}
    statuses = sorted((*_OF_EVERY, *_OF_BODIES) if has_body else _OF_EVERY)
    return {
        "summary": summary,
        "description": f"Needs the scope {scope.value}, where keys are required."
        if scope
        else "Needs no key.",
        "security": [{}, {"bearer": []}, {"key": []}] if scope else [{}],
        "responses": {
            "200": {"description": "The answer", "content": {kind: {"schema": schema}}},
            **{str(s): {"description": _REFUSALS[s], "content": refusal} for s in statuses},
        },
    }


def _read(summary: str, scope: Scope | None, record: str) -> dict[str, Any]:
    return _operation(summary, scope, "application/json", _ref(record))


def _predict() -> dict[str, Any]:
    answer = {"oneOf": [_ref("Prediction"), _ref("Predictions")]}
    form = {"type": "object", "properties": {"image": {"type": "array", "items": _BINARY, "minItems": 1}}}
    return {
        **_operation("Score patches", Scope.PREDICT, "application/json", answer, has_body=True),
        "parameters": [_MODEL, _MPP, _SLIDE, _SHAPE],
        "requestBody": {
            "description": "One image; a form with several; or pixels, if X-Sentinode-Shape says their shape.",
            "required": True,
            "content": {
                **{kind: {"schema": _BINARY} for kind in _IMAGES},
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {
                    "schema": {**_BINARY, "description": f"{PATCH_BYTES} bytes a patch"}
                },
            },
        },
    }


def _explain() -> dict[str, Any]:
    return {
        **_operation("What a probability rests on", Scope.EXPLAIN, "image/png", _BINARY, has_body=True),
        "parameters": [_MODEL],
        "requestBody": {"required": True, "content": {kind: {"schema": _BINARY} for kind in _IMAGES}},
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


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
