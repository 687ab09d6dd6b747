"""Tensors of the Open Inference Protocol: named, typed, shaped; as JSON values or as raw bytes.

Raw bytes are little-endian and in C order. An element of BYTES is its length (uint32) and that many bytes
(KServe's binary tensor data extension, which Triton made).
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sentinode.errors import RequestError

_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Input:
    """A tensor that a client sent; ``raw`` or ``values``, as it came."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: memoryview | None = None
    values: Sequence[Any] | None = None
    """Flat, or nested as the shape says."""


@dataclass(frozen=True, slots=True, eq=False)
class Output:
    """A tensor [B] of an answer."""

    name: str
    datatype: str
    values: Sequence[float | bool | str]
    """NaN where there is no number."""

    @property
    def shape(self) -> list[int]:
        """[B]."""
        return [len(self.values)]

    def raw(self) -> bytes:
        """The values as bytes."""
        match self.datatype:
            case "BYTES":
                return pack_bytes([str(value).encode() for value in self.values])
            case "BOOL":
                return np.asarray(self.values, np.bool_).tobytes()
            case _:
                return np.asarray(self.values, "<f4").tobytes()

    def json_values(self) -> list[float | bool | str | None]:
        """The values for JSON, which has no NaN."""
        return [None if value != value else value for value in self.values]


def pack_bytes(elements: Sequence[bytes]) -> bytes:
    """A BYTES tensor as raw bytes."""
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def unpack_bytes(raw: memoryview, count: int, name: str) -> list[bytes]:
    """The ``count`` elements of a BYTES tensor. Raises RequestError 400 where their lengths do not add up."""
    elements, at = [], 0
    for number in range(1, count + 1):
        if at + _LENGTH.size > len(raw):
            raise _odd(f"{name} ends before element {number} of {count}")
        (size,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if size > len(raw) - at:
            raise _odd(f"element {number} of {name} has {len(raw) - at} bytes and says {size}")
        elements.append(bytes(raw[at : at + size]))
        at += size
    if at != len(raw):
        raise _odd(f"{name} has {len(raw) - at} bytes after its {count} elements")
    return elements


def uint8_of(tensor: Input) -> NDArray[np.uint8]:
    """The numbers of a UINT8 tensor in its shape; raw bytes are not copied. Raises RequestError 400."""
    wanted = 1
    for size in tensor.shape:
        wanted *= size
    if tensor.raw is not None:
        if len(tensor.raw) != wanted:
            raise RequestError(
                f"{tensor.name} has {len(tensor.raw)} bytes", f"{wanted} bytes for shape {list(tensor.shape)}"
            )
        return np.frombuffer(tensor.raw, np.uint8).reshape(tensor.shape)
    flat = _flat(tensor)
    if len(flat) != wanted:
        raise RequestError(
            f"{tensor.name} has {len(flat)} values", f"{wanted} values for shape {list(tensor.shape)}"
        )
    try:
        return np.frombuffer(bytes(flat), np.uint8).reshape(tensor.shape)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{tensor.name} holds other than integers from 0 to 255", "UINT8") from error


def bytes_of(tensor: Input) -> list[bytes]:
    """The elements of a BYTES tensor [B]. Raises RequestError 400."""
    (count,) = tensor.shape
    if tensor.raw is not None:
        return unpack_bytes(tensor.raw, count, tensor.name)
    flat = _flat(tensor)
    if len(flat) != count:
        raise RequestError(f"{tensor.name} has {len(flat)} elements", f"{count}, as its shape says")
    return [value if isinstance(value, bytes) else _from_base64(value, tensor.name) for value in flat]


def _flat(tensor: Input) -> Sequence[Any]:
    """The values in one list. Only as many levels are undone as the shape has."""
    flat = tensor.values or ()
    for size in tensor.shape[1:]:
        if not flat or not isinstance(flat[0], list):
            break
        if not all(isinstance(row, list) and len(row) == size for row in flat):
            raise RequestError(
                f"the data of {tensor.name} are nested otherwise than its shape {list(tensor.shape)}",
                "a flat list, or lists nested as the shape says",
            )
        flat = list(chain.from_iterable(flat))
    return flat


def _from_base64(value: object, name: str) -> bytes:
    # No image is valid Unicode, so its bytes cannot stand in JSON as they are.
    try:
        return base64.b64decode(value, validate=True)  # type: ignore[arg-type]
    except (TypeError, ValueError, binascii.Error) as error:
        raise RequestError(
            f"an element of {name} is not base64",
            "images as base64 text",
            "or send them as binary tensor data (binary_data_size), as tritonclient does",
        ) from error


def _odd(found: str) -> RequestError:
    return RequestError(found, "BYTES: for each element its length (uint32, little-endian) and its bytes")
