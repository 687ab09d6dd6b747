"""What is told of the versions that are loaded, while they come and go."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving_parts import encode, make_card, random_patches, sealed_registry

from sentinode.bundle.scores import ScoreReference
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.quality import Flag, Quality

PATCH = encode(random_patches(1)[0], "JPEG")
BLANK = encode(np.full((96, 96, 3), 240, np.uint8), "PNG")
INFO, ABSTAINED = "sentinode_bundle_info", "sentinode_drift_abstention_rate"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str]:
    """URL, and two digests; the card of the first knows its scores, and so any prevalence."""
    folder = tmp_path_factory.mktemp("loaded")
    store, second, parts = sealed_registry(folder)
    scores = ScoreReference.of(np.linspace(0, 1, 100), np.arange(100) % 2)
    return store.url, parts.seal(store, make_card(name="first", scores=scores)), second


def traffic(**models: dict[str, Any]) -> dict[str, Any]:
    return {"models": models, "default": next(iter(models))}


async def ask(endpoint: Endpoint, body: bytes, headers: dict[str, str] | None = None, **query: str) -> None:
    transport = httpx.ASGITransport(endpoint)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reply = await client.post("/v1/predict", content=body, params=query, headers=headers)
        assert reply.status_code == 200, reply.text


def told(endpoint: Endpoint, name: str) -> dict[tuple[str, ...], float]:
    """The series of one gauge: values by its labels but the replica."""
    families = text_string_to_metric_families(endpoint.metrics.text().decode())
    samples = next(family.samples for family in families if family.name == name)
    return {
        tuple(text for label, text in sorted(one.labels.items()) if label != "replica"): one.value
        for one in samples
        if not one.name.endswith("_created")
    }


def started(registry: tuple[str, str, str]) -> Endpoint:
    endpoint = Endpoint(ServeArgs.model_validate({"registry": registry[0], "bundle": registry[1]}), ApiKeys())
    assert told(endpoint, INFO) == {}
    asyncio.run(endpoint.reconfigure(traffic(m={"bundle": registry[1]})))
    return endpoint


@pytest.mark.parametrize(
    "more", [{"operating_point": "sensitive"}, {"prevalence": 0.02}, {"operating_point": "balanced"}]
)
def test_bundle_that_stays_is_told_whatever_else_changes(
    registry: tuple[str, str, str], more: dict[str, Any]
) -> None:
    endpoint, first = started(registry), registry[1]
    assert told(endpoint, INFO) == {(first, "first", "balanced"): 1}

    async def run() -> None:
        await endpoint.reconfigure(traffic(m={"bundle": first, **more}))
        await ask(endpoint, BLANK)

    asyncio.run(run())
    assert told(endpoint, INFO) == {(first, "first", more.get("operating_point", "balanced")): 1}
    assert told(endpoint, ABSTAINED) == {(first, "m"): 1.0}


def test_what_is_refused_leaves_no_trace(registry: tuple[str, str, str]) -> None:
    endpoint, (_, first, second) = started(registry), registry
    refused = [
        {"m": {"bundle": first, "operating_point": "unknown"}},
        {"m": {"bundle": first}, "n": {"bundle": second, "prevalence": 0.1}},
        {"m": {"bundle": second}, "n": {"bundle": "f" * 64}},
    ]

    async def run() -> None:
        for models in refused:
            await endpoint.reconfigure(traffic(**models))
            assert endpoint.fleet.failure
        await ask(endpoint, BLANK)

    asyncio.run(run())
    assert told(endpoint, INFO) == {(first, "first", "balanced"): 1}
    assert told(endpoint, ABSTAINED) == {(first, "m"): 1.0}


def test_models_that_share_a_bundle_are_told_apart(registry: tuple[str, str, str]) -> None:
    endpoint, (_, first, second) = started(registry), registry
    both = {"m": {"bundle": first}, "n": {"bundle": first, "operating_point": "sensitive", "shadow": second}}

    async def run() -> None:
        await endpoint.reconfigure(traffic(**both))
        await ask(endpoint, BLANK)
        await ask(endpoint, PATCH, model="n")
        await asyncio.gather(*endpoint._predict._shadows)

    asyncio.run(run())
    assert set(told(endpoint, INFO)) == {
        (first, "first", "balanced"),
        (first, "first", "sensitive"),
        (second, "tiny", "sensitive"),
    }
    assert told(endpoint, ABSTAINED) == {(first, "m"): 1.0, (first, "n"): 0.0, (second, "n"): 0.0}
    asyncio.run(endpoint.reconfigure(traffic(m=both["m"])))
    assert told(endpoint, ABSTAINED) == {(first, "m"): 1.0}


def test_shadow_is_compared_where_something_was_said(registry: tuple[str, str, str]) -> None:
    endpoint, (_, first, second) = started(registry), registry
    pixels = np.stack([*random_patches(2), np.full((96, 96, 3), 240, np.uint8)])

    def unfamiliar(quality: Quality) -> Quality:
        quality.add((Flag.UNFAMILIAR_STAIN,), first=1, count=1)
        return quality

    async def run() -> None:
        await endpoint.reconfigure(traffic(m={"bundle": first, "shadow": second}))
        shadow = endpoint.fleet.catalogue.default.shadow
        assert shadow is not None
        predictor = shadow.batcher._work.__self__  # type: ignore[attr-defined]
        check = predictor._check
        predictor._check = lambda images_BHWC: unfamiliar(check(images_BHWC))
        for scale in ("1.0", "0.25"):
            headers = {"x-sentinode-shape": "3,96,96,3", "x-mpp-um-px": scale}
            await ask(endpoint, pixels.tobytes(), headers)
        await asyncio.gather(*endpoint._predict._shadows)

    asyncio.run(run())
    counts = told(endpoint, "sentinode_shadow_patches")
    assert counts[second, "agreed"] + counts[second, "disagreed"] == 2
    assert counts[second, "disagreed"] >= 1, "it had no verdict where there was one"
    text = endpoint.metrics.text().decode()
    assert f'sentinode_shadow_difference_count{{bundle="{second}"}} 1.0' in text
    assert f'sentinode_score_count{{bundle="{first}"}} 2.0' in text
