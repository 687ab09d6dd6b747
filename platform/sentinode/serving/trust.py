"""What makes an endpoint trustworthy, for one bundle: gate, drift, audit log, explanations; made once, asked often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from sentinode.serving.audit import AuditLog
from sentinode.serving.auth import Caller
from sentinode.serving.drift import DriftWindow
from sentinode.serving.engine import Engine
from sentinode.serving.explain import Occlusion, occlusion
from sentinode.serving.protocol import decode_patch
from sentinode.serving.quality import Flag, Quality, QualityGate
from sentinode.serving.trust_args import TrustArgs
from sentinode.serving.trust_metrics import TrustMetrics

ABSTAINED: Final = "abstained"
"""Stands in the audit log where a patch got no verdict."""


class TooManyExplanationsError(Exception):
    """As many explanations wait as may."""


class Trust:
    """Around an engine. ``judge`` runs in the batch's thread, everything else in the event loop.

    Raises ConfigError where the audit log cannot be opened.
    """

    def __init__(
        self, engine: Engine, args: TrustArgs, registry: CollectorRegistry, replica: str = "local"
    ) -> None:
        self._engine = engine
        self._args = args
        self.gate = QualityGate(engine.bundle.card, args.quality)
        self.drift = DriftWindow(engine.bundle.card.scores)
        self.metrics = TrustMetrics(registry, self.drift)
        path = args.audit_log
        self._audit = AuditLog(path.with_name(path.name.replace("{replica}", replica))) if path else None
        self._explainer = ThreadPoolExecutor(1, thread_name_prefix="sentinode-explain")
        self._explanations = 0

    def judge(self, images_BHWC: NDArray[np.uint8], probabilities_B: NDArray[np.float64]) -> Quality:
        """Look at a batch that was scored, and count it: drift, flags, abstentions."""
        quality = self.gate.check(images_BHWC)
        abstained_B = quality.bits_B > 0
        self.drift.observe(probabilities_B, quality, abstained_B)
        if abstained_B.any():
            self.metrics.abstentions.inc(int(abstained_B.sum()))
            for index in np.flatnonzero(abstained_B):
                for flag in quality.flags(int(index)):
                    self.metrics.flags[flag].inc()
        return quality

    def count_scale(self, scale: Sequence[Flag], found: Sequence[Flag]) -> None:
        """A patch whose scale is wrong, by what the client says; ``found``: the flags that its pixels have."""
        for flag in scale:
            self.metrics.flags[flag].inc()
        if scale and not found:
            self.metrics.abstentions.inc()

    def audit(
        self,
        request_id: str,
        caller: Caller | None,
        action: str,
        verdicts: Sequence[str],
        flags: Sequence[str] = (),
    ) -> None:
        """Note an answered request, where an audit log is kept."""
        if self._audit is not None:
            name = caller.name if caller else "anonymous"
            self._audit.record(request_id, name, action, self._engine.bundle.digest, verdicts, flags)

    async def explain(self, body: bytes) -> Occlusion:
        """The occlusion map of one encoded patch.

        Raises RequestError as ``decode_patch``, TooManyExplanationsError where too many wait already. One is made at a
        time, in a thread of its own: predictions go on meanwhile.
        """
        if self._explanations > self._args.explanations_waiting:
            raise TooManyExplanationsError
        self._explanations += 1
        started_s = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._explainer, self._explain, body)
        finally:
            self._explanations -= 1
            self.metrics.explanation_seconds.observe(time.perf_counter() - started_s)

    def close(self) -> None:
        """Finish the explanation that is made, write the audit log's end."""
        self._explainer.shutdown(wait=True, cancel_futures=True)
        if self._audit is not None:
            self._audit.close()

    def _explain(self, body: bytes) -> Occlusion:
        return occlusion(self._engine, decode_patch(body))
