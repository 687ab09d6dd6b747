"""The actors that score slides, and who may use which."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.distributed.slide_worker import SlideWorker
from sentinode.errors import ConfigError, SentinodeError

log = logging.getLogger(__name__)


class Pool:
    """Actors, each as often as it may work on a slide at the same time."""

    def __init__(self, actors: Sequence[Any], slides_per_actor: int) -> None:
        self.slots = len(actors) * slides_per_actor
        self._actors = actors
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for actor in [*actors] * slides_per_actor:
            self._free.put(actor)

    @contextmanager
    def some(self, most: int) -> Iterator[list[Any]]:
        """One actor, awaited, and further free ones up to ``most``."""
        taken = [self._free.get()]
        try:
            while len(taken) < most:
                taken.append(self._free.get_nowait())
        except queue.Empty:
            pass
        try:
            yield taken
        finally:
            for actor in taken:
                self._free.put(actor)

    def kill(self) -> None:
        """End all, and with them the calls that wait."""
        for actor in self._actors:
            ray.kill(actor)


@contextmanager
def started(
    registry: str, digest: str, settings: ScoringSettings, out: str, compute: Compute, slides: int
) -> Iterator[Pool]:
    """The actors, started and ready. Raises what their start raised: a bundle that does not work here."""
    if not slides:
        yield Pool([], 1)
        return
    cluster = ray.cluster_resources()
    gpus, cpus = cluster.get("GPU", 0.0), cluster.get("CPU", 1.0)
    count = compute.actors or max(1, int(gpus) or int(cpus // compute.cpus_per_actor))
    share = compute.gpus_per_actor
    if share is None:
        share = 1.0 if gpus >= count else 0.0
    if count * compute.cpus_per_actor > cpus or count * share > gpus:
        raise ConfigError(
            f"{count} actors of {compute.cpus_per_actor} CPUs and {share:g} GPUs",
            f"at most the cluster's {cpus:g} CPUs and {gpus:g} GPUs",
            "set fewer --actors, or less for each",
        )
    actor = ray.remote(
        num_cpus=compute.cpus_per_actor,
        num_gpus=share,
        max_restarts=-1,
        max_task_retries=compute.retries,
        max_concurrency=compute.slides_per_actor,
    )(SlideWorker)
    made = [actor.remote(registry, digest, settings, out, compute) for _ in range(count)]
    pool = Pool(made, compute.slides_per_actor)
    try:
        providers = {got(a.where.remote()) for a in made}
        log.info("%d actors, %s", count, ", ".join(sorted(providers)))
        yield pool
    finally:
        pool.kill()


def got(reference: Any) -> Any:
    """The value of a call. Raises the SentinodeError that the actor raised, RayError for anything else."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, SentinodeError):
            raise error.cause from None
        raise
