"""The protocol over HTTP: JSON, and JSON followed by raw tensors (the binary tensor data extension)."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from sentinode.config import Frozen, summarise
from sentinode.errors import RequestError
from sentinode.serving.oip.inference import Inference, Inferred
from sentinode.serving.oip.tensors import Input

HEADER_LENGTH: Final = b"inference-header-content-length"
_UNSUPPORTED: Final = ("shared_memory_region", "classification")


class _Named(Frozen):
    name: str = Field(max_length=256)
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Of an input ``binary_data_size``: its bytes behind the JSON, in place of ``data``. Of an output ``binary_data``:
    whether it comes behind the JSON of the reply.
    """


class InferInput(_Named):
    """An input tensor in JSON."""

    shape: tuple[Annotated[int, Field(ge=-(2**63), lt=2**63)], ...] = Field(max_length=16)
    datatype: str = Field(max_length=16)
    data: list[Any] | None = None
    """Row-major, flat or nested; images of a BYTES tensor as base64."""


class InferOutput(_Named):
    """An output tensor that is wanted."""


class InferRequest(Frozen):
    """The JSON of ``POST /v2/models/{name}/infer``."""

    id: str = Field(default="", max_length=256)
    parameters: dict[str, Any] = Field(default_factory=dict)
    """``binary_data_output``: whether outputs that do not say otherwise come behind the JSON of the reply."""
    inputs: tuple[InferInput, ...] = Field(max_length=16, json_schema_extra={"minItems": 1})
    outputs: tuple[InferOutput, ...] = Field(default=(), max_length=16)


class InferredOutput(Frozen):
    """An output tensor in JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | None = None
    data: tuple[float | bool | str | None, ...] | None = None
    """null where there is no number, because the patch was not judged."""


class InferResponse(Frozen):
    """The JSON of the reply."""

    model_name: str
    model_version: str
    """Digest of the bundle that answered."""
    id: str | None = None
    parameters: dict[str, str | float]
    outputs: tuple[InferredOutput, ...]


def parse(body: bytes, header_length: bytes | None, max_json_bytes: int) -> tuple[Inference, InferRequest]:
    """The inference that a body asks for. Raises RequestError 400, and 413 where its JSON is too long."""
    size = _json_size(len(body), header_length)
    if size > max_json_bytes:
        raise RequestError(
            f"the JSON has {size} bytes",
            f"at most {max_json_bytes}",
            "send tensors as binary data (binary_data_size), as tritonclient does",
            status=413,
        )
    try:
        request = InferRequest.model_validate_json(body[:size])
    except ValidationError as error:
        raise RequestError(f"the request is no inference ({summarise(error)})", "inputs: [...]") from error
    named: tuple[_Named, ...] = (*request.inputs, *request.outputs)
    for one in named:
        for name in _UNSUPPORTED:
            if one.parameters.get(name):
                raise RequestError(f"{name} is not supported here", "tensors in the request and the reply")
    rest, inputs = memoryview(body)[size:], []
    for tensor in request.inputs:
        raw, rest = _split(tensor, rest)
        inputs.append(Input(tensor.name, tensor.datatype, tensor.shape, raw, tensor.data))
    if len(rest):
        raise RequestError(
            f"{len(rest)} bytes follow that no input names", "binary_data_size of each binary input"
        )
    return Inference(request.id, inputs, [one.name for one in request.outputs]), request


def render(answer: Inferred, request: InferRequest) -> tuple[bytes, int]:
    """The body of the reply and the length of its JSON; nothing follows where that is all of it."""
    default = request.parameters.get("binary_data_output") is True
    binary = {one.name: one.parameters.get("binary_data", default) is True for one in request.outputs}
    behind, outputs = [], []
    for one in answer.outputs:
        fields: dict[str, Any] = {"name": one.name, "datatype": one.datatype, "shape": one.shape}
        if binary.get(one.name, default):
            raw = one.raw()
            behind.append(raw)
            outputs.append({**fields, "parameters": {"binary_data_size": len(raw)}})
        else:
            outputs.append({**fields, "data": one.json_values()})
    reply = {
        "model_name": answer.model,
        "model_version": answer.version,
        **({"id": answer.id} if answer.id else {}),
        "parameters": answer.parameters,
        "outputs": outputs,
    }
    text = json.dumps(reply, allow_nan=False).encode()
    return b"".join((text, *behind)), len(text)


def _json_size(body_size: int, header_length: bytes | None) -> int:
    if header_length is None:
        return body_size
    if not header_length.isdigit() or int(header_length[:20]) > body_size:
        raise RequestError(
            f"{HEADER_LENGTH.decode()} is {header_length[:32].decode('latin-1')!r}",
            f"how many of the body's {body_size} bytes are JSON",
        )
    return int(header_length[:20])


def _split(tensor: InferInput, rest: memoryview) -> tuple[memoryview | None, memoryview]:
    """The raw bytes of a tensor (None where it came as JSON), and what follows them."""
    size = tensor.parameters.get("binary_data_size")
    if (size is None) == (tensor.data is None):
        raise RequestError(
            f"input {tensor.name[:64]!r} has {'no data' if size is None else 'two sorts of data'}",
            "data, or binary_data_size among its parameters",
        )
    if size is None:
        return None, rest
    if type(size) is not int or not 0 <= size <= len(rest):
        raise RequestError(
            f"binary_data_size of {tensor.name[:64]!r} is {str(size)[:32]}",
            f"a number of bytes, of the {len(rest)} that are there",
        )
    return rest[:size], rest[size:]
