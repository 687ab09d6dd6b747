"""From request bodies to scores, a batch at a time: decode and model in a thread, gate and words in the event loop.

Images of a form are decoded into the tensor that the model reads, an upload of pixels is that tensor. One small JPEG a
request is decoded where the request is read (``decoded_at_once``), and its pixels are copied once into the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from sentinode.bundle.golden import probabilities
from sentinode.errors import RequestError
from sentinode.evaluation.calibrator import Calibration
from sentinode.schema import PATCH_PX
from sentinode.serving.engine import Engine, Scores
from sentinode.serving.limits import is_bounded_jpeg
from sentinode.serving.protocol import decode_into, decode_jpeg_into
from sentinode.serving.quality import Flag, Quality

Check = Callable[[NDArray[np.uint8]], Quality]
"""Looks at patches uint8 [B, 96, 96, 3] and says which must get no verdict; in any thread."""
Count = Callable[[NDArray[np.float64], Quality], None]
"""Told of probabilities float64 [B] and what is known of their patches; in the event loop."""

_UNCALIBRATED = Calibration()
_QUICK = 256
"""Patches whose gate takes the event loop about four milliseconds."""


@dataclass(slots=True, eq=False)
class Job:
    """What one request asks: encoded images, or pixels."""

    images: Sequence[bytes] = ()
    pixels_BHWC: NDArray[np.uint8] | None = None
    """uint8 [B, 96, 96, 3], in place of ``images``."""
    flags: tuple[Flag, ...] = ()
    """What is known of all its patches before they are seen."""
    decode_began_s: float = 0.0
    """When an image was made to pixels before its batch, by ``time.perf_counter``; 0 where none was."""
    decode_s: float = 0.0
    """How long that took."""

    @property
    def patches(self) -> int:
        """Number of patches."""
        return len(self.images) if self.pixels_BHWC is None else len(self.pixels_BHWC)


def decoded_at_once(job: Job) -> Job:
    """The job with pixels in place of its one image, where that is a JPEG quick to decode; else the job itself.

    For the event loop: with an image a request, handing the interpreter lock to the batch's thread and back for each
    costs more than the decoding. Raises RequestError as ``decode_into``.
    """
    if len(job.images) != 1 or not is_bounded_jpeg(job.images[0]):
        return job
    started_s = time.perf_counter()
    pixels_BHWC = np.empty((1, PATCH_PX, PATCH_PX, 3), np.uint8)
    decode_jpeg_into(job.images[0], pixels_BHWC[0])
    return Job((), pixels_BHWC, job.flags, started_s, time.perf_counter() - started_s)


@dataclass(slots=True, eq=False)
class Scored:
    """The answer to one job: a value for each of its patches, in order."""

    probabilities: list[float]
    """Of class 1, calibrated as the card says: what thresholds are compared with."""
    raw_probabilities: list[float]
    """Before calibration."""
    adjusted_probabilities: list[float] | None
    """At the stated prevalence; None where none is stated."""
    flags: list[tuple[Flag, ...]]
    """Empty where the patch may be judged."""
    batch_began_s: float
    """By ``time.perf_counter``, like all that began."""
    decode_began_s: float
    """Before the batch, where the job came to it with pixels of an image."""
    decode_s: float
    gate_s: float
    """Of the whole batch, like ``inference_s``."""
    inference_began_s: float
    inference_s: float


@dataclass(slots=True, eq=False)
class _Rows:
    first: int
    count: int
    decode_began_s: float
    decode_s: float
    flags: tuple[Flag, ...]


@dataclass(slots=True, eq=False)
class Computed:
    """A batch between the model and its answers."""

    images_BHWC: NDArray[np.uint8]
    rows: list[_Rows | RequestError]
    scores: Scores | None
    """None where no patch is left to be judged."""
    began_s: float
    inference_began_s: float
    inference_s: float
    quality: Quality | None = None
    gate_s: float = 0.0


class Predictor:
    """Scores batches of jobs with one engine: ``conclude(compute(jobs))`` is an answer for each, in order; a job that
    cannot be decoded, or to which the model gives no number, gets its RequestError and does not disturb the others.
    ``adjusted`` is the calibration for a stated prevalence.
    """

    def __init__(
        self, engine: Engine, check: Check, count: Count, adjusted: Calibration | None = None
    ) -> None:
        self._engine = engine
        self._check = check
        self._count = count
        self._adjusted = adjusted

    def compute(self, jobs: Sequence[Job]) -> Computed:
        """The first half: pixels and the model, almost all of it outside the interpreter lock. Of many patches, the
        gate as well: the event loop has others to see to.
        """
        began_s = time.perf_counter()
        images_BHWC, rows = _gather(jobs)
        started_s = time.perf_counter()
        scores = self._engine.predict(images_BHWC) if len(images_BHWC) else None
        took_s = time.perf_counter() - started_s
        if scores is not None and not scores.are_numbers():
            images_BHWC, scores = self._without_faults(images_BHWC, rows, scores)
        found = Computed(images_BHWC, rows, scores, began_s, started_s, took_s)
        if scores is not None and len(images_BHWC) > _QUICK:
            self._check_gate(found)
        return found

    def conclude(self, found: Computed) -> list[Scored | Exception]:
        """The second half: the gate and the words, with the interpreter lock."""
        scores = found.scores
        if scores is None:
            return [one for one in found.rows if isinstance(one, RequestError)]
        quality = found.quality or self._check_gate(found)
        for one in found.rows:
            if isinstance(one, _Rows) and one.flags:
                quality.add(one.flags, one.first, one.count)
        self._count(scores.probabilities_B, quality)
        calibrated = scores.probabilities_B.tolist()
        raw = probabilities(scores.logits_B, _UNCALIBRATED).tolist()
        adjusted = probabilities(scores.logits_B, self._adjusted).tolist() if self._adjusted else None
        flags = [quality.flags(index) for index in range(len(calibrated))]
        return [
            one
            if isinstance(one, RequestError)
            else Scored(
                calibrated[one.first : one.first + one.count],
                raw[one.first : one.first + one.count],
                adjusted[one.first : one.first + one.count] if adjusted else None,
                flags[one.first : one.first + one.count],
                found.began_s,
                one.decode_began_s,
                one.decode_s,
                found.gate_s,
                found.inference_began_s,
                found.inference_s,
            )
            for one in found.rows
        ]

    def _without_faults(
        self, images_BHWC: NDArray[np.uint8], rows: list[_Rows | RequestError], scores: Scores
    ) -> tuple[NDArray[np.uint8], Scores | None]:
        """What is left for the jobs of which each patch got a number; the others' ``rows`` become errors."""
        left_B = np.isfinite(scores.logits_B)
        for number, row in enumerate(rows):
            if isinstance(row, RequestError):
                continue
            here = slice(row.first, row.first + row.count)
            if left_B[here].all():
                row.first = int(left_B[: row.first].sum())
            else:
                left_B[here] = False
                rows[number] = self._engine.fault()
        left = Scores(scores.logits_B[left_B], scores.probabilities_B[left_B])
        return images_BHWC[left_B], left if left_B.any() else None

    def _check_gate(self, found: Computed) -> Quality:
        started_s = time.perf_counter()
        found.quality = self._check(found.images_BHWC)
        found.gate_s = time.perf_counter() - started_s
        return found.quality


def _gather(jobs: Sequence[Job]) -> tuple[NDArray[np.uint8], list[_Rows | RequestError]]:
    """All patches that could be decoded, uint8 [B, 96, 96, 3], and where each job's lie."""
    rows: list[_Rows | RequestError]
    pixels = [job.pixels_BHWC for job in jobs if job.pixels_BHWC is not None]
    if len(pixels) == len(jobs):
        firsts = accumulate(map(len, pixels), initial=0)
        now_s = time.perf_counter()
        rows = [
            _Rows(first, job.patches, job.decode_began_s or now_s, job.decode_s, job.flags)
            for first, job in zip(firsts, jobs, strict=False)
        ]
        return _joined(pixels), rows
    images_BHWC = np.empty((sum(job.patches for job in jobs), PATCH_PX, PATCH_PX, 3), np.uint8)
    first, rows = 0, []
    for job in jobs:
        started_s = time.perf_counter()
        try:
            _decode(job, images_BHWC[first : first + job.patches])
        except RequestError as error:
            rows.append(error)
            continue
        began_s = job.decode_began_s or started_s
        rows.append(
            _Rows(first, job.patches, began_s, job.decode_s + time.perf_counter() - started_s, job.flags)
        )
        first += job.patches
    return images_BHWC[:first], rows


def _joined(pixels: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """All patches in one tensor, which may be read-only. NumPy would give up the interpreter lock for each of them."""
    if len(pixels) == 1:
        return pixels[0]
    return np.frombuffer(b"".join([one.data for one in pixels]), np.uint8).reshape(-1, PATCH_PX, PATCH_PX, 3)


def _decode(job: Job, out_BHWC: NDArray[np.uint8]) -> None:
    if job.pixels_BHWC is not None:
        out_BHWC[:] = job.pixels_BHWC
        return
    for number, (image, out_HWC) in enumerate(zip(job.images, out_BHWC, strict=True), 1):
        try:
            decode_into(image, out_HWC)
        except RequestError as error:
            if len(job.images) == 1:
                raise
            raise RequestError(
                f"image {number} of {len(job.images)}: {error.found}",
                error.expected,
                error.remedy,
                error.status,
            ) from error
