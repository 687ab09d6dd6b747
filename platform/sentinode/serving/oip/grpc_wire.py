"""``ModelInferRequest`` from its bytes: raw tensors are taken out uncopied before the rest is parsed.

A parsed message can take fifty times the memory of its bytes (millions of empty fields). So what is not a raw
tensor is measured first, as the JSON of a request over HTTP is.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.message import DecodeError

from sentinode.errors import RequestError
from sentinode.serving.oip.inference import Inference, Inferred
from sentinode.serving.oip.messages import RAW_INPUT_CONTENTS, message
from sentinode.serving.oip.tensors import Input

_MOST_FIELDS: Final = 64
_DELIMITED: Final = 2
_LONGEST_VARINT: Final = 10
_CONTENTS: Final = {"UINT8": "uint_contents", "BYTES": "bytes_contents"}
_UNSUPPORTED: Final = ("shared_memory_region", "classification")


def decode(name: str, body: bytes | memoryview) -> Any:
    """A message. Raises RequestError 400 where the bytes are none."""
    one = message(name)()
    try:
        one.ParseFromString(bytes(body))
    except (DecodeError, ValueError) as error:
        raise RequestError(f"the bytes are no {name}", "a message of the Open Inference Protocol") from error
    return one


def inference_of(body: bytes, max_head_bytes: int) -> tuple[str, str, Inference]:
    """Model, version and inference. Raises RequestError 400, and 413 for more than ``max_head_bytes`` beside raw
    tensors.
    """
    head, raws = split(body)
    if len(head) > max_head_bytes:
        raise RequestError(
            f"the request has {len(head)} bytes beside raw_input_contents",
            f"at most {max_head_bytes}",
            "send tensors as raw_input_contents, as tritonclient does",
            status=413,
        )
    request = decode("ModelInferRequest", head)
    for one in (*request.inputs, *request.outputs):
        for parameter in one.parameters:
            if parameter.key in _UNSUPPORTED:
                raise RequestError(f"{parameter.key} is not supported here", "tensors in the request")
    if raws and len(raws) != len(request.inputs):
        raise RequestError(
            f"{len(raws)} raw_input_contents for {len(request.inputs)} inputs", "one for each, or none"
        )
    inputs = [_input(one, raws[number] if raws else None) for number, one in enumerate(request.inputs)]
    outputs = [one.name for one in request.outputs]
    return request.model_name, request.model_version, Inference(request.id, inputs, outputs)


def reply_of(answer: Inferred) -> bytes:
    """A ModelInferResponse with raw tensors."""
    reply = message("ModelInferResponse")(model_name=answer.model, model_version=answer.version, id=answer.id)
    for key, value in answer.parameters.items():
        choice = {"string_param": value} if isinstance(value, str) else {"double_param": value}
        reply.parameters.add(key=key, value=choice)
    for one in answer.outputs:
        reply.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        reply.raw_output_contents.append(one.raw())
    return bytes(reply.SerializeToString())


def split(body: bytes) -> tuple[bytes, list[memoryview]]:
    """A ModelInferRequest without its raw tensors, and these. Raises RequestError 400."""
    view, at, head, raws = memoryview(body), 0, bytearray(), list[memoryview]()
    for _ in range(_MOST_FIELDS):
        if at == len(view):
            break
        start = at
        tag, at = _varint(view, at)
        size, at = _payload(view, at, tag & 7)
        if at + size > len(view):
            raise _broken(f"a field of {size} bytes where {len(view) - at} are left")
        if tag == RAW_INPUT_CONTENTS << 3 | _DELIMITED:
            raws.append(view[at : at + size])
        else:
            head += view[start : at + size]
        at += size
    if at < len(view):
        raise _broken(f"more than {_MOST_FIELDS} fields")
    return bytes(head), raws


def _payload(view: memoryview, at: int, wire_type: int) -> tuple[int, int]:
    """The size of a field's value, and where it begins."""
    match wire_type:
        case 0:
            _, end = _varint(view, at)
            return end - at, at
        case 1:
            return 8, at
        case 2:
            return _varint(view, at)
        case 5:
            return 4, at
        case _:
            raise _broken(f"wire type {wire_type}")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for number, byte in enumerate(view[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value, at + number + 1
    raise _broken("a number that does not end")


def _input(one: Any, raw: memoryview | None) -> Input:
    contents, values = _CONTENTS.get(one.datatype), None
    if raw is None:
        values = list(getattr(one.contents, contents)) if contents else []
    elif one.contents.ByteSize():
        raise RequestError("an input has contents and raw_input_contents", "one of them")
    return Input(one.name, one.datatype, tuple(one.shape), raw, values)


def _broken(found: str) -> RequestError:
    return RequestError(f"the bytes are no ModelInferRequest: {found}", "a protobuf message")
