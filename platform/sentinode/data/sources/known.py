"""Patches and slides of the public data sets that are known to be odd. They are kept and flagged, never deleted
silently."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from sentinode.data.sources.base import Column, Pixels
from sentinode.errors import first_of

KNOWN_ODD_VERSION: Final = 1
"""Raised when the list below changes, because flags are part of the manifest."""

KNOWN_ODD: Final = {
    "dd6dfed324f9fcb6f93f46f32fc800f2ec196be2": "white image of the Kaggle training set",
    "9369c7278ec8bcc6c880d99194de09fc2bd4efbe": "black image of the Kaggle training set",
}
"""SHA-1 of the RGB bytes to what is odd; both are labelled negative there."""

KNOWN_SLIDES_VERSION: Final = 1
"""Raised when the lists of slides below change, because warnings are part of the manifest."""


class Defect(StrEnum):
    """What is wrong with a slide; the value completes ``slides that are ...``."""

    MISFILED = "really tumour slides among the normal ones"
    DUPLICATE = "duplicates of other slides"
    NOT_EXHAUSTIVE = "not exhaustively annotated"


_NOT_EXHAUSTIVE: Final = (
    10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110,
)  # fmt: skip

SLIDE_DEFECTS: Final[dict[str, Defect]] = {
    "normal_086": Defect.MISFILED,
    "test_049": Defect.DUPLICATE,
    "test_114": Defect.NOT_EXHAUSTIVE,
    **{f"tumor_{number:03d}": Defect.NOT_EXHAUSTIVE for number in _NOT_EXHAUSTIVE},
}
"""Camelyon16 slides by their official names. No defect of a Camelyon17 slide is known here."""

RENAMED: Final = {"normal_086": "tumor_111"}
"""Slides that later releases of Camelyon16 carry under another name."""

_NAME = re.compile(
    r"(?:camelyon1[67]_(?:(?:train|test)(?:ing)?_)?)?"
    r"(?P<name>(?:normal|tumor|test)_\d{3}|patient_\d{3}_node_\d)(?:\.tif)?",
    re.IGNORECASE,
)


def oddity(key: str, pixels: Pixels) -> str | None:
    """What is odd about a patch: on the list above, or all its pixels have one value."""
    if key in KNOWN_ODD:
        return f"known: {KNOWN_ODD[key]} (list {KNOWN_ODD_VERSION})"
    first = pixels[0, 0]
    if (pixels[0] == first).all() and (pixels == first).all():
        return f"all pixels are RGB {tuple(int(v) for v in first)}"
    return None


def camelyon_name(slide: str) -> str | None:
    """Official name of a Camelyon slide (``normal_086`` for PCam's ``camelyon16_train_normal_086``), None for
    others."""
    match = _NAME.fullmatch(slide)
    return match["name"].lower() if match else None


def slide_defect(slide: str) -> Defect | None:
    """What is known to be wrong with a slide, under any of its names."""
    return SLIDE_DEFECTS.get(camelyon_name(slide) or "")


def current_name(slide: str) -> str:
    """The name that later releases give to a slide; equal names are the same slide."""
    name = camelyon_name(slide) or slide
    return RENAMED.get(name, name)


def is_official_test(slide: str) -> bool:
    """Whether Camelyon16 tests by this slide, under any of its names."""
    return (camelyon_name(slide) or "").startswith("test_")


def negatives_usable(slide: str) -> bool:
    """Whether tissue outside of the annotations may be taken as negative."""
    return slide_defect(slide) not in (Defect.MISFILED, Defect.NOT_EXHAUSTIVE)


def lesions_scorable(slide: str) -> bool:
    """Whether lesions found may be compared with the annotations (FROC): these are complete, and the slide
    counts once."""
    return slide_defect(slide) is None


def slide_warnings(slides: Column, labels: npt.NDArray[np.int8]) -> tuple[str, ...]:
    """One sentence for each defect with the number of doubtful patches, which are kept.

    ``labels`` int8 [N]. Of a duplicate every patch is doubtful, of other slides the negative ones.
    """
    warnings = []
    for defect in Defect:
        codes = [code for code, name in enumerate(slides.names) if slide_defect(name) is defect]
        doubtful = np.isin(slides.codes, codes)
        if defect is not Defect.DUPLICATE:
            doubtful &= labels == 0
        found = [slides.names[code] for code in np.unique(slides.codes[doubtful])]
        if found:
            what = "patches" if defect is Defect.DUPLICATE else "negative patches, perhaps of tumour,"
            warnings.append(
                f"{int(doubtful.sum())} {what} come from slides that are {defect} "
                f"({first_of(found)}); they are kept (list of slides {KNOWN_SLIDES_VERSION})"
            )
    return tuple(warnings)
