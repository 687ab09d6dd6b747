"""What ``ingest`` is told: where patches come from, how they are split, where shards go."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator

from sentinode.config import Frozen, canonical_json
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.data.sources import FolderKind, Source, detect, open_source
from sentinode.data.sources.synthetic import SyntheticSource
from sentinode.data.synthetic import SyntheticConfig
from sentinode.errors import ConfigError
from sentinode.schema import Encoding
from sentinode.storage import StoreUrl

SYNTHETIC = "synthetic"
SLIDES: Final = "slides"

_FORMAT_VERSION = 1
"""Raised when the same settings and input would give other bytes."""

_NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class IngestConfig(Frozen):
    """Turn a folder of patches (or synthetic ones) into train, valid and test shards and a manifest."""

    source: str = ""
    """Folder that holds the data set, or ``synthetic``; whole slides may lie in a store (``s3://``)."""
    out: StoreUrl
    """Where the data set goes: ``s3://bucket/prefix`` or a local folder, one for each data set."""
    kind: Literal["auto", "kaggle", "pcam-h5", "wilds", "folder", "slides"] = "auto"
    """Layout of the folder; ``auto`` recognises it. ``slides``: whole slides with their annotations."""
    dataset: str | None = Field(default=None, pattern=_NAME)
    """Name of the data set, part of the shards' names; the folder's name by default."""
    valid_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the training patches carved out as valid split where the source has none; 0 carves none."""
    test_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the training patches carved out as test split where the source has none; 0 carves none."""
    split_seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of carved splits."""
    use_source_splits: bool = True
    """Keep the source's own train, valid and test; otherwise pool them and split anew."""
    shard_samples: int = Field(default=4096, ge=1, le=65536)
    """Patches a shard (about 30 KB each as npy)."""
    encoding: Encoding = Encoding.NPY
    """How pixels are kept: npy (mapped into memory, no decoding), webp (lossless) or jpeg (quality 95,
    lossy)."""
    on_conflict: Literal["error", "drop"] = "error"
    """What to do when the same pixels carry two labels: end with an error, or drop them (counted)."""
    max_bad: int = Field(default=0, ge=0)
    """Number of unreadable, corrupt or wrongly sized images to tolerate; they are listed and left out."""
    positive_class: str | None = None
    """Name of the folder of tumour patches, where it is not one of the usual names (layout folder only)."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """What to make when the source is ``synthetic``."""
    corrections: StoreUrl | None = None
    """Folder or bucket of pathologists' corrections (GeoJSON): training patches are taken from what they outline. The
    slides lie below ``source``, or where the corrections say."""
    scores: StoreUrl | None = None
    """What ``sentinode score`` wrote for the slides: its heat maps say which patches of corrections are uncertain, and
    which negatives of slides are hard, being taken for tumour."""
    slides: SamplingConfig = SamplingConfig()
    """How patches are sampled from whole slides (layout slides only)."""
    overwrite: bool = False
    """Replace a data set of other settings or input that stands at ``out``; of an earlier run that was killed
    nothing is used either."""

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not self.source and self.corrections is None:
            raise ConfigError("no source", "a folder, or synthetic", "name it with --source")
        if self.scores is not None and self.corrections is None and self.kind != SLIDES:
            raise ConfigError(
                "scores of slides without slides", "--kind slides or --corrections", "leave --scores out"
            )
        return self

    @model_validator(mode="after")
    def _leaves_training_patches(self) -> Self:
        if self.valid_fraction + self.test_fraction >= 1.0:
            raise ConfigError(
                f"valid_fraction {self.valid_fraction} + test_fraction {self.test_fraction}",
                "a sum below 1",
                "lower one of them, so that training patches are left",
            )
        return self

    def open_source(self) -> Source:
        """The source that ``source`` and ``kind`` name. Raises SourceError where the folder has no known
        layout."""
        if self.source == SYNTHETIC:
            return SyntheticSource(self.synthetic)
        folder = Path(self.source).expanduser().absolute()
        if self.kind == SLIDES:
            raise ConfigError("whole slides opened as a folder of patches", "the way of distributed.ingest")
        kind: FolderKind | Literal["auto"] = self.kind
        if kind == "auto":
            return detect(folder, self.positive_class)
        return open_source(kind, folder, self.positive_class)

    def dataset_name(self) -> str:
        """``dataset``, or a name made from the source folder's."""
        if self.dataset:
            return self.dataset
        place = Path(self.source or str(self.corrections)).expanduser().absolute()
        return re.sub(r"[^a-z0-9]+", "-", place.name.lower()).strip("-")[:63] or "dataset"

    def recipe_digest(self, listing_digest: str) -> str:
        """SHA-256 of the input's listing and every setting that shapes the result, but not of where it
        lies."""
        kept = {
            "dataset", "valid_fraction", "test_fraction", "split_seed", "use_source_splits", "shard_samples",
            "encoding", "on_conflict",
        }  # fmt: skip
        settings = self.model_dump(mode="json", include=kept) | {"dataset": self.dataset_name()}
        return _sha256([_FORMAT_VERSION, settings, listing_digest])


def _sha256(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
