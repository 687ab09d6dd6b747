"""Looking through an ONNX file before any runtime parses it: what it must not hold is found without running it.

The file is a protocol buffer, of which only the few message types that lead to tensors and operators are walked (the
numbers are those of onnx.proto); everything else is skipped by its length. So serving needs no ``onnx`` package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sentinode.errors import BundleError

KNOWN_DOMAINS: Final = frozenset({"", "ai.onnx", "com.microsoft"})
"""ONNX's own operators and those that ONNX Runtime ships; any other would need a library of somebody's code."""

_MESSAGES: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_OP_TYPE, _DOMAIN = 4, 7  # of a node
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of a tensor
_DEEPEST: Final = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def check_graph(data: bytes, name: str) -> None:
    """Raises BundleError where ``data``, the file ``name``, is cut off or no protocol buffer, refers to data outside of
    itself, or uses operators that ONNX Runtime does not know by itself.
    """
    try:
        _walk(memoryview(data), "model", name, 0)
    except _MalformedError as error:
        raise BundleError(
            f"{name} is no ONNX file ({error})", "a whole ONNX file", "export it anew, and seal anew"
        ) from error


class _MalformedError(Exception):
    """The bytes are no protocol buffer."""


def _walk(message: memoryview, kind: str, name: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise _MalformedError(f"graphs nested deeper than {_DEEPEST}")
    inner = _MESSAGES[kind]
    operator, domain = "", ""
    for number, value in _fields(message):
        if number in inner:
            if isinstance(value, int):
                raise _MalformedError(f"field {number} of a {kind} is a number")
            _walk(value, inner[number], name, depth + 1)
        elif kind == "tensor" and (
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value not in (0, b""))
        ):
            raise BundleError(
                f"{name} takes tensors from outside of itself",
                "one self-contained ONNX file without external data",
                "export it anew (torch.onnx.export(..., external_data=False))",
            )
        elif kind == "node" and number in (_OP_TYPE, _DOMAIN) and not isinstance(value, int):
            text = bytes(value[:200]).decode(errors="replace")
            operator, domain = (text, domain) if number == _OP_TYPE else (operator, text)
    if domain not in KNOWN_DOMAINS:
        raise BundleError(
            f"{name} uses the operator {operator!r} of {domain!r}",
            "operators of ONNX and of ONNX Runtime, which need no further code",
            "export it anew without custom operators",
        )


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Field number and content: bytes, or the number of a varint; numbers of fixed width are passed over."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
        elif wire == _BYTES:
            size, at = _varint(message, at)
            if size > end - at:
                raise _MalformedError(f"{size} bytes are announced where {end - at} are left")
            yield number, message[at : at + size]
            at += size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise _MalformedError(f"unknown wire type {wire}")
    if at != end:
        raise _MalformedError("it is cut off")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise _MalformedError("it is cut off")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
