"""Sources: the layouts in which labelled patches come. ``detect`` recognises a folder's layout by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from sentinode.data.sources.base import BadImage, Column, Listing, Pixels, Source, SourceItem, readable
from sentinode.data.sources.folder import FolderSource
from sentinode.data.sources.kaggle import KaggleSource
from sentinode.data.sources.pcam_h5 import PcamSource
from sentinode.data.sources.wilds import WildsSource
from sentinode.errors import SourceError, first_of

__all__ = [
    "BadImage",
    "Column",
    "FolderKind",
    "Listing",
    "Pixels",
    "Source",
    "SourceItem",
    "detect",
    "open_source",
]

FolderKind = Literal["kaggle", "pcam-h5", "wilds", "folder"]

LAYOUTS: Final[dict[FolderKind, str]] = {
    "kaggle": "train_labels.csv (id,label), train/<id>.tif and perhaps test/<id>.tif",
    "pcam-h5": "camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5 or .h5.gz",
    "wilds": "WILDS camelyon17_v1.0: metadata.csv and patches/patient_*_node_*/*.png",
    "folder": "images as <class>/* or <split>/<class>/*, classes such as 0 and 1 or normal and tumor",
}
_SHOWN = 12


@readable()
def detect(folder: Path, positive_class: str | None = None) -> Source:
    """The source of a folder whose layout is recognised by what lies in it.

    Raises SourceError, listing what was found and the layouts that exist, where none or more than one fits.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise SourceError(f"{folder} {what}", "a folder in one of the known layouts")
    kinds = [kind for kind in LAYOUTS if _source(kind, folder, positive_class).matches(folder)]
    if {"kaggle", "wilds"} & set(kinds) and "folder" in kinds:
        kinds.remove("folder")  # train/, test/ and patches/ also look like classes
    if len(kinds) == 1:
        return _source(kinds[0], folder, positive_class)
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    layouts = "; ".join(f"{kind}: {layout}" for kind, layout in LAYOUTS.items())
    raise SourceError(
        f"{folder} holds {first_of(names, _SHOWN) or 'nothing'}"
        + (f", which fits several layouts ({', '.join(kinds)})" if kinds else ""),
        f"one of these layouts: {layouts}; or whole slides with their annotations (--kind slides)",
        "name the layout with --kind" if kinds else "name the folder that holds the data set itself",
    )


@readable()
def open_source(kind: FolderKind, folder: Path, positive_class: str | None = None) -> Source:
    """The source of a folder whose layout is known. Raises SourceError where it does not look like it."""
    if not folder.is_dir() or not (source := _source(kind, folder, positive_class)).matches(folder):
        raise SourceError(
            f"{folder} does not look like {kind}", LAYOUTS[kind], "see --kind auto for what was found"
        )
    return source


def _source(
    kind: FolderKind, folder: Path, positive_class: str | None
) -> KaggleSource | PcamSource | WildsSource | FolderSource:
    match kind:
        case "kaggle":
            return KaggleSource(folder)
        case "pcam-h5":
            return PcamSource(folder)
        case "wilds":
            return WildsSource(folder)
        case "folder":
            return FolderSource(folder, positive_class)
