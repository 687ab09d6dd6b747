"""Patches of the public data sets that are known to be odd. They are kept and flagged, never deleted
silently."""

from __future__ import annotations

from typing import Final

from sentinode.data.sources.base import Pixels

KNOWN_ODD_VERSION: Final = 1
"""Raised when the list below changes, because flags are part of the manifest."""

KNOWN_ODD: Final = {
    "dd6dfed324f9fcb6f93f46f32fc800f2ec196be2": "white image of the Kaggle training set",
    "9369c7278ec8bcc6c880d99194de09fc2bd4efbe": "black image of the Kaggle training set",
}
"""SHA-1 of the RGB bytes to what is odd; both are labelled negative there."""


def oddity(key: str, pixels: Pixels) -> str | None:
    """What is odd about a patch: on the list above, or all its pixels have one value."""
    if key in KNOWN_ODD:
        return f"known: {KNOWN_ODD[key]} (list {KNOWN_ODD_VERSION})"
    first = pixels[0, 0]
    if (pixels[0] == first).all() and (pixels == first).all():
        return f"all pixels are RGB {tuple(int(v) for v in first)}"
    return None
