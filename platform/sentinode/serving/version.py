"""One bundle in memory, ready to answer: engine, gate, batcher, and the counters of its answers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sentinode.bundle.bundle import Bundle, open_bundle
from sentinode.bundle.card import Card
from sentinode.errors import ConfigError
from sentinode.evaluation.calibrator import Calibration
from sentinode.serving.args import ServeArgs
from sentinode.serving.batching import Answer, MicroBatcher
from sentinode.serving.engine import Engine
from sentinode.serving.metrics import Metrics
from sentinode.serving.predictor import Job, Predictor, Scored
from sentinode.serving.trust import Trust
from sentinode.storage import open_store


@dataclass(frozen=True)
class VersionKey:
    """What makes two versions the same."""

    bundle: str
    operating_point: str | None
    prevalence: float | None


class Version:
    """Answers jobs. Made in any thread; ``submit`` is for the event loop alone."""

    def __init__(
        self,
        key: VersionKey,
        engine: Engine,
        args: ServeArgs,
        metrics: Metrics,
        executor: Executor | None = None,
    ) -> None:
        self.key = key
        self.engine = engine
        self.trust = Trust(engine.bundle, args.trust.quality, metrics.trust, key.prevalence)
        self.counts = metrics.version(engine.bundle)
        adjusted = _calibration_at(engine.bundle.card, key.prevalence)
        predictor = Predictor(engine, self.trust.gate.check, self.trust.count, adjusted)
        self.batcher: MicroBatcher[Job, Scored] = MicroBatcher(
            predictor.compute,
            args.max_batch,
            args.batch_wait_ms / 1000,
            args.max_waiting_patches,
            executor,
            predictor.conclude,
        )

    @classmethod
    def open(
        cls, key: VersionKey, args: ServeArgs, metrics: Metrics, executor: Executor | None = None
    ) -> Version:
        """Fetch the bundle, verify it and reproduce its golden patches. Raises BundleError, StoreError, ConfigError."""
        with ExitStack() as stack:
            folder = args.cache_folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            bundle = open_bundle(open_store(args.registry), key.bundle, folder)
            # The engine holds the graph in memory, so a temporary folder may go as soon as it has started.
            engine = Engine(bundle, args.threads, key.operating_point, args.precision, args.provider)
            return cls(key, engine, args, metrics, executor)

    @property
    def bundle(self) -> Bundle:
        """The bundle that answers."""
        return self.engine.bundle

    def submit(self, job: Job, is_gone: Callable[[], bool] | None = None) -> asyncio.Future[Answer[Scored]]:
        """The scores of ``job``. Raises BusyError where too many patches wait; the future raises RequestError."""
        return self.batcher.submit(job, job.patches, is_gone)


def _calibration_at(card: Card, prevalence: float | None) -> Calibration | None:
    if prevalence is None:
        return None
    if card.scores is None:
        raise ConfigError(
            f"the card of {card.name} does not say which share of its validation patches is tumour",
            "card.scores, from which probabilities can be moved to another prevalence",
            "seal the bundle anew, or leave prevalence out",
        )
    positives = sum(card.scores.positives)
    return card.calibration.at_prevalence(positives / (positives + sum(card.scores.negatives)), prevalence)
