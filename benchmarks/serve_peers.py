"""Servers to compare with, each the plainest program of its kind: ``serve_peers.py bare|fastapi MODEL PORT PROCESSES``.

All decode one JPEG with simplejpeg and ask ONNX Runtime with one thread, as the endpoint does; none checks
anything else.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

import onnxruntime
import simplejpeg
import uvicorn
from fastapi import FastAPI, Request


def session(path: str) -> onnxruntime.InferenceSession:
    """One thread, no spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def probability(model: onnxruntime.InferenceSession, body: bytes) -> float:
    """Of one JPEG."""
    image = simplejpeg.decode_jpeg(body, colorspace="RGB")
    return 1 / (1 + math.exp(-float(model.run(None, {"images": image[None]})[0][0])))


def bare(path: str) -> Any:
    """An ASGI function."""
    model = session(path)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] != "POST":
            # Whoever waits for the server asks GET /healthz: an empty body is no image, and a 500 no answer.
            await send({"type": "http.response.start", "status": 405, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        text = json.dumps({"probability": probability(model, body)}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})

    return app


def fastapi(path: str) -> Any:
    """A FastAPI route."""
    model, app = session(path), FastAPI()

    @app.post("/")
    async def predict(request: Request) -> dict[str, float]:
        return {"probability": probability(model, await request.body())}

    return app


def build() -> Any:
    """For each of uvicorn's processes: what the environment names."""
    return {"bare": bare, "fastapi": fastapi}[os.environ["PEER"]](os.environ["MODEL"])


if __name__ == "__main__":
    os.environ.update(PEER=sys.argv[1], MODEL=sys.argv[2])
    uvicorn.run(
        "serve_peers:build",
        factory=True,
        port=int(sys.argv[3]),
        workers=int(sys.argv[4]),
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
