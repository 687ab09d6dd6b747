"""One inference, whatever carried it: tensors to a job, its scores to tensors."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from starlette.types import Scope

from sentinode.errors import RequestError
from sentinode.serving.args import ServeArgs
from sentinode.serving.batching import Answer
from sentinode.serving.catalogue import Fleet, Model
from sentinode.serving.oip import model as names
from sentinode.serving.oip.tensors import Input, Output, bytes_of, uint8_of
from sentinode.serving.predictor import Job, Scored
from sentinode.serving.quality import MPP_HEADER, Flag
from sentinode.serving.requests import SLIDE
from sentinode.serving.version import Version

Score = Callable[[Scope, Model, Version, Job], Awaitable[tuple[Answer[Scored], list[str]]]]
"""Scores a job as ``POST /v1/predict`` does: counted, compared with a shadow, audited."""

_TAKES: Final = " or ".join(f"{one.name} {one.datatype} {list(one.shape)}" for one in names.INPUTS)
_SHAPES: Final = {one.name: one for one in names.INPUTS}


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What a client asks. ``outputs`` are names, all for none."""

    id: str
    inputs: Sequence[Input]
    outputs: Sequence[str] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Inferred:
    """The answer."""

    id: str
    model: str
    version: str
    """Digest of the bundle that answered."""
    parameters: dict[str, str | float]
    outputs: list[Output]


class Inferences:
    """Answers inferences of one endpoint."""

    def __init__(self, fleet: Fleet, args: ServeArgs, score: Score) -> None:
        self.fleet = fleet
        self.args = args
        self._score = score

    def choose(self, scope: Scope, name: str, version: str) -> tuple[Model, Version]:
        """Who answers, to be asked once and before the body is read: meanwhile another catalogue may take this one's
        place. Raises RequestError 404.
        """
        slide = dict(scope["headers"]).get(SLIDE, b"")
        return names.chosen(self.fleet.catalogue, name, version, slide)

    async def answer(self, scope: Scope, model: Model, one: Version, asked: Inference) -> Inferred:
        """Score it. ``scope`` carries the caller and the headers. Raises RequestError, BusyError."""
        headers = dict(scope["headers"])
        scale = headers.get(MPP_HEADER.encode(), b"").decode("latin-1")
        job = job_of(asked, self.args, one.trust.gate.check_scale(scale))
        answer, verdicts = await self._score(scope, model, one, job)
        point, card = one.engine.operating_point, one.bundle.card
        return Inferred(
            asked.id,
            model.name,
            one.bundle.digest,
            {"operating_point": point.name, "threshold": point.threshold, "notice": card.notice},
            outputs_of(answer.result, verdicts, asked.outputs),
        )


def job_of(asked: Inference, args: ServeArgs, flags: tuple[Flag, ...] = ()) -> Job:
    """The patches of an inference. Raises RequestError 400 for tensors that are not what a model takes, 413."""
    for name in asked.outputs:
        if name not in names.OUTPUT_NAMES:
            raise RequestError(f"there is no output {name[:64]!r}", ", ".join(names.OUTPUT_NAMES))
    if len(asked.inputs) != 1:
        raise RequestError(f"the request has {len(asked.inputs)} inputs", f"one: {_TAKES}")
    (tensor,) = asked.inputs
    known = _SHAPES.get(tensor.name)
    if known is None:
        raise RequestError(f"there is no input {tensor.name[:64]!r}", _TAKES)
    if tensor.datatype != known.datatype:
        raise RequestError(f"{tensor.name} is of datatype {tensor.datatype[:16]!r}", known.datatype)
    if len(tensor.shape) != len(known.shape) or tensor.shape[1:] != known.shape[1:] or tensor.shape[0] < 1:
        raise RequestError(
            f"{tensor.name} has shape {list(tensor.shape[:8])}",
            f"{list(known.shape)}, with at least one patch",
            "cut patches at the card's microns per pixel; the endpoint does not resize",
        )
    if tensor.shape[0] > args.max_patches:
        raise RequestError(f"{tensor.shape[0]} patches", f"at most {args.max_patches} a request", status=413)
    if tensor.name == names.IMAGES:
        return Job(pixels_BHWC=uint8_of(tensor), flags=flags)
    images = bytes_of(tensor)
    large = max(map(len, images))
    if large > args.max_body_bytes:
        raise RequestError(f"an image of {large} bytes", f"at most {args.max_body_bytes} bytes", status=413)
    return Job(images, flags=flags)


def outputs_of(scored: Scored, verdicts: Sequence[str], wanted: Sequence[str] = ()) -> list[Output]:
    """The tensors [B] that are wanted, in that order; all for none. A patch with a flag gets no number."""

    def judged(values: Sequence[float] | None) -> list[float]:
        numbers = values or [math.nan] * len(verdicts)
        return [math.nan if flags else v for v, flags in zip(numbers, scored.flags, strict=True)]

    tensors: tuple[Sequence[float | bool | str], ...] = (
        judged(scored.probabilities),
        judged(scored.raw_probabilities),
        judged(scored.adjusted_probabilities),
        verdicts,
        [bool(flags) for flags in scored.flags],
        [",".join(flags) for flags in scored.flags],
    )
    outputs = {
        one.name: Output(one.name, one.datatype, values)
        for one, values in zip(names.OUTPUTS, tensors, strict=True)
    }
    return [outputs[name] for name in dict.fromkeys(wanted)] if wanted else list(outputs.values())
