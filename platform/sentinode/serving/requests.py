"""What ``POST /v1/predict`` takes: one image, several in a form, or pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive

from sentinode.errors import RequestError
from sentinode.schema import PATCH_PX
from sentinode.serving.args import ServeArgs
from sentinode.serving.http_parts import declared_size, read_body, read_into
from sentinode.serving.predictor import Job
from sentinode.serving.quality import MPP_HEADER, QualityGate

SLIDE: Final = b"x-sentinode-slide"
"""Header: which slide the patches are of; a canary answers for whole slides."""
_SCALE: Final = MPP_HEADER.encode()
SHAPE: Final = b"x-sentinode-shape"
"""Header: the body is pixels, uint8 in C order of this shape, e.g. ``256,96,96,3``."""

_SHAPE: Final = re.compile(rf"([1-9][0-9]{{0,5}}), ?{PATCH_PX}, ?{PATCH_PX}, ?3".encode())
_BOUNDARY: Final = re.compile(rb'boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})"?')
_PART_HEADERS_BYTES: Final = 4096


async def read_job(
    headers: Mapping[bytes, bytes],
    receive: Receive,
    args: ServeArgs,
    gate: QualityGate,
    connection: Any = None,
) -> Job:
    """The job that a request asks for; ``connection`` as for ``read_into``.

    Raises RequestError 400, 411, 413, and ClientGoneError.
    """
    scale = headers.get(_SCALE)
    flags = gate.check_scale(scale.decode("latin-1")) if scale else ()
    shape = headers.get(SHAPE)
    if shape is not None:
        pixels_BHWC = pixels_of(shape, declared_size(headers, args.max_bulk_bytes), args.max_patches)
        await read_into(receive, pixels_BHWC, connection)
        return Job(pixels_BHWC=pixels_BHWC, flags=flags)
    kind = headers.get(b"content-type", b"")
    if kind.startswith(b"multipart/form-data"):
        images = parts_of(kind, await read_body(headers, receive, args.max_bulk_bytes), args.max_patches)
        large = max(map(len, images))
        if large > args.max_body_bytes:
            raise RequestError(
                f"an image of {large} bytes", f"at most {args.max_body_bytes} bytes", status=413
            )
        return Job(images, flags=flags)
    return Job((await read_body(headers, receive, args.max_body_bytes),), flags=flags)


def pixels_of(shape: bytes, size: int | None, max_patches: int) -> NDArray[np.uint8]:
    """Room for the pixels that a header promises, uint8 [B, 96, 96, 3]. Raises RequestError 400, 411, 413."""
    match = _SHAPE.fullmatch(shape)
    if match is None:
        raise RequestError(
            f"the shape is {shape[:64].decode('latin-1')!r}", f"{SHAPE.decode()}: B,{PATCH_PX},{PATCH_PX},3"
        )
    patches = int(match[1])
    if patches > max_patches:
        raise RequestError(f"{patches} patches", f"at most {max_patches} a request", status=413)
    wanted = patches * math.prod((PATCH_PX, PATCH_PX, 3))
    if size is None:
        # Memory is taken before the first byte comes: only for a client that says how many will.
        raise RequestError("the request has no content-length", f"content-length: {wanted}", status=411)
    if size != wanted:
        raise RequestError(f"the body has {size} bytes", f"{wanted} bytes for this shape")
    return np.empty((patches, PATCH_PX, PATCH_PX, 3), np.uint8)


def parts_of(content_type: bytes, body: bytes, max_parts: int) -> list[bytes]:
    """The contents of a form's parts (RFC 7578), in order; their names do not count.

    Raises RequestError 400 where it is no such form, 413 above ``max_parts``.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise RequestError("the form names no boundary", "multipart/form-data; boundary=...")
    marker = b"--" + found[1]
    if body.count(marker) > max_parts + 1:
        raise RequestError("too many images", f"at most {max_parts} a request", status=413)
    first, *rest = (b"\r\n" + body).split(b"\r\n" + marker)
    if first.strip() or len(rest) < 2 or not rest[-1].startswith(b"--"):
        raise RequestError(
            "the form has no part, or does not end", "multipart/form-data with an image a part"
        )
    return [_content(part) for part in rest[:-1]]


def _content(part: bytes) -> bytes:
    end = part.find(b"\r\n\r\n", 0, _PART_HEADERS_BYTES)
    if not part.startswith(b"\r\n") or end < 0:
        raise RequestError("a part of the form has no headers", "Content-Disposition: form-data; name=...")
    return part[end + 4 :]
