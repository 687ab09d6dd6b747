"""Micro-batching: requests that come within a few milliseconds of each other share one call of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer(Generic[Result]):
    """The result of one item and how it came about."""

    result: Result
    wait_s: float
    """From ``submit`` until its batch began."""
    batch_size: int


@dataclass(frozen=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    future: asyncio.Future[Answer[Result]]
    since_s: float


class MicroBatcher(Generic[Item, Result]):
    """Collects items of one event loop into batches and runs ``work`` on them in a thread, one batch at a
    time.

    A batch starts when ``max_batch`` items wait, or ``wait_s`` seconds after the first of them came; items
    that come while a batch runs form the next one, which starts at once. So an idle server adds at most
    ``wait_s`` and a busy one nothing. ``work`` takes the items and returns a result for each, in order; a
    result that is an exception is raised to its submitter alone, an exception raised by ``work`` to all.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result | Exception]], max_batch: int, wait_s: float
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sentinode-batch")

    async def submit(self, item: Item) -> Answer[Result]:
        """The answer for ``item``, when its batch is done. A caller that is cancelled gives up its place."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer[Result]] = loop.create_future()
        self._waiting.append(_Waiting(item, future, loop.time()))
        if not self._busy:
            if len(self._waiting) >= self._max_batch:
                self._start(loop)
            elif self._timer is None:
                self._timer = loop.call_later(self._wait_s, self._start, loop)
        return await future

    def close(self) -> None:
        """Let the running batch end and take no more."""
        self._thread.shutdown(wait=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[_Waiting[Item, Result]] = []
        while self._waiting and len(batch) < self._max_batch:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                batch.append(waiting)
        if not batch:
            return
        self._busy = True
        started_s = loop.time()
        running = loop.run_in_executor(self._thread, self._work, [waiting.item for waiting in batch])
        running.add_done_callback(lambda done: self._finish(loop, batch, started_s, done))

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting[Item, Result]],
        started_s: float,
        done: asyncio.Future[Sequence[Result | Exception]],
    ) -> None:
        self._busy = False
        failure = done.exception()
        results = [failure] * len(batch) if failure is not None else done.result()
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.done():
                continue
            if isinstance(result, BaseException):
                waiting.future.set_exception(result)
            else:
                answer = Answer(result, started_s - waiting.since_s, len(batch))
                waiting.future.set_result(answer)
        if self._waiting:
            self._start(loop)
