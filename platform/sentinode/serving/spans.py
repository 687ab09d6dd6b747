"""The spans of a request: made when it is over, from the times that the endpoint takes anyway."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinode.serving.batching import Answer
from sentinode.serving.guard import REQUEST_ID
from sentinode.serving.predictor import Scored
from sentinode.serving.version import Version

_TRAIL: Final = "sentinode.trail"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def provider_of(exporters: Sequence[SpanExporter], replica: str) -> TracerProvider:
    """A provider of its own, not the process's: sampler and limits as ``OTEL_*`` say, spans sent in batches.

    The service is ``sentinode`` where ``OTEL_SERVICE_NAME`` names none, and ``replica`` its instance.
    """
    resource = Resource.create({SERVICE_INSTANCE_ID: replica})
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "sentinode"}))
    # Ray ends processes in its own way; ``Tracing.close`` sends what is left.
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class _Trail:
    """Where a sampled request has been, in seconds of ``time.perf_counter``; 0 for where it has not."""

    __slots__ = ("admitted_s", "answer", "began_s", "bundle", "epoch_ns", "read_s", "status")

    def __init__(self) -> None:
        self.began_s = time.perf_counter()
        # Both clocks at one moment: spans are told in nanoseconds since 1970.
        self.epoch_ns = time.time_ns() - round(self.began_s * 1e9)
        self.admitted_s = 0.0
        self.read_s = 0.0
        self.status = 499
        self.answer: Answer[Scored] | None = None
        self.bundle = ""

    def ns(self, at_s: float) -> int:
        """A time of ``time.perf_counter`` in nanoseconds since 1970."""
        return self.epoch_ns + round(at_s * 1e9)

    def stages(self, ended_s: float) -> list[tuple[str, float, float]]:
        """Name, begin and end of each; without gaps but for the decoding of others in the batch."""
        stages = [("guard", self.began_s, self.admitted_s or ended_s)]
        if self.admitted_s and self.read_s:
            stages.append(("read", self.admitted_s, self.read_s))
        if self.answer is None:
            return stages
        scored = self.answer.result
        decoded_s = scored.decode_began_s + scored.decode_s
        inferred_s = scored.inference_began_s + scored.inference_s
        decode = ("decode", scored.decode_began_s, decoded_s)
        queued_and_decoded = (
            [decode, ("queue", decoded_s, scored.batch_began_s)]
            if scored.decode_began_s < scored.batch_began_s
            else [("queue", self.read_s, scored.decode_began_s), decode]
        )
        return [
            *stages,
            *queued_and_decoded,
            ("inference", scored.inference_began_s, inferred_s),
            ("gate", inferred_s, inferred_s + scored.gate_s),
            ("reply", inferred_s + scored.gate_s, ended_s),
        ]


class Tracing:
    """One server span a request, whose parent is the client's ``traceparent`` (W3C), and a child a stage.

    ``guard`` (credential, limits), ``read`` (the body), ``queue`` (until its batch reaches it), ``decode`` (of one
    JPEG, before the queue), ``inference`` and ``gate`` (of the whole batch), ``reply``. Attributes say what a log
    line may: no pixels, no verdicts, no keys.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("sentinode.serving")

    def watched(self, app: ASGIApp, route_of: Callable[[Scope], str]) -> ASGIApp:
        """``app`` with a span around each request; ``route_of`` names its route, of a closed set."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            trail = _Trail()
            span = self._span(scope, route_of(scope), trail.ns(trail.began_s))
            if not span.is_recording():
                await app(scope, receive, send)
                return
            scope.setdefault("state", {})[_TRAIL] = trail

            async def marked_receive() -> Message:
                message = await receive()
                if not message.get("more_body", False) and not trail.read_s:
                    trail.read_s = time.perf_counter()
                return message

            async def marked_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    trail.status = message["status"]
                await send(message)

            try:
                await app(scope, marked_receive, marked_send)
            finally:
                self._end(span, trail, scope)

        return traced

    def admitted(self, app: ASGIApp) -> ASGIApp:
        """``app`` behind the guard: where the request comes here, the guard let it pass."""

        async def marked(scope: Scope, receive: Receive, send: Send) -> None:
            trail: _Trail | None = scope["state"].get(_TRAIL)
            if trail is not None:
                trail.admitted_s = time.perf_counter()
            await app(scope, receive, send)

        return marked

    def answered(
        self, state: Mapping[str, Any], version: Version, answer: Answer[Scored], _: list[str]
    ) -> None:
        """``version`` scored the request."""
        trail: _Trail | None = state.get(_TRAIL)
        if trail is not None:
            trail.answer, trail.bundle = answer, version.bundle.digest

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()

    def _span(self, scope: Scope, route: str, start_ns: int) -> Span:
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        return self._tracer.start_span(
            f"{method} {route}",
            propagate.extract(headers, Context()),
            SpanKind.SERVER,
            {"http.request.method": method, "http.route": route},
            start_time=start_ns,
        )

    def _end(self, span: Span, trail: _Trail, scope: Scope) -> None:
        ended_s = time.perf_counter()
        parent = set_span_in_context(span, Context())
        for name, began_s, until_s in trail.stages(ended_s):
            child = self._tracer.start_span(name, parent, start_time=trail.ns(began_s))
            child.end(trail.ns(max(began_s, until_s)))
        facts: dict[str, Any] = {
            "http.response.status_code": trail.status,
            "sentinode.request_id": scope["state"].get(REQUEST_ID, ""),
        }
        if trail.answer is not None:
            facts["sentinode.bundle"] = trail.bundle
            facts["sentinode.patches"] = len(trail.answer.result.probabilities)
            facts["sentinode.batch_patches"] = trail.answer.batch_size
        span.set_attributes(facts)
        if trail.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(trail.ns(ended_s))
