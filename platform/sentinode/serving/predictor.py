"""From request bodies to scores, a batch at a time: decoding and inference together, in one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sentinode.errors import RequestError
from sentinode.serving.engine import Engine
from sentinode.serving.protocol import decode_patch
from sentinode.serving.quality import Flag, Quality

Judge = Callable[[NDArray[np.uint8], NDArray[np.float64]], Quality]
"""Looks at patches [B, H, W, 3] and their probabilities [B]: ``Trust.judge``."""


@dataclass(frozen=True)
class Scored:
    """The model's answer to one body."""

    probability: float
    decode_s: float
    inference_s: float
    """Of the whole batch."""
    flags: tuple[Flag, ...] = ()
    """What the quality gate found."""


@dataclass(frozen=True, eq=False)
class _Decoded:
    pixels_HWC: NDArray[np.uint8]
    decode_s: float


def score_bodies(
    engine: Engine, bodies: Sequence[bytes], judge: Judge | None = None
) -> list[Scored | Exception]:
    """Score each body; one that cannot be decoded gets its RequestError and does not disturb the others."""
    decoded = [_decode(body) for body in bodies]
    images = [one.pixels_HWC for one in decoded if isinstance(one, _Decoded)]
    if not images:
        return [one for one in decoded if isinstance(one, RequestError)]
    started_s = time.perf_counter()
    images_BHWC = np.stack(images)
    probabilities_B = engine.predict(images_BHWC).probabilities_B
    inference_s = time.perf_counter() - started_s
    quality = judge(images_BHWC, probabilities_B) if judge else None
    probabilities = probabilities_B.tolist()
    flags = [quality.flags(index) if quality else () for index in range(len(images))]
    index = iter(range(len(images)))
    return [
        Scored(probabilities[k := next(index)], one.decode_s, inference_s, flags[k])
        if isinstance(one, _Decoded)
        else one
        for one in decoded
    ]


def _decode(body: bytes) -> _Decoded | RequestError:
    started_s = time.perf_counter()
    try:
        return _Decoded(decode_patch(body), time.perf_counter() - started_s)
    except RequestError as error:
        return error
