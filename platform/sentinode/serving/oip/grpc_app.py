"""The methods of ``inference.GRPCInferenceService``, as the endpoint's ASGI application answers them.

A gRPC call is a POST of a message to ``/<service>/<method>`` (gRPC over HTTP/2). So it goes through the same guard,
throttle, metrics and audit log as a request over HTTP, in the same order, and needs none of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.protobuf.json_format import ParseDict
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinode.config import Frozen
from sentinode.errors import RequestError
from sentinode.serving.http_parts import read_body
from sentinode.serving.oip import model as names
from sentinode.serving.oip.errors import sentence
from sentinode.serving.oip.grpc_wire import decode, inference_of, reply_of
from sentinode.serving.oip.inference import Inferences
from sentinode.serving.oip.messages import METHODS, SERVICE, TRITON_TYPES, message

logger = logging.getLogger(__name__)

PREFIX: Final = f"/{SERVICE}/"
_EXTENSION: Final = "sentinode.grpc"
"""Marks a scope that ``call`` made; what comes over HTTP cannot have it."""
_TRACE: Final = ("traceparent", "tracestate", "baggage")
_FORWARDED: Final = frozenset(
    ("authorization", "x-api-key", "x-request-id", "x-mpp-um-px", "x-sentinode-slide", *_TRACE)
)
_MOST_DETAILS: Final = 1000
_CODES: Final = {
    200: grpc.StatusCode.OK,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back to a gRPC client."""

    code: grpc.StatusCode
    details: str = ""
    message: bytes = b""

    def SerializeToString(self) -> bytes:  # noqa: N802
        """The message: Ray Serve asks for it as it would ask protobuf."""
        return self.message


async def call(app: ASGIApp, method: str, metadata: Iterable[tuple[str, Any]], body: bytes) -> Reply:
    """Ask ``app`` as a gRPC client asks."""
    headers = [
        (key.encode("latin-1", "replace"), _encoded(value)) for key, value in metadata if key in _FORWARDED
    ]
    path = f"{PREFIX}{method}"
    scope: Scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "2", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers,
        "client": None, "server": None, "state": {}, "extensions": {_EXTENSION: {}},
    }  # fmt: skip
    status, sent = 500, bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(reply: Message) -> None:
        nonlocal status
        status = reply.get("status", status)
        sent.extend(reply.get("body", b""))

    try:
        await app(scope, receive, send)
    except Exception:
        # The client gets the refusal that was sent before; a server of HTTP would log this likewise.
        logger.exception("a gRPC call failed")
    code = _CODES.get(status)
    if code is grpc.StatusCode.OK:
        return Reply(code, message=bytes(sent))
    otherwise = grpc.StatusCode.INVALID_ARGUMENT if status < 500 else grpc.StatusCode.INTERNAL
    return Reply(code or otherwise, sentence(bytes(sent))[:_MOST_DETAILS])


class GrpcMethods:
    """The handler below ``PREFIX``."""

    def __init__(self, inferences: Inferences) -> None:
        self._inferences = inferences
        self._fleet = inferences.fleet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["path"].removeprefix(PREFIX)
        if _EXTENSION not in scope.get("extensions", ()) or method not in METHODS:
            raise RequestError("there is no such page", "gRPC on its own port", status=404)
        args = self._inferences.args
        limit = args.max_bulk_bytes if method == "ModelInfer" else args.max_body_bytes
        body = await read_body(dict(scope["headers"]), receive, limit)
        if method == "ModelInfer":
            name, version, asked = inference_of(body, args.max_body_bytes)
            model, one = self._inferences.choose(scope, name, version)
            reply = reply_of(await self._inferences.answer(scope, model, one, asked))
        else:
            reply = self._described(method, decode(f"{method}Request", body)).SerializeToString()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": reply})

    def _described(self, method: str, asked: Any) -> Any:
        catalogue = self._fleet.catalogue
        reply = message(f"{method}Response")
        match method:
            case "ServerLive":
                return reply(live=True)
            case "ServerReady":
                return reply(ready=True)
            case "ServerMetadata":
                return _filled(names.ServerMetadata(), reply())
            case "RepositoryIndex":
                return reply(models=[one.model_dump() for one in names.index(catalogue)])
            case "ModelReady":
                return reply(ready=self._is_ready(asked.name, asked.version))
        model = names.found(catalogue, asked.name, asked.version)
        if method == "ModelMetadata":
            return _filled(names.metadata(model, asked.version), reply())
        return reply(config=_config(names.ModelConfig(name=model.name)))

    def _is_ready(self, name: str, version: str) -> bool:
        try:
            names.found(self._fleet.catalogue, name, version)
        except RequestError as error:
            if error.status != 404:
                raise
            return False
        return True


def _filled(record: Frozen, reply: Any) -> Any:
    return ParseDict(record.model_dump(mode="json"), reply)


def _config(config: names.ModelConfig) -> Any:
    fields = config.model_dump(mode="json")
    for tensor in (*fields["input"], *fields["output"]):
        tensor["data_type"] = TRITON_TYPES[tensor["data_type"]]
    return ParseDict(fields, message("ModelConfig")())


def _encoded(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")
