"""What the descriptions of all operations share."""

from __future__ import annotations

from typing import Any, Final

from sentinode.serving.keys import Scope

BINARY: Final = {"type": "string", "format": "binary", "minLength": 1}
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
    421: "no keys are set, and the request was sent to another host than this machine",
    422: "not 96x96 RGB pixels of 8 bits",
    429: "more than the key's limits allow; Retry-After says when to ask again",
    500: "the endpoint failed",
    503: "as much to do as can be done; Retry-After says when to ask again",
}
_OF_EVERY: Final = (400, 401, 403, 404, 405, 421, 429, 500, 503)
_OF_BODIES: Final = (408, 411, 413, 415, 422)


def operation(
    summary: str,
    scope: Scope | None,
    kind: str,
    schema: dict[str, Any],
    has_body: bool = False,
    refusal: str = "Refusal",
) -> dict[str, Any]:
    """One operation; ``kind`` is the content type of its answer, ``refusal`` the record of its refusals."""
    refused = {"application/json": {"schema": ref(refusal)}}
    statuses = sorted((*_OF_EVERY, *_OF_BODIES) if has_body else _OF_EVERY)
    return {
        "summary": summary,
        "description": f"Needs the scope {scope.value}, where keys are required."
        if scope
        else "Needs no key.",
        "security": [{}, {"bearer": []}, {"key": []}] if scope else [{}],
        "responses": {
            "200": {"description": "The answer", "content": {kind: {"schema": schema}}},
            **{str(s): {"description": _REFUSALS[s], "content": refused} for s in statuses},
        },
    }


def read(summary: str, scope: Scope | None, record: str, refusal: str = "Refusal") -> dict[str, Any]:
    """An operation that is answered with a record."""
    return operation(summary, scope, "application/json", ref(record), refusal=refusal)


def ref(name: str) -> dict[str, Any]:
    """A schema among the components."""
    return {"$ref": f"#/components/schemas/{name}"}
