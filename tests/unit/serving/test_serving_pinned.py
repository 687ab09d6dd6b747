"""A bundle that is asked by its digest answers itself: beside a canary, and when it is swapped while it is asked."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_parts import encode, make_parts, random_patches, sealed_registry, started_endpoint

from sentinode.serving.asgi import Endpoint

PATCH = encode(random_patches(1)[0], "PNG")
_ELEMENT = {
    "name": "encoded_images",
    "datatype": "BYTES",
    "shape": [1],
    "data": [base64.b64encode(PATCH).decode()],
}
INFER = json.dumps({"inputs": [_ELEMENT]}).encode()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Endpoint, str, str]:
    """An endpoint, and the digests of two bundles."""
    folder: Path = tmp_path_factory.mktemp("pinned")
    store, first, _ = sealed_registry(folder)
    second = make_parts(folder / "second", seed=3).seal(store)
    return started_endpoint(store, first), first, second


def serving(bundle: str, **more: Any) -> dict[str, Any]:
    return {"default": "main", "models": {"main": {"bundle": bundle, **more}}}


def client_of(endpoint: Endpoint) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://test", timeout=60)


def answered_by(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    body = reply.json()
    return str(body.get("bundle") or body["model_version"])


@pytest.mark.parametrize("share", [0.0001, 1.0])
def test_who_is_asked_by_digest_answers_whatever_the_share(
    parts: tuple[Endpoint, str, str], share: float
) -> None:
    endpoint, first, second = parts

    async def run() -> None:
        await endpoint.reconfigure(serving(first, canary={"bundle": second, "share": share}))
        async with client_of(endpoint) as client:
            for digest, other in ((first, second), (second, first)):
                assert answered_by(await client.post(f"/v1/predict?model={digest}", content=PATCH)) == digest
                assert answered_by(await client.post(f"/v2/models/{digest}/infer", content=INFER)) == digest
                named = await client.post(f"/v2/models/main/versions/{digest}/infer", content=INFER)
                assert answered_by(named) == digest
                about = (await client.get(f"/v2/models/{digest}")).json()
                assert (about["name"], about["versions"]) == ("main", [digest])
                odd = await client.post(f"/v2/models/{digest}/versions/{other}/infer", content=INFER)
                assert odd.status_code == 404
                explained = await client.post(f"/v1/explain?model={digest}", content=PATCH)
                assert explained.status_code == 200
            by_name = answered_by(await client.post("/v1/predict?model=main", content=PATCH))
            assert by_name == (second if share == 1.0 else first)

    asyncio.run(run())


@pytest.mark.parametrize(
    "path", ["/v1/predict?model={}", "/v2/models/{}/infer", "/v2/models/main/versions/{}/infer"]
)
def test_a_swap_while_the_body_comes_loses_nothing(parts: tuple[Endpoint, str, str], path: str) -> None:
    endpoint, first, second = parts
    body = PATCH if path.startswith("/v1") else INFER

    async def run() -> None:
        await endpoint.reconfigure(serving(first))

        async def slowly() -> AsyncIterator[bytes]:
            yield body[:10]
            await endpoint.reconfigure(serving(second))
            yield body[10:]

        async with client_of(endpoint) as client:
            reply = await client.post(path.format(first), content=slowly())
            assert answered_by(reply) == first
            assert answered_by(await client.post("/v1/predict", content=PATCH)) == second

    asyncio.run(run())
