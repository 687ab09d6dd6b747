"""The manifest: what was taken, from where, how it was split, and each shard's size, checksum and layout.

It is written last: a data set without a manifest does not exist. It holds no time and no path of the machine that made
it, so the same input gives the same bytes, and its SHA-256 names the data set's version.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sentinode.config import Frozen, Record
from sentinode.errors import ManifestError, ObjectNotFoundError
from sentinode.schema import CLASS_NAMES, PATCH_MPP_UM_PX, PATCH_PX, Encoding, Split
from sentinode.storage import Store, open_parent

MANIFEST_NAME = "manifest.json"


class ArrayLayout(Frozen):
    """Where the samples of an ``npy`` shard lie: sample i starts at ``i * stride_bytes``, and so does each part of it.

    All members are padded to one size per shard, so pixels, label digit and JSON text stand at constant offsets within
    a sample and the shard is a strided array [samples, stride_bytes] of uint8.
    """

    stride_bytes: int = Field(gt=0)
    pixels_offset_bytes: int
    """First of the 96*96*3 uint8 RGB bytes, row-major [96, 96, 3]."""
    label_offset_bytes: int | None
    """The ASCII digit of ``<key>.cls``; None in unlabelled shards."""
    json_offset_bytes: int
    json_size_bytes: int
    """Size of each ``<key>.json`` member, padded with spaces."""


class ShardRecord(Frozen):
    """One shard of one split."""

    name: str
    """Key relative to the manifest, e.g. ``shards/kaggle-1f3a9c02-train-000000.tar``; base names are unique."""
    split: Split
    samples: int = Field(gt=0)
    size_bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    encoding: Encoding = Encoding.NPY
    layout: ArrayLayout | None = None
    """Set for ``npy`` shards, None for encodings of varying size."""
    class_counts: tuple[int, int] = (0, 0)
    """Samples of class 0 and 1; (0, 0) in unlabelled shards."""


class SplitSummary(Frozen):
    """One split in figures. ``origin`` says whose split it is."""

    samples: int
    class_counts: tuple[int, int]
    slides: int | None
    """Number of slides, None where slides are unknown."""
    origin: Literal["source", "carved by slide", "carved by content hash"]


class Dropped(Frozen):
    """What was left out, and why. Nothing is left out silently."""

    duplicates: int = 0
    """Exact duplicates within a split (the first one stays, when data sets were joined that of the first data set)."""
    cross_split_duplicates: int = 0
    """Exact duplicates over splits (kept in the split evaluated last: test, then valid, then train)."""
    conflicting: int = 0
    """Samples whose pixels carry two labels, left out by ``--on-conflict drop``; when data sets were joined, also those
    whose place on a slide a later data set labels otherwise, so that they may be wrong."""
    bad: int = 0
    """Unreadable, corrupt or wrongly sized images, within ``--max-bad``."""


class Manifest(Record):
    """The persisted description of a data set version."""

    dataset: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    source: str
    """Layout it was read from: kaggle, pcam-h5, wilds, folder, slides, synthetic; or joined."""
    patch_px: int = PATCH_PX
    mpp_um_px: float = PATCH_MPP_UM_PX
    class_names: tuple[str, str] = CLASS_NAMES
    slides_known: bool
    split_seed: int
    splits: dict[Split, SplitSummary]
    dropped: Dropped
    flagged: dict[str, str] = Field(default_factory=dict)
    """Keys of odd but kept images (all white, all black, known defects) and what is odd about them."""
    warnings: tuple[str, ...] = ()
    """What else a reader of results should know, in plain sentences (counts included)."""
    recipe_digest: str = ""
    """SHA-256 of the input's listing and of the settings: equal recipes need no second ingest."""
    shards: tuple[ShardRecord, ...]

    def of_split(self, split: Split) -> tuple[ShardRecord, ...]:
        """The shards of ``split`` in order. Raises ManifestError where the data set has none."""
        shards = tuple(s for s in self.shards if s.split is split)
        if not shards:
            have = ", ".join(sorted({s.split.value for s in self.shards}))
            raise ManifestError(f"data set {self.dataset} has no {split} split", f"one of {have}")
        return shards


def load_manifest(url: str) -> tuple[Manifest, Store]:
    """Read a manifest by URL; returns it with the store in which its shard names are keys.

    ``url`` may name the manifest or the folder that holds it. Raises ObjectNotFoundError where there is none,
    ManifestError where it is damaged.
    """
    if not url.endswith(".json"):
        url = f"{url.rstrip('/')}/{MANIFEST_NAME}"
    store, key = open_parent(url)
    try:
        data = store.get(key)
    except ObjectNotFoundError as error:
        raise ObjectNotFoundError(
            f"there is no data set at {url}",
            "what sentinode ingest wrote",
            "ingest first, or correct the URL",
        ) from error
    return Manifest.from_json(data, url), store
