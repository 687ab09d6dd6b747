"""From the candidates of all slides to the patches that are taken: balanced, and spread over the slides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentinode.cohort.folder import Cohort, CohortSlide
from sentinode.cohort.heat import HeatAt, nowhere
from sentinode.cohort.sample import SHIFTED, Corner, SlideSample
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.data.places import reference
from sentinode.data.sources.base import SPLITS, UNKNOWN, Listing, slide_columns
from sentinode.errors import SourceError, first_of
from sentinode.schema import Split

Counts = NDArray[np.int64]

_DOUBTFUL: Final = ("nearly_everything", "no_contrast")


def choose(
    cohort: Cohort, samples: Sequence[SlideSample], config: SamplingConfig, probabilities: HeatAt = nowhere
) -> Listing:
    """The listing of the patches taken; ``samples`` in the order of the cohort's slides, ``probabilities`` what a model
    says of them.

    In the test slides and in the others ``config.positive_share`` is tumour: of the class that there is too much of,
    patches are left out, evenly over the slides. Where one class is missing, all of the other is taken.

    Raises SourceError where more slides cannot be used than ``config.max_bad_slides``.
    """
    faults = [(sample.slide, sample.fault) for sample in samples if sample.fault]
    if len(faults) > config.max_bad_slides:
        lines = "".join(f"\n    {slide}: {fault}" for slide, fault in faults[:50])
        raise SourceError(
            f"{len(faults)} of {len(samples)} slides cannot be used:{lines}",
            f"at most {config.max_bad_slides} (--slides.max-bad-slides)",
            f"mend or remove them, or leave them out with --slides.max-bad-slides {len(faults)}",
        )
    taken: list[tuple[CohortSlide, SlideSample, Corner, int]] = []
    for split in (None, Split.TEST):
        part = [(slide, s) for slide, s in zip(cohort.slides, samples, strict=True) if slide.split is split]
        for (slide, sample), (positive, negative) in zip(
            part, shares([sample for _, sample in part], config), strict=True
        ):
            taken += [(slide, sample, corner, 1) for corner in sample.positives[:positive]]
            corners = _negatives(sample, negative, config.hard_share, probabilities)
            taken += [(slide, sample, corner, 0) for corner in corners]
    if not taken:
        raise SourceError("no patch lies in the tissue of these slides", "slides with tissue")
    slides, centres, patients = slide_columns([slide.name for slide, *_ in taken])
    return Listing(
        [reference(sample.key, corner, sample.patch_px) for _, sample, corner, _ in taken],
        np.array([slide.size_bytes for slide, *_ in taken], np.int64),
        np.array([label for *_, label in taken], np.int8),
        np.array(
            [UNKNOWN if slide.split is None else SPLITS.index(slide.split) for slide, *_ in taken], np.int8
        ),
        slides=slides,
        centres=centres,
        patients=patients,
        warnings=(*cohort.warnings, *_warnings(samples, faults)),
    )


def shares(samples: Sequence[SlideSample], config: SamplingConfig) -> list[tuple[int, int]]:
    """How many positives and negatives each slide gives."""
    positives = np.array([len(s.positives) for s in samples], np.int64)
    negatives = np.array(
        [min(len(s.near) + len(s.negatives), config.patches_per_slide) for s in samples], np.int64
    )
    odds = config.positive_share / (1 - config.positive_share)
    if positives.sum() and negatives.sum():
        total = min(float(positives.sum()), float(negatives.sum()) * odds)
        positives = even(positives, max(1, int(total)))
        negatives = even(negatives, max(1, round(int(positives.sum()) / odds)))
    return list(zip(positives.tolist(), negatives.tolist(), strict=True))


def even(available: Counts, total: int) -> Counts:
    """``total`` (or all there is) taken as evenly as possible from ``available`` [S]."""
    left = min(total, int(available.sum()))
    taken = np.zeros_like(available)
    # Those with the fewest give all they have; what they lack is spread over the rest.
    for place, slide in enumerate(np.argsort(available, kind="stable").tolist()):
        taken[slide] = min(int(available[slide]), left // (len(available) - place))
        left -= int(taken[slide])
    return taken


def _negatives(
    sample: SlideSample, count: int, hard_share: float, probabilities: HeatAt
) -> tuple[Corner, ...]:
    """``count`` negatives of a slide: the hard ones, and others at random, or whatever there is."""
    hard, others = sample.near, sample.negatives
    candidates = hard + others
    found = None
    if candidates:
        centres = np.array(candidates, np.float64) + sample.patch_px / 2
        found = probabilities(sample.slide, centres)
    wanted = round(count * hard_share)
    if found is not None:
        order = np.argsort(-found, kind="stable").tolist()
        hard = tuple(candidates[i] for i in order[:wanted])
        # What is near a tumour comes last: it is hard, too, and its share is the hard ones' alone.
        left = sorted(order[wanted:], key=lambda i: (i < len(sample.near), i))
        others = tuple(candidates[i] for i in left)
    taken = min(len(hard), wanted)
    rest = min(len(others), count - taken)
    taken = min(len(hard), count - rest)
    return hard[:taken] + others[:rest]


def _warnings(samples: Sequence[SlideSample], faults: Sequence[tuple[str, str | None]]) -> list[str]:
    found = [f"{slide} was left out: {fault}" for slide, fault in faults]
    for what, names in (
        (
            "a tissue mask that is not to be trusted",
            [s.slide for s in samples if set(s.flags) & set(_DOUBTFUL)],
        ),
        (
            "outlines in GeoJSON and a scanned part that does not begin at their corner, from which outlines are "
            "counted here: those of QuPath are right only where it opened the slide with --no-crop",
            [s.slide for s in samples if SHIFTED in s.flags],
        ),
        (
            "no patch in their tissue",
            [s.slide for s in samples if not (s.fault or s.positives or s.near or s.negatives)],
        ),
    ):
        if names:
            found.append(f"{len(names)} slides have {what} ({first_of(names)})")
    return found
