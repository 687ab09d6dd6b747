"""Give every patch that is kept its split: the source's own, else by patient or slide, else by content
hash."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from sentinode.data.ingest.carve import carve_by_both, carve_by_group
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.split import Indices, Int8s
from sentinode.data.sources.base import SPLITS, UNKNOWN, Column, Listing
from sentinode.errors import LeakError, first_of
from sentinode.schema import Split

log = logging.getLogger(__name__)

Origin = Literal["source", "carved by slide", "carved by content hash"]

SLIDES_NEEDED: Final = 0.9
"""Share of patches whose slide is known from which on splits are carved by slide; the others stay train.
With less, the others are carved by content."""

_CODE = {split: code for code, split in enumerate(SPLITS)}
_LEAKS_SHOWN = 10


@dataclass(frozen=True)
class Assignment:
    """``order[split]`` int64: the split's patches in key order, which is a shuffle, as keys are SHA-1."""

    order: dict[Split, Indices]
    origin: dict[Split, Origin]
    slides_known: bool
    warnings: tuple[str, ...]


def assign_splits(
    config: IngestConfig,
    listing: Listing,
    keys: npt.NDArray[np.uint8],
    labels: Int8s,
    splits: Int8s,
    kept: Indices,
) -> Assignment:
    """Splits of the patches ``kept`` (int64 [K], in key order); ``splits`` int8 [N] is what the source says.

    Raises LeakError where the source puts one slide or patient into two splits, ConfigError where carving is
    impossible.
    """
    codes = splits[kept]
    slides = listing.slides.codes[kept]
    labelled = labels[kept] != UNKNOWN
    origin: dict[Split, Origin] = {SPLITS[code]: "source" for code in np.unique(codes[codes != UNKNOWN])}
    pool = np.flatnonzero(labelled & np.isin(codes, (UNKNOWN, _CODE[Split.TRAIN])))
    wanted = {Split.TEST: config.test_fraction, Split.VALID: config.valid_fraction}
    fractions = {split: share for split, share in wanted.items() if share > 0 and split not in origin}
    share_known = float((slides[pool] != UNKNOWN).mean()) if len(pool) else 0.0
    by: Origin = "carved by slide" if share_known >= SLIDES_NEEDED else "carved by content hash"
    if len(pool):
        codes[pool] = _CODE[Split.TRAIN]
        origin.setdefault(Split.TRAIN, by)
    if len(pool) and fractions:
        chosen, groups = kept[pool], _groups(listing)
        of = (groups.codes[chosen], groups.names, labels[chosen], fractions, config.split_seed)
        masks = carve_by_group(*of) if by == "carved by slide" else carve_by_both(keys[chosen], *of)
        for split, mask in masks.items():
            codes[pool[mask]] = _CODE[split]
            origin[split] = by
    _check_leaks("slides", listing.slides, kept[labelled], codes[labelled])
    _check_leaks("patients", listing.patients, kept[labelled], codes[labelled])
    unknown = int((slides[pool] == UNKNOWN).sum())
    warnings = (
        [f"{unknown} patches have no slide and stay in train"] if unknown and by == "carved by slide" else []
    )
    if unknown and 0 < share_known < SLIDES_NEEDED:
        warnings = [
            f"only {share_known:.0%} of the patches have a slide: the others are split by content hash"
        ]
    return Assignment(
        order={split: kept[codes == code] for split, code in _CODE.items() if (codes == code).any()},
        origin=origin,
        slides_known=bool((slides[labelled] != UNKNOWN).all()) if labelled.any() else False,
        warnings=tuple(warnings),
    )


def _groups(listing: Listing) -> Column:
    """What no split may divide: the patient of each patch where it is known, else its slide."""
    patients, slides = listing.patients, listing.slides
    of_slides = np.where(slides.codes == UNKNOWN, UNKNOWN, slides.codes + len(patients.names))
    codes = np.where(patients.codes == UNKNOWN, of_slides, patients.codes)
    return Column((*patients.names, *slides.names), codes.astype(np.int32))


def _check_leaks(what: str, column: Column, members: Indices, codes: Int8s) -> None:
    of_members = column.codes[members]
    known = of_members != UNKNOWN
    pairs = np.unique(np.stack([of_members[known], codes[known].astype(np.int32)]), axis=1)
    found, sides = np.unique(pairs[0], return_counts=True)
    leaking = [column.names[code] for code in found[sides > 1]]
    if leaking:
        raise LeakError(
            f"{len(leaking)} {what} stand in more than one split: {first_of(leaking, _LEAKS_SHOWN)}",
            "each slide and patient in one split",
            "mend the source's splits, or split anew by slide with --no-use-source-splits",
        )
