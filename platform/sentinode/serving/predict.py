"""``POST /v1/predict``, the hot path: bare ASGI, no Request and no Response object."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.types import Receive, Scope, Send

from sentinode.errors import BusyError, RequestError
from sentinode.serving.args import ServeArgs
from sentinode.serving.batching import Answer
from sentinode.serving.catalogue import Fleet, Model
from sentinode.serving.guard import CONNECTION
from sentinode.serving.http_parts import ClientGoneError, refuse, send_json
from sentinode.serving.predictor import Job, Scored, decoded_at_once
from sentinode.serving.replies import reply, verdicts_of
from sentinode.serving.requests import SLIDE, read_job
from sentinode.serving.version import Version

logger = logging.getLogger(__name__)

PREDICT: Final = "/v1/predict"
State = Mapping[str, Any]
"""Of a request: ``scope["state"]``."""
Observer = Callable[[State, Version, Answer[Scored], list[str]], None]
"""Told of each answered request: who answered, the answer, the verdicts."""

_FAULT: Final = RequestError(
    "the endpoint failed", remedy="try again; if it stays, tell the operator", status=500
)


class Predict:
    """The handler. ``observers`` are called before the reply is sent, in the event loop: they must be quick."""

    def __init__(self, fleet: Fleet, args: ServeArgs, observers: Sequence[Observer] = ()) -> None:
        self._fleet = fleet
        self._args = args
        self._observers = observers
        self._shadows: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except RequestError as error:
            await refuse(send, error, self._args.retry_after_s)
        except ClientGoneError:
            return
        except Exception:
            # The log has the traceback; the client gets none.
            logger.exception("a prediction failed")
            await refuse(send, _FAULT)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        query = scope["query_string"]
        model = self._fleet.catalogue.find(asked_model(query) if query else "")
        version = model.choose(headers.get(SLIDE, b""))
        connection = scope["state"][CONNECTION]
        job = await read_job(headers, receive, self._args, version.trust.gate, connection)
        answer, _ = await self.score(scope, model, version, job)
        single = job.pixels_BHWC is None and job.patches == 1
        await send_json(send, reply(model.words[version], answer, single))

    async def score(
        self, scope: Scope, model: Model, version: Version, job: Job
    ) -> tuple[Answer[Scored], list[str]]:
        """The scores of a job and its verdicts, counted, compared and observed.

        Raises RequestError, BusyError, and ClientGoneError where the client left before the job's batch began.
        """
        version.batcher.check_room(job.patches)
        job = decoded_at_once(job)
        is_gone = partial(getattr, scope["state"][CONNECTION], "disconnected", False)
        try:
            answer = await version.submit(job, is_gone)
        except asyncio.CancelledError as error:
            if not is_gone():
                raise
            raise ClientGoneError from error
        return answer, self.observed(scope["state"], model, version, job, answer)

    def observed(
        self, state: State, model: Model, version: Version, job: Job, answer: Answer[Scored]
    ) -> list[str]:
        """The verdicts of an answer, which is counted, compared and observed."""
        scored = answer.result
        verdicts = verdicts_of(model.words[version], scored)
        version.counts.answered(answer, verdicts)
        if model.shadow is not None:
            self._ask_shadow(model, version, job, scored)
        for observe in self._observers:
            observe(state, version, answer, verdicts)
        return verdicts

    def _ask_shadow(self, model: Model, version: Version, job: Job, scored: Scored) -> None:
        if model.shadow is None or model.shadow is version:
            return
        task = asyncio.create_task(_compare(model.shadow, version, job, scored))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)


def asked_model(query: bytes) -> str:
    """The value of ``model`` in a query string; ``""`` where there is none. Raises RequestError 400."""
    try:
        values = parse_qs(query.decode("ascii"), max_num_fields=8, strict_parsing=True)
    except ValueError as error:
        raise RequestError("the query cannot be read", "?model=<name or digest>, or nothing") from error
    if set(values) != {"model"} or len(values["model"]) != 1:
        raise RequestError("the query asks for something unknown", "?model=<name or digest>, or nothing")
    return values["model"][0]


async def _compare(shadow: Version, version: Version, job: Job, scored: Scored) -> None:
    """Ask the shadow the same and count the differences. Whatever happens to it, nobody waits for it."""
    try:
        other = (await shadow.submit(job)).result
    except BusyError:
        shadow.counts.missed(job.patches)
        return
    except Exception:
        logger.exception("shadow %s failed", shadow.bundle.digest)
        shadow.counts.missed(job.patches)
        return
    here, there = version.engine.operating_point.threshold, shadow.engine.operating_point.threshold
    differences, agreements = [], []
    for p, seen, q, found in zip(
        scored.probabilities, scored.flags, other.probabilities, other.flags, strict=True
    ):
        if seen and found:
            continue  # nothing was said of it
        agreements.append(not seen and not found and (p >= here) == (q >= there))
        if not seen and not found:
            differences.append(abs(p - q))
    shadow.counts.compared(differences, sum(agreements), len(agreements) - sum(agreements))
