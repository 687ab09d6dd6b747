"""``/v2/...`` described for programs."""

from __future__ import annotations

from typing import Any, Final

from sentinode.config import Frozen
from sentinode.serving.keys import Scope
from sentinode.serving.oip.errors import OipError
from sentinode.serving.oip.http import InferRequest, InferResponse
from sentinode.serving.oip.model import IndexEntry, ModelConfig, ModelMetadata, ServerMetadata
from sentinode.serving.oip.routes import Live, ModelReady, Ready
from sentinode.serving.openapi_parts import BINARY, operation, read, ref

RECORDS: Final[tuple[type[Frozen], ...]] = (
    OipError, ServerMetadata, ModelMetadata, ModelConfig, IndexEntry, Live, Ready, ModelReady,
)  # fmt: skip
REQUESTS: Final[tuple[type[Frozen], ...]] = (InferRequest, InferResponse)
_ERROR: Final = OipError.__name__


def paths() -> dict[str, Any]:
    """The paths of the protocol."""
    index = {"type": "array", "items": ref("IndexEntry")}
    return {
        "/v2": {"get": read("The server, and what it can", Scope.PREDICT, "ServerMetadata", _ERROR)},
        "/v2/health/live": {"get": read("Whether the process answers", None, "Live", _ERROR)},
        "/v2/health/ready": {"get": read("Whether a bundle is served", None, "Ready", _ERROR)},
        "/v2/repository/index": {
            "post": operation("All models", Scope.PREDICT, "application/json", index, refusal=_ERROR)
        },
        **_of_models("/v2/models/{name}", [_NAME]),
        **_of_models("/v2/models/{name}/versions/{version}", [_NAME, _VERSION]),
    }


def _of_models(path: str, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    def get(summary: str, record: str) -> dict[str, Any]:
        return {"get": {**read(summary, Scope.PREDICT, record, _ERROR), "parameters": parameters}}

    return {
        path: get("What a model takes and gives", "ModelMetadata"),
        f"{path}/ready": get("Whether a model answers", "ModelReady"),
        f"{path}/config": get("The part of Triton's model configuration that clients read", "ModelConfig"),
        f"{path}/infer": {"post": _infer(parameters)},
    }


def _infer(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    described = operation(
        "Score patches", Scope.PREDICT, "application/json", ref("InferResponse"), True, _ERROR
    )
    described["responses"]["200"]["content"]["application/octet-stream"] = {"schema": BINARY}
    return {
        **described,
        "parameters": [*parameters, _HEADER_LENGTH],
        "requestBody": {
            "description": "JSON, behind which raw tensors may follow (binary tensor data extension).",
            "required": True,
            "content": {
                "application/json": {"schema": ref("InferRequest")},
                "application/octet-stream": {"schema": BINARY},
            },
        },
    }


def _in_path(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 64}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}


_NAME: Final = _in_path("name", "Name of a model, or digest of its bundle")
_VERSION: Final = _in_path("version", "Digest of one of the bundles that answer under this name")
_HEADER_LENGTH: Final = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "How many bytes of the body are JSON; all of them where it is not given",
    "schema": {"type": "integer", "minimum": 0},
}
