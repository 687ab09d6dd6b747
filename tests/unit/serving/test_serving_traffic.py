"""Which bundle answers: swaps in place under load, canaries that stick to slides, shadows, bundles that are no good."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving_parts import encode, make_card, make_parts, random_patches, sealed_registry

from sentinode.errors import BundleError, ConfigError
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.traffic import Traffic, is_canary

PATCH = encode(random_patches(1)[0], "PNG")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """URL, and the digests of two bundles."""
    folder = tmp_path_factory.mktemp("traffic")
    store, first, _ = sealed_registry(folder)
    return store.url, first, make_parts(folder / "second", seed=3).seal(store, make_card(name="second"))


def traffic(bundle: str, **more: Any) -> dict[str, Any]:
    return {"models": {"main": {"bundle": bundle, **more}}, "default": "main"}


def endpoint_of(url: str, user_config: dict[str, Any], **settings: Any) -> Endpoint:
    args = ServeArgs.model_validate({"registry": url, "traffic": user_config, **settings})
    return Endpoint(args, ApiKeys())


def client_of(endpoint: Endpoint) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(endpoint), base_url="http://test", timeout=60)


async def bundle_of(client: httpx.AsyncClient, **headers: str) -> str:
    reply = await client.post("/v1/predict", content=PATCH, headers=headers)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["bundle"])


def test_swap_under_load_loses_no_request(registry: tuple[str, str, str]) -> None:
    url, first, second = registry

    async def run() -> list[str]:
        endpoint = endpoint_of(url, traffic(first))
        await endpoint.reconfigure(traffic(first))
        answered: list[str] = []
        is_over = False

        async def ask(client: httpx.AsyncClient) -> None:
            while not is_over:
                answered.append(await bundle_of(client))

        async with client_of(endpoint) as client:
            askers = [asyncio.create_task(ask(client)) for _ in range(8)]
            while len(answered) < 50:
                await asyncio.sleep(0.01)
            await endpoint.reconfigure(traffic(second))
            swapped_at = len(answered)
            while len(answered) < swapped_at + 50:
                await asyncio.sleep(0.01)
            is_over = True
            await asyncio.gather(*askers)
            assert await bundle_of(client) == second
        endpoint.close()
        return answered

    answered = asyncio.run(run())
    assert set(answered) == {first, second}
    assert set(answered[-8:]) == {second}


@pytest.mark.parametrize("wrong", ["damaged", "unknown", "nonsense"])
def test_configuration_that_cannot_be_served_leaves_the_old(
    registry: tuple[str, str, str], tmp_path: Path, wrong: str
) -> None:
    _, first, _ = registry
    store, first, _ = sealed_registry(tmp_path)
    bad = make_parts(tmp_path / "bad", seed=5).seal(store, make_card(name="bad"))
    model = Path(store.url) / "bundles" / bad / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    config = {"damaged": traffic(bad), "unknown": traffic("e" * 64), "nonsense": {"models": {}}}[wrong]

    async def run() -> None:
        endpoint = endpoint_of(store.url, traffic(first))
        await endpoint.reconfigure(traffic(first))
        async with client_of(endpoint) as client:
            await endpoint.reconfigure(config)
            assert await bundle_of(client) == first
            told = (await client.get("/v1/models")).json()
            assert told["serving"]["models"]["main"]["bundle"] == first
            assert told["failure"]
            await endpoint.reconfigure(traffic(first))
            assert (await client.get("/v1/models")).json()["failure"] == ""
        endpoint.close()
        with pytest.raises((BundleError, ConfigError)):
            await endpoint_of(store.url, traffic(first)).reconfigure(config)

    asyncio.run(run())


def test_canary_answers_for_its_share_and_sticks_to_slides(registry: tuple[str, str, str]) -> None:
    url, first, second = registry
    config = traffic(first, canary={"bundle": second, "share": 0.5})

    async def run() -> None:
        endpoint = endpoint_of(url, config)
        await endpoint.reconfigure(config)
        async with client_of(endpoint) as client:
            for slide in ("a", "b", "c", "d", "e"):
                header = {"X-Sentinode-Slide": slide}
                expected = second if is_canary(0.5, slide.encode()) else first
                assert {await bundle_of(client, **header) for _ in range(3)} == {expected}
            assert {await bundle_of(client) for _ in range(60)} == {first, second}
        endpoint.close()

    asyncio.run(run())
    drawn = np.mean([is_canary(0.2, b"slide-%d" % n) for n in range(5000)])
    assert drawn == pytest.approx(0.2, abs=0.03)


def test_explanation_is_of_the_bundle_that_answered(registry: tuple[str, str, str]) -> None:
    url, first, second = registry

    async def explained(config: dict[str, Any], model: str) -> httpx.Response:
        endpoint = endpoint_of(url, config)
        await endpoint.reconfigure(config)
        async with client_of(endpoint) as client:
            return await client.post("/v1/explain", params={"model": model}, content=PATCH)

    async def run() -> None:
        config = traffic(first, canary={"bundle": second, "share": 0.5})
        stable, canary = await explained(config, first), await explained(config, second)
        alone = await explained(traffic(second), second)
        assert canary.content == alone.content != stable.content
        shadowed = await explained(traffic(first, shadow=second), second)
        assert shadowed.status_code == 404, "what a shadow says is never returned"

    asyncio.run(run())


def test_shadow_is_asked_compared_and_never_returned(registry: tuple[str, str, str]) -> None:
    url, first, second = registry
    config = traffic(first, shadow=second)

    async def run() -> str:
        endpoint = endpoint_of(url, config)
        await endpoint.reconfigure(config)
        async with client_of(endpoint) as client:
            assert {await bundle_of(client) for _ in range(5)} == {first}
            line = f'sentinode_shadow_difference_count{{bundle="{second}"}} 5.0'
            for _ in range(500):
                text = (await client.get("/metrics")).text
                if line in text:
                    break
                await asyncio.sleep(0.01)
        endpoint.close()
        assert line in text
        return text

    assert "sentinode_shadow_patches_total" in asyncio.run(run())


def test_models_are_asked_by_name_or_digest(registry: tuple[str, str, str]) -> None:
    url, first, second = registry
    config = {"models": {"old": {"bundle": first}, "new": {"bundle": second}}, "default": "old"}

    async def run() -> None:
        endpoint = endpoint_of(url, config)
        await endpoint.reconfigure(config)
        async with client_of(endpoint) as client:
            for reference, bundle in (("old", first), ("new", second), (second, second)):
                reply = await client.post("/v1/predict", params={"model": reference}, content=PATCH)
                assert reply.json()["bundle"] == bundle
            for query, status in (("model=none", 404), ("modell=old", 400), ("model=old&model=new", 400)):
                assert (await client.post(f"/v1/predict?{query}", content=PATCH)).status_code == status
        endpoint.close()

    asyncio.run(run())


def test_several_images_and_raw_pixels_are_answered_in_order(registry: tuple[str, str, str]) -> None:
    url, first, _ = registry
    images = random_patches(5, seed=8)

    async def run() -> None:
        endpoint = endpoint_of(url, traffic(first), max_patches=6)
        await endpoint.reconfigure(traffic(first))
        async with client_of(endpoint) as client:
            alone = [
                (await client.post("/v1/predict", content=encode(image, "PNG"))).json()["probability"]
                for image in images
            ]
            form = [("image", (f"{n}.png", encode(image, "PNG"))) for n, image in enumerate(images)]
            raw = {"X-Sentinode-Shape": "5,96,96,3"}
            many = await client.post("/v1/predict", files=form)
            pixels = await client.post("/v1/predict", content=images.tobytes(), headers=raw)
            for reply in (many, pixels):
                given = [patch["probability"] for patch in reply.json()["predictions"]]
                np.testing.assert_allclose(given, alone, atol=1e-6)
            short = await client.post("/v1/predict", content=bytes(100), headers=raw)
            much = await client.post("/v1/predict", content=b"", headers={"X-Sentinode-Shape": "7,96,96,3"})
            odd = await client.post("/v1/predict", content=b"", headers={"X-Sentinode-Shape": "5,95,96,3"})
            bad = await client.post("/v1/predict", files=[*form, ("image", ("x", b"GIF89a"))])
            assert [reply.status_code for reply in (short, much, odd, bad)] == [400, 413, 400, 415]
            assert "image 6 of 6" in bad.json()["reason"]
        endpoint.close()

    asyncio.run(run())


def test_faults_of_a_user_config_are_named() -> None:
    with pytest.raises(ConfigError, match="latest"):
        Traffic.parse(traffic("latest"))
    with pytest.raises(ConfigError, match="share"):
        Traffic.parse(traffic("c" * 64, canary={"bundle": "d" * 64, "share": 1.5}))
    with pytest.raises(ConfigError, match="default"):
        Traffic.parse({"models": {"a": {"bundle": "c" * 64}}, "default": "b"})
