"""Twenty thousand hostile requests against the real application: never a 5xx, a hang or growth of memory."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from fuzz_parts import INFER, Attack, Attacker
from serving_parts import make_parts, random_patches
from starlette.types import ASGIApp

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.stain import StainStatistics
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import create_app
from sentinode.serving.auth import ApiKeys
from sentinode.serving.engine import Engine
from sentinode.serving.keys import KeyRecord, RateLimits, Scope, make_key
from sentinode.serving.oip.grpc_app import call
from sentinode.storage import open_store

REQUESTS = 20_000
MESSAGES = 2_000
AT_ONCE = 32
ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAUTHENTICATED,
}
HANG_S = 60.0
GROWTH_MIB = 64.0
"""After a tenth of the attacks; the allocator's own ups and downs are about 20."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("fuzz")
    store, parts = open_store(str(folder / "registry")), make_parts(folder / "parts")
    card = parts.card.model_copy(update={"stain": StainStatistics.of(random_patches(200, seed=5))})
    return Engine(open_bundle(store, parts.seal(store, card), folder / "cache"))


def app_of(engine: Engine, records: list[KeyRecord], folder: Path) -> ASGIApp:
    args = ServeArgs.parse(
        {
            "registry": "unused",
            "bundle": engine.bundle.digest,
            "trust": {"audit_log": folder / "audit.jsonl", "body_timeout_s": 5, "explanations_waiting": 1000},
        }
    )
    return create_app(engine, args, ApiKeys(records=records))


async def ask(app: ASGIApp, attack: Attack) -> int:
    """The status; raises where the application breaks ASGI's rules or does not end."""
    size = max(1, len(attack.body) // attack.chunks)
    parts = [attack.body[i : i + size] for i in range(0, len(attack.body), size)] or [b""]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if parts:
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": attack.method, "scheme": "http",
        "path": attack.path, "raw_path": attack.path.encode(), "root_path": "", "query_string": attack.query,
        "headers": attack.headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "state": {},
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), HANG_S)
    assert sent[0]["type"] == "http.response.start"
    assert sent[-1]["type"] == "http.response.body"
    assert not sent[-1].get("more_body", False)
    return int(sent[0]["status"])


async def bombard(
    app: ASGIApp, attacker: Attacker, first: int, count: int, statuses: Counter[int], inferred: Counter[int]
) -> None:
    """``count`` attacks, ``AT_ONCE`` under way; fails with the first that is answered 5xx or breaks the server."""
    numbers = iter(range(first, first + count))

    async def one_after_another() -> None:
        for number in numbers:
            attack = attacker.attack(number)
            try:
                status = await ask(app, attack)
            except Exception as error:
                raise AssertionError(f"attack {number} broke the server: {described(attack)}") from error
            assert status < 500 or status == 503, f"attack {number} got {status}: {described(attack)}"
            statuses[status] += 1
            if attack.path == INFER:
                inferred[status] += 1

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))


def described(attack: Attack) -> str:
    return f"{attack.method!r} {attack.path[:80]!r} {attack.query!r} {attack.headers} {attack.body[:200]!r}"


def memory_mib() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


@pytest.mark.parametrize("locked", [False, True])
def test_hostile_requests_are_refused_and_nothing_else(engine: Engine, tmp_path: Path, locked: bool) -> None:
    key, record = make_key("fuzz", tuple(Scope), RateLimits(requests_per_s=1e6, burst=10**6))
    app = app_of(engine, [record] if locked else [], tmp_path)
    attacker = Attacker(random_patches(1)[0], seed=7 + locked, key=key if locked else "")
    statuses: Counter[int] = Counter()
    inferred: Counter[int] = Counter()
    half = REQUESTS // 2

    async def both() -> float:
        await bombard(app, attacker, 0, half // 10, statuses, inferred)
        before = memory_mib()
        await bombard(app, attacker, half // 10, half - half // 10, statuses, inferred)
        return memory_mib() - before

    started_s = time.monotonic()
    growth_mib = asyncio.run(both())
    print(f"{half} attacks in {time.monotonic() - started_s:.0f} s, {growth_mib:+.0f} MiB: {dict(statuses)}")
    assert sum(statuses.values()) == half
    assert statuses[200] > half / 100, "some must get as far as the model"
    assert {400, 404, 405, 415, 422} <= set(statuses)
    assert inferred[200] > half / 200, "so must some of the Open Inference Protocol"
    assert inferred[400] > half / 50
    assert growth_mib < GROWTH_MIB


@pytest.mark.parametrize("locked", [False, True])
def test_hostile_grpc_messages_are_refused_and_nothing_else(
    engine: Engine, tmp_path: Path, locked: bool
) -> None:
    key, record = make_key("fuzz", tuple(Scope), RateLimits(requests_per_s=1e6, burst=10**6))
    app = app_of(engine, [record] if locked else [], tmp_path)
    attacker = Attacker(random_patches(1)[0], seed=11 + locked, key=key if locked else "")
    codes: Counter[grpc.StatusCode] = Counter()

    async def bombarded() -> None:
        for number in range(MESSAGES):
            method, headers, body = attacker.message(number)
            metadata = [(name.decode("latin-1"), value) for name, value in headers]
            reply = await asyncio.wait_for(call(app, method, metadata, body), HANG_S)
            assert reply.code in ALLOWED, f"message {number} got {reply}: {method} {metadata} {body[:200]!r}"
            codes[reply.code] += 1

    asyncio.run(bombarded())
    print(f"{MESSAGES} messages: {dict(codes)}")
    assert codes[grpc.StatusCode.OK] > MESSAGES / 20, "some must get as far as the model"
    assert codes[grpc.StatusCode.INVALID_ARGUMENT] > MESSAGES / 4
    assert (codes[grpc.StatusCode.UNAUTHENTICATED] > 0) == locked
