"""Many small Ray tasks whose outcomes are records in a store: few in flight, resumable."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Iterator
from typing import Any, Final

import ray

from sentinode.errors import SentinodeError
from sentinode.storage import Store

Progress = Callable[[str, int, int], None]
"""``progress(step, done, total)``, called by the driver."""

_TASKS_PER_CPU: Final = 2


def finished(store: Store, folder: str, names: Container[str]) -> list[str]:
    """The work records that are there already."""
    return [info.key for info in store.list(folder) if info.key in names]


def run_tasks(
    function: Callable[..., tuple[Any, Any]], calls: Iterator[tuple[str, tuple[Any, ...]]]
) -> Iterator[tuple[str, Any, ray.ObjectRef]]:
    """Run ``function`` as Ray tasks, few in flight at a time, as they finish.

    ``calls`` gives (name, arguments) and is drawn from as tasks finish. Yields the name, the first value that
    the function returned and a reference to the second, which stays in the object store. A failure cancels
    the rest.
    """
    task = ray.remote(num_returns=2)(function)
    limit = max(2, _TASKS_PER_CPU * int(ray.cluster_resources().get("CPU", 1)))
    flying: dict[ray.ObjectRef, tuple[str, ray.ObjectRef]] = {}
    try:
        while True:
            for name, arguments in itertools.islice(calls, limit - len(flying)):
                first, second = task.remote(*arguments)
                flying[first] = (name, second)
            if not flying:
                return
            for first in ray.wait(list(flying), num_returns=1)[0]:
                name, second = flying.pop(first)
                yield name, _result(first), second
    finally:
        for first in flying:
            ray.cancel(first)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SentinodeError):
            raise error.cause from None
        raise
