"""The vocabulary of the field, shared by every floor."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

PATCH_PX: Final = 96
"""Side of a patch in pixels (PatchCamelyon)."""

CENTRE_PX: Final = 32
"""PCam's label rule: a patch is positive if a pixel of its central 32x32 is tumour."""

PATCH_BYTES: Final = PATCH_PX * PATCH_PX * 3

PATCH_MPP_UM_PX: Final = 0.972
"""Microns per pixel of PCam patches (Camelyon16 level 2: 0.243 um/px times 4)."""

CLASS_NAMES: Final = ("negative", "tumour")
"""Class 0 and class 1."""


class Split(StrEnum):
    """A part of a data set. ``unlabelled`` holds images to predict, such as Kaggle's test folder."""

    TRAIN = "train"
    VALID = "valid"
    TEST = "test"
    UNLABELLED = "unlabelled"


class NodeClass(StrEnum):
    """What a lymph node, or one lesion of it, is by the size of the metastasis (Camelyon17's slide labels)."""

    NEGATIVE = "negative"
    ITC = "itc"
    """Isolated tumour cells: at most 0.2 mm."""
    MICRO = "micro"
    """More than 0.2 mm, at most 2 mm."""
    MACRO = "macro"
    """More than 2 mm."""


class Encoding(StrEnum):
    """How the pixels of a sample are kept in a shard."""

    NPY = "npy"
    WEBP = "webp"
    JPEG = "jpeg"


RESEARCH_USE_ONLY: Final = (
    "Research use only. Not a medical device; not for diagnosis or treatment decisions."
)
"""Said wherever a result is shown."""
