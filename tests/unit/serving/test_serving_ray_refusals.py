"""Ray Serve's bare text in the endpoint's words, and nothing else touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from sentinode.serving.oip.errors import OipError
from sentinode.serving.protocol import Refusal
from sentinode.serving.ray_refusals import middlewares


async def reply(request: Request) -> Response:
    status = int(request.path_params["status"])
    headers = {"retry-after": "7", "x-request-id": "mine"} if "hint" in request.query_params else {}
    kind = JSONResponse if "json" in request.query_params else PlainTextResponse
    return kind("Request dropped due to backpressure", status, headers)


PATHS = ("/v1/{status}", "/app/v2/models/{status}", "/-/{status}")
CLIENT = TestClient(Starlette(routes=[Route(path, reply) for path in PATHS], middleware=middlewares()))


def test_text_becomes_a_refusal_and_its_headers_stay() -> None:
    response = CLIENT.get("/v1/503?hint")
    assert (response.status_code, response.headers["content-type"]) == (503, "application/json")
    assert (response.headers["retry-after"], response.headers["x-request-id"]) == ("7", "mine")
    refusal = Refusal.model_validate_json(response.content)
    assert (refusal.status, refusal.remedy) == (503, "ask again after Retry-After")


def test_full_queue_always_says_when_to_come_back() -> None:
    assert CLIENT.get("/v1/503").headers["retry-after"] == "1"
    assert "retry-after" not in CLIENT.get("/v1/408").headers
    assert Refusal.model_validate_json(CLIENT.get("/v1/408").content).status == 408


def test_open_inference_protocol_has_words_of_its_own() -> None:
    response = CLIENT.get("/app/v2/models/503?hint")
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert "fewer requests at once" in OipError.model_validate_json(response.content).error


def test_all_else_passes() -> None:
    for path in ("/v1/200", "/v1/404", "/-/503", "/v1/503?json"):
        assert "backpressure" in CLIENT.get(path).text, path


def test_proxies_need_nothing_else_of_ours(repository: Path) -> None:
    code = (
        "import sys, sentinode.serving.ray_refusals\n"
        "print(*(name for name in sys.modules if name.startswith('sentinode')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository / "platform")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["sentinode", "sentinode.serving", "sentinode.serving.ray_refusals"]
