"""Micro-batching: requests that come within a few milliseconds of each other share one call of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sentinode.errors import BusyError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Answer(Generic[Result]):
    """The result of one item and how it came about."""

    result: Result
    wait_s: float
    """From ``submit`` until its batch began."""
    batch_size: int


@dataclass(slots=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    size: int
    future: asyncio.Future[Answer[Result]]
    since_s: float
    is_gone: Callable[[], bool] | None


class MicroBatcher(Generic[Item, Result]):
    """Collects items of one event loop into batches and runs ``work`` on them in a thread, one batch at a
    time.

    A batch starts when ``max_batch`` patches wait, or ``wait_s`` seconds after the first of them came; items
    that come while a batch runs form the next one, which starts at once. So an idle server adds at most
    ``wait_s`` and a busy one nothing. ``work`` takes the items and returns a result for each, in order; a
    result that is an exception is raised to its submitter alone, an exception raised by ``work`` to all. With
    ``conclude``, ``work`` may return anything and ``conclude`` makes the results of it, in the event loop: what holds
    the interpreter lock belongs there, for two threads that hand it to and fro take longer than one.

    An item may hold many patches (``size`` of ``submit``); one that exceeds ``max_batch`` runs alone. More than
    ``max_waiting`` patches in the queue are refused with BusyError, at once. Batchers that share an ``executor``
    leave it open when they are closed.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Any],
        max_batch: int,
        wait_s: float,
        max_waiting: int = 1 << 30,
        executor: Executor | None = None,
        conclude: Callable[[Any], Sequence[Result | Exception]] | None = None,
    ) -> None:
        self._work = work
        self._conclude = conclude
        self._max_batch = max_batch
        self._wait_s = wait_s
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._waiting_size = 0
        self._busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._own = None if executor else ThreadPoolExecutor(1, thread_name_prefix="sentinode-batch")
        self._executor = executor or self._own

    @property
    def waiting(self) -> int:
        """Patches in the queue."""
        return self._waiting_size

    def check_room(self, size: int = 1) -> None:
        """Raises BusyError where the queue is too full for an item of ``size`` patches."""
        if self._waiting_size + size > self._max_waiting and self._waiting:
            raise BusyError(
                f"{self._waiting_size} patches wait already", "a shorter queue", "ask again later"
            )

    def submit(
        self, item: Item, size: int = 1, is_gone: Callable[[], bool] | None = None
    ) -> asyncio.Future[Answer[Result]]:
        """The answer for ``item``, when its batch is done. Raises BusyError where the queue is full.

        A caller that is cancelled gives up its place; so does one of whom ``is_gone``, asked before its batch, says so.
        """
        self.check_room(size)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer[Result]] = loop.create_future()
        self._waiting.append(_Waiting(item, size, future, loop.time(), is_gone))
        self._waiting_size += size
        if not self._busy:
            if self._waiting_size >= self._max_batch:
                self._start(loop)
            elif self._timer is None:
                self._timer = loop.call_later(self._wait_s, self._start, loop)
        return future

    def close(self) -> None:
        """Let the running batch end and take no more."""
        if self._own is not None:
            self._own.shutdown(wait=True)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = self._next_batch()
        if not batch:
            return
        self._busy = True
        started_s = loop.time()
        running = loop.run_in_executor(self._executor, self._work, [waiting.item for waiting in batch])
        running.add_done_callback(lambda done: self._finish(loop, batch, started_s, done))

    def _next_batch(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        size = 0
        while self._waiting and (not batch or size + self._waiting[0].size <= self._max_batch):
            waiting = self._waiting.popleft()
            self._waiting_size -= waiting.size
            # Whoever gave up, or whose deadline has passed, is not computed.
            if waiting.is_gone is not None and waiting.is_gone():
                waiting.future.cancel()
            if not waiting.future.done():
                batch.append(waiting)
                size += waiting.size
        return batch

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting[Item, Result]],
        started_s: float,
        done: asyncio.Future[Any],
    ) -> None:
        self._busy = False
        if self._waiting:
            # Before the answers go out: the thread works while the loop does.
            self._start(loop)
        results = self._results(len(batch), done)
        size = sum(waiting.size for waiting in batch)
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.done():
                continue
            if isinstance(result, BaseException):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(Answer(result, started_s - waiting.since_s, size))

    def _results(self, count: int, done: asyncio.Future[Any]) -> Sequence[Result | BaseException]:
        try:
            made = done.result()
            results: Sequence[Result | BaseException] = self._conclude(made) if self._conclude else made
        except BaseException as failure:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            return [failure] * count
        return results
