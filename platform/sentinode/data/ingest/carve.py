"""Carve the splits that a source lacks out of its training patches: by slide (or patient), by content hash, or the
ones by slide and the others by content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sentinode.data.ingest.split import Int8s, key_words
from sentinode.errors import ConfigError
from sentinode.schema import CLASS_NAMES, Split

Fractions = Mapping[Split, float]
"""Share of the pool for each split to carve; the rest stays train."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def carve_by_content(
    keys: npt.NDArray[np.uint8], labels: Int8s, fractions: Fractions, seed: int
) -> dict[Split, npt.NDArray[np.bool_]]:
    """Masks bool [N] of the carved splits.

    A patch's place follows from its key and the seed alone, so it stays there when patches are added, and the
    same patch of two data sets falls on the same side. Shares are met up to chance; a split that would lack a
    class gets the patch of it that came nearest. Raises ConfigError where a class has fewer patches than
    there are splits.
    """
    u = _uniform(keys, seed)
    taken = np.zeros(len(keys), bool)
    masks: dict[Split, npt.NDArray[np.bool_]] = {}
    low = 0.0
    for split, fraction in fractions.items():
        masks[split] = ~taken & (u >= low) & (u < low + fraction)
        taken |= masks[split]
        low += fraction
    for label in np.unique(labels):
        if (labels == label).sum() <= len(fractions):
            raise _too_few(int(label), f"{(labels == label).sum()} patches", fractions)
        _give_each_split_one(u, labels == label, masks)
    return masks


def carve_by_group(
    groups: npt.NDArray[np.int32], names: Sequence[str], labels: Int8s, fractions: Fractions, seed: int
) -> dict[Split, npt.NDArray[np.bool_]]:
    """Masks bool [N] of the carved splits; ``groups`` int32 [N] are places in ``names`` (-1, no group, stays
    train).

    Groups (slides or patients) are tried in a seeded order and taken while that brings a split nearer to its
    share of both classes; a split then still lacking a class gets the group that suits best. No group is
    divided. Raises ConfigError where too few groups hold a class.
    """
    counts_GK = np.zeros((len(names), len(CLASS_NAMES)), np.int64)
    known = groups >= 0
    np.add.at(counts_GK, (groups[known], labels[known]), 1)
    totals = np.bincount(labels, minlength=len(CLASS_NAMES))
    present = totals > 0
    order = sorted(range(len(names)), key=lambda g: hashlib.sha256(f"{seed}/{names[g]}".encode()).digest())
    free = [g for g in order if counts_GK[g].any()]
    masks: dict[Split, npt.NDArray[np.bool_]] = {}
    for later, (split, fraction) in zip(range(len(fractions), 0, -1), fractions.items(), strict=True):
        chosen = _choose(counts_GK, free, fraction, totals, reserve=later)
        for label in np.flatnonzero(present & (counts_GK[chosen].sum(axis=0) == 0)):
            raise _too_few(
                int(label), f"{int((counts_GK[:, label] > 0).sum())} slides or patients", fractions
            )
        free = [g for g in free if g not in set(chosen)]
        masks[split] = np.isin(groups, chosen)
    return masks


def carve_by_both(
    keys: npt.NDArray[np.uint8],
    groups: npt.NDArray[np.int32],
    names: Sequence[str],
    labels: Int8s,
    fractions: Fractions,
    seed: int,
) -> dict[Split, npt.NDArray[np.bool_]]:
    """Masks bool [N] of the carved splits: patches of a group by group, those without one (-1) by content.

    Of the two, what is too few to be divided stays train. Raises ConfigError where a split then lacks a class.
    """
    known = groups >= 0
    masks = {split: np.zeros(len(groups), bool) for split in fractions}
    too_few = []
    for part in (known, ~known):
        try:
            found = (
                carve_by_group(groups[part], names, labels[part], fractions, seed)
                if part is known
                else carve_by_content(keys[part], labels[part], fractions, seed)
            )
        except ConfigError as error:
            too_few.append(error)
            continue
        for split, mask in found.items():
            masks[split][part] = mask
    if too_few and any(len(np.unique(labels[mask])) < len(np.unique(labels)) for mask in masks.values()):
        raise too_few[0]
    return masks


def _choose(
    counts_GK: npt.NDArray[np.int64],
    free: Sequence[int],
    fraction: float,
    totals: npt.NDArray[np.int64],
    reserve: int,
) -> list[int]:
    """Groups for one split. At least ``reserve`` groups of each class are left for the splits still to be
    served."""
    target = totals * fraction
    weight = 1.0 / np.maximum(totals, 1)

    def distance(have: npt.NDArray[np.int64]) -> float:
        return float((np.abs(have - target) * weight).sum())

    chosen: list[int] = []
    have = np.zeros_like(totals)
    spare = (counts_GK[list(free)] > 0).sum(axis=0) - reserve if free else np.zeros_like(totals)

    def may_take(g: int) -> bool:
        return bool((spare[counts_GK[g] > 0] > 0).all())

    for g in free:
        if may_take(g) and distance(have + counts_GK[g]) < distance(have):
            chosen.append(g)
            have, spare = have + counts_GK[g], spare - (counts_GK[g] > 0)
    for label in np.flatnonzero((totals > 0) & (have == 0)):
        fitting = [g for g in free if g not in chosen and counts_GK[g, label] and may_take(g)]
        if fitting and not have[label]:
            best = min(fitting, key=lambda g: distance(have + counts_GK[g]))
            chosen.append(best)
            have, spare = have + counts_GK[best], spare - (counts_GK[best] > 0)
    return chosen


def _give_each_split_one(
    u: npt.NDArray[np.float64],
    of_class: npt.NDArray[np.bool_],
    masks: dict[Split, npt.NDArray[np.bool_]],
) -> None:
    """Move patches of a class so that each carved split, and what stays train, has one."""

    def train() -> npt.NDArray[np.bool_]:
        carved = np.zeros_like(of_class)
        for mask in masks.values():
            carved |= mask
        return of_class & ~carved

    def largest() -> npt.NDArray[np.bool_]:
        return max([train(), *(of_class & m for m in masks.values())], key=lambda m: int(m.sum()))

    for mask in masks.values():
        if not (mask & of_class).any():
            index = np.flatnonzero(largest())
            moved = index[np.argmin(u[index])]
            for other in masks.values():
                other[moved] = False
            mask[moved] = True
    if not train().any():
        index = np.flatnonzero(largest())
        for other in masks.values():
            other[index[np.argmax(u[index])]] = False


def _uniform(keys: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.float64]:
    """float64 [N] in [0, 1): the key's first eight bytes, mixed with the seed (splitmix64, Steele et al.
    2014)."""
    with np.errstate(over="ignore"):
        z = key_words(keys)[0] + np.uint64(seed + 1) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    u: npt.NDArray[np.float64] = (z >> np.uint64(11)).astype(np.float64) / 2.0**53
    return u


def _too_few(label: int, have: str, fractions: Fractions) -> ConfigError:
    wanted = ", ".join(["train", *fractions])
    return ConfigError(
        f"class {label} ({CLASS_NAMES[label]}) has only {have}",
        f"at least one for each of {wanted}",
        "carve fewer splits: set --test-fraction 0 or --valid-fraction 0",
    )
