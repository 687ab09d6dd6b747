"""Refusals in the protocol's words, ``{"error": "..."}``: of its own handlers and of all that stands before them."""

from __future__ import annotations

import json
from typing import Final

from pydantic import ValidationError
from starlette.types import Message, Send

from sentinode.config import Frozen
from sentinode.serving.protocol import Refusal

_REFUSED: Final = 400


class OipError(Frozen):
    """The reply of the protocol to a request that is not answered."""

    error: str
    """What was found, what was expected, what to do."""


def sentence(body: bytes) -> str:
    """A Refusal's JSON in one line; other bodies as they are."""
    try:
        refusal = Refusal.model_validate_json(body)
    except ValidationError:
        return body[:1000].decode("utf-8", "replace")
    parts = [refusal.reason]
    if refusal.expected:
        parts.append(f"expected: {refusal.expected}")
    if refusal.remedy:
        parts.append(f"what to do: {refusal.remedy}")
    return "; ".join(parts)


def speaking_oip(send: Send) -> Send:
    """``send``, with the body of every refusal put into the protocol's words."""
    held: Message | None = None
    body = bytearray()

    async def translated(message: Message) -> None:
        nonlocal held
        if message["type"] == "http.response.start" and message["status"] >= _REFUSED:
            held = message
            return
        if held is None:
            await send(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body", False):
            return
        text = json.dumps({"error": sentence(bytes(body))}).encode()
        kept = [(k, v) for k, v in held["headers"] if k.lower() not in (b"content-length", b"content-type")]
        length = (b"content-length", b"%d" % len(text))
        await send({**held, "headers": [*kept, (b"content-type", b"application/json"), length]})
        await send({"type": "http.response.body", "body": text})
        held = None

    return translated
