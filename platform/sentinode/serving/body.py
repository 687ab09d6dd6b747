"""The body of a request, up to a limit: what is larger is refused before it is held."""

from __future__ import annotations

from starlette.requests import Request

from sentinode.errors import RequestError


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """All of the body. Raises RequestError 413 where it is, or says that it is, larger than ``limit_bytes``."""
    declared = request.headers.get("content-length", "")
    too_large = RequestError(
        f"the request body is larger than {limit_bytes} bytes", "one 96x96 image", status=413
    )
    if declared.isdecimal() and int(declared[:20]) > limit_bytes:
        raise too_large
    chunks = bytearray()
    async for chunk in request.stream():
        if len(chunks) + len(chunk) > limit_bytes:
            raise too_large
        chunks += chunk
    return bytes(chunks)
