"""The micro-batcher keeps order, fills batches, and lets one failure hit its own submitter only."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from sentinode.serving.batching import Answer, MicroBatcher


def doubled(items: Sequence[int]) -> list[int | Exception]:
    return [ValueError(f"no {item}") if item < 0 else 2 * item for item in items]


async def submit_all(
    batcher: MicroBatcher[int, int], items: Sequence[int]
) -> list[Answer[int] | BaseException]:
    return await asyncio.gather(*(batcher.submit(item) for item in items), return_exceptions=True)


def test_items_submitted_together_share_batches_of_bounded_size() -> None:
    async def run() -> list[Answer[int] | BaseException]:
        batcher = MicroBatcher(doubled, max_batch=8, wait_s=0.01)
        return await submit_all(batcher, range(20))

    answers = asyncio.run(run())
    assert [a.result for a in answers if isinstance(a, Answer)] == [2 * i for i in range(20)]
    assert [a.batch_size for a in answers if isinstance(a, Answer)] == [8] * 16 + [4] * 4


def test_lonely_item_waits_no_longer_than_asked() -> None:
    async def run() -> tuple[float, Answer[int]]:
        batcher = MicroBatcher(doubled, max_batch=64, wait_s=0.02)
        started_s = time.perf_counter()
        answer = await batcher.submit(1)
        return time.perf_counter() - started_s, answer

    took_s, answer = asyncio.run(run())
    assert answer.batch_size == 1
    assert 0.015 <= answer.wait_s <= took_s < 1.0


def test_items_that_come_while_a_batch_runs_form_the_next_one() -> None:
    release = threading.Event()
    sizes: list[int] = []

    def slow(items: Sequence[int]) -> list[int | Exception]:
        sizes.append(len(items))
        release.wait(5)
        return list(items)

    async def run() -> None:
        batcher = MicroBatcher(slow, max_batch=64, wait_s=0.0)
        first = asyncio.ensure_future(batcher.submit(0))
        while not sizes:
            await asyncio.sleep(0.001)
        rest = asyncio.create_task(submit_all(batcher, range(1, 11)))
        await asyncio.sleep(0.02)
        assert sizes == [1]
        release.set()
        await asyncio.gather(first, rest)

    asyncio.run(run())
    assert sizes == [1, 10]


def test_failure_of_one_item_is_its_own() -> None:
    async def run() -> list[Answer[int] | BaseException]:
        return await submit_all(MicroBatcher(doubled, max_batch=4, wait_s=0.001), [1, -1, 3])

    first, second, third = asyncio.run(run())
    assert isinstance(first, Answer)
    assert isinstance(third, Answer)
    assert (first.result, third.result) == (2, 6)
    assert isinstance(second, ValueError)


def test_failure_of_the_work_reaches_all_and_the_next_batch_runs() -> None:
    calls = 0

    def fails_once(items: Sequence[int]) -> list[int | Exception]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("out of memory")
        return list(items)

    async def run() -> None:
        batcher = MicroBatcher(fails_once, max_batch=4, wait_s=0.001)
        assert all(isinstance(a, RuntimeError) for a in await submit_all(batcher, [1, 2]))
        assert (await batcher.submit(7)).result == 7

    asyncio.run(run())


class Recorder:
    """Work that keeps what it was given."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.seen.extend(items)
        return list(items)


def test_caller_that_gave_up_takes_no_place_in_a_batch() -> None:
    record = Recorder()

    async def run() -> None:
        batcher = MicroBatcher(record, max_batch=64, wait_s=0.02)
        leaver = asyncio.ensure_future(batcher.submit(1))
        stayer = asyncio.ensure_future(batcher.submit(2))
        await asyncio.sleep(0)
        leaver.cancel()
        assert (await stayer).result == 2
        with pytest.raises(asyncio.CancelledError):
            await leaver

    asyncio.run(run())
    assert record.seen == [2]


def test_whose_client_is_gone_is_not_computed() -> None:
    record = Recorder()

    async def run() -> None:
        batcher = MicroBatcher(record, max_batch=64, wait_s=0.02)
        gone = batcher.submit(1, is_gone=lambda: True)
        there = batcher.submit(2, is_gone=lambda: False)
        assert (await there).result == 2
        with pytest.raises(asyncio.CancelledError):
            await gone

    asyncio.run(run())
    assert record.seen == [2]
