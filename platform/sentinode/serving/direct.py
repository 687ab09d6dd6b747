"""The usual prediction without ASGI: one JPEG, whose request is there as a whole.

A task, a scope, messages and five callables around each other cost a request as much as its part of the model. Here
a whole request goes in and the future of its reply comes out. What is not usual, and all that would be refused, is
left to the ASGI application (``asgi.py``), which knows the words: so there is nothing here that it does not do too,
and the functions that admit, decode, score and count are the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sentinode.errors import RequestError
from sentinode.serving.args import ServeArgs
from sentinode.serving.batching import Answer
from sentinode.serving.catalogue import Fleet, Model
from sentinode.serving.guard import REQUEST_ID, SECURITY_HEADERS, Guard
from sentinode.serving.http_parts import HEADERS, JSON
from sentinode.serving.metrics import Metrics
from sentinode.serving.predict import PREDICT, Predict
from sentinode.serving.predictor import Job, Scored, decoded_at_once
from sentinode.serving.quality import MPP_HEADER
from sentinode.serving.ray_refusals import DEADLINE
from sentinode.serving.replies import reply
from sentinode.serving.requests import SHAPE, SLIDE
from sentinode.serving.throttle import Allowance
from sentinode.serving.version import Version

_SCALE: Final = MPP_HEADER.encode()
_HEADERS: Final = b"".join(b"%b: %b\r\n" % pair for pair in (JSON, *HEADERS, *SECURITY_HEADERS))


@dataclass(slots=True, eq=False)
class Begun:
    """A prediction under way."""

    direct: Direct
    """Who began it: Ray may put another endpoint in its place meanwhile."""
    answer: asyncio.Future[Answer[Scored]]
    model: Model
    version: Version
    job: Job
    state: dict[str, Any]
    allowance: Allowance | None
    began_s: float


class Direct:
    """Predictions of one endpoint, for its event loop alone."""

    def __init__(
        self, guard: Guard, predict: Predict, fleet: Fleet, args: ServeArgs, metrics: Metrics
    ) -> None:
        self._guard = guard
        self._predict = predict
        self._fleet = fleet
        self._most_bytes = args.max_body_bytes
        self._metrics = metrics

    def begin(self, headers: Mapping[bytes, bytes], body: bytes, is_gone: Callable[[], bool]) -> Begun | None:
        """Begin the prediction that a ``POST /v1/predict`` asks for; ``end`` or ``undo`` must follow.

        None where that is not the usual one, or would be refused: as if it had never been asked.
        """
        began_s = time.perf_counter()
        if len(body) > self._most_bytes or SHAPE in headers or DEADLINE in headers:
            return None
        if headers.get(b"content-type", b"").startswith(b"multipart/"):
            return None
        admitted = self._guard.admitted(PREDICT, headers)
        if admitted is None:
            return None
        (_, allowance), state = admitted
        try:
            model = self._fleet.catalogue.default
            version = model.choose(headers.get(SLIDE, b""))
            version.batcher.check_room()
            flags = version.trust.gate.check_scale(headers.get(_SCALE, b"").decode("latin-1"))
            job = decoded_at_once(Job((body,), flags=flags))
            answer = None if job.pixels_BHWC is None else version.submit(job, is_gone)
        except RequestError:
            answer = None
        if answer is None:
            if allowance is not None:
                allowance.undo()
            return None
        return Begun(self, answer, model, version, job, state, allowance, began_s)

    def reply(self, begun: Begun, more_headers: bytes = b"") -> bytes:
        """The whole reply, once its answer is there; ``more_headers``: of the server, each with its line's end."""
        answer = begun.answer.result()
        self._predict.observed(begun.state, begun.model, begun.version, begun.job, answer)
        body = reply(begun.model.words[begun.version], answer, single=True)
        request_id: str = begun.state[REQUEST_ID]
        head = b"HTTP/1.1 200 OK\r\n%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n"
        return head % (more_headers, _HEADERS, request_id.encode(), len(body)) + body

    def end(self, begun: Begun, status: int) -> None:
        """It was answered, or its client left (499)."""
        if begun.allowance is not None:
            begun.allowance.leave()
        self._metrics.answered(PREDICT, status, time.perf_counter() - begun.began_s)

    def undo(self, begun: Begun) -> None:
        """It shall count as never asked."""
        if begun.allowance is not None:
            begun.allowance.undo()
