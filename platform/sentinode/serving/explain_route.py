"""``POST /v1/explain``: one image in, its occlusion map out (RGBA PNG)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from starlette.requests import Request
from starlette.responses import Response

from sentinode.errors import BusyError
from sentinode.serving.args import ServeArgs
from sentinode.serving.body import read_body
from sentinode.serving.catalogue import Fleet
from sentinode.serving.engine import Engine
from sentinode.serving.explain import Occlusion, occlusion
from sentinode.serving.protocol import decode_patch
from sentinode.serving.trust_metrics import TrustMetrics

EXPLAIN = "/v1/explain"


class Explanations:
    """One is made at a time, in a thread of its own: predictions go on meanwhile. Used from one event loop.

    ``audit`` is told the request and the digest of the bundle that was explained.
    """

    def __init__(
        self,
        fleet: Fleet,
        args: ServeArgs,
        metrics: TrustMetrics,
        audit: Callable[[Request, str], None],
    ) -> None:
        self._fleet = fleet
        self._args = args
        self._metrics = metrics
        self._audit = audit
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sentinode-explain")
        self._asked = 0

    async def route(self, request: Request) -> Response:
        """Explain the default model, or the one of ``?model=``: a reply's ``bundle`` names the one that gave it."""
        engine = self._fleet.catalogue.find(request.query_params.get("model", "")).stable.engine
        found = await self.explain(engine, await read_body(request, self._args.max_body_bytes))
        self._audit(request, engine.bundle.digest)
        headers = {"cache-control": "no-store", "x-explanation-scale": f"{found.scale:.4f}"}
        return Response(found.png(), headers=headers, media_type="image/png")

    async def explain(self, engine: Engine, body: bytes) -> Occlusion:
        """The occlusion map of one encoded patch. Raises RequestError as ``decode_patch``, and BusyError."""
        if self._asked > self._args.trust.explanations_waiting:
            raise BusyError("as many explanations wait as may", "fewer at once")
        self._asked += 1
        started_s = time.perf_counter()
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, lambda: occlusion(engine, decode_patch(body)))
        finally:
            self._asked -= 1
            self._metrics.explanation_seconds.observe(time.perf_counter() - started_s)

    def close(self) -> None:
        """Finish the one that is made."""
        self._thread.shutdown(wait=True, cancel_futures=True)
