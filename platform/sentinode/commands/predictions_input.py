"""Files of predictions, of reference labels and of lesion sizes, as ``evaluate`` and ``compare`` take them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from sentinode.data.columns import read_columns
from sentinode.data.manifest import load_manifest
from sentinode.errors import ConfigError, EvaluationError, ObjectNotFoundError
from sentinode.evaluation.imported import Reference, predictions_from_csv, reference_from_csv
from sentinode.evaluation.predictions import Predictions
from sentinode.storage import open_parent

MOST_BYTES = 256 * 2**20
"""Largest file of predictions: some four million rows of CSV, which take some 30 times their size in memory."""


def read_predictions(url: str, reference_url: str | None = None) -> Predictions:
    """Predictions of a parquet file, or of a CSV file with reference labels in it or at ``reference_url``.

    Raises EvaluationError on bad content, ConfigError on another kind of file, one that is too large, or a parquet
    file, which holds its labels, that comes with a reference.
    """
    store, key = open_parent(url)
    if not key.endswith((".csv", ".parquet")):
        raise ConfigError(f"predictions in {key}", "a file .csv or .parquet", "give one, named so")
    found = store.stat(key)
    if found is not None and found.size_bytes > MOST_BYTES:
        raise ConfigError(
            f"{url} has {found.size_bytes / 2**20:,.0f} MiB",
            f"at most {MOST_BYTES / 2**20:.0f} MiB: it is read into memory",
            "give the patches of one split only, and no columns but id, probability, label, slide, centre, split",
        )
    if not key.endswith(".csv"):
        if reference_url is not None:
            raise ConfigError(f"{url} holds its labels", "--reference with CSV files only", "leave it out")
        return Predictions.read(store, key)
    reference = None if reference_url is None else read_reference(reference_url)
    return predictions_from_csv(store.get(key), store.locate(key), reference)


def read_reference(url: str) -> Mapping[str, Reference]:
    """Reference labels by id, of a table ``id,label`` or of all splits of a data set."""
    if url.endswith(".csv"):
        store, key = open_parent(url)
        return reference_from_csv(store.get(key), store.locate(key))
    try:
        manifest, data = load_manifest(url)
    except ObjectNotFoundError as error:
        raise ConfigError(
            f"no reference labels at {url}",
            "a table id,label named .csv, or the folder of a data set",
            "see --help",
        ) from error
    out: dict[str, Reference] = {}
    for split in manifest.splits:
        c = read_columns(manifest, data, split)
        for key, label, slide, centre in zip(c.keys, c.labels, c.slides, c.centres, strict=True):
            out[str(key)] = Reference(int(label), slide, centre, split.value)
    return out


def read_lesion_sizes(url: str) -> dict[str, str]:
    """Slide to size class, from ``slide,size`` or Camelyon16's ``reference.csv`` (slide, class, type, size).

    Slides without a lesion are left out. Raises EvaluationError on other tables.
    """
    store, key = open_parent(url)
    try:
        rows = [row for row in csv.reader(io.StringIO(store.get(key).decode("utf-8-sig"))) if row]
    except (UnicodeDecodeError, csv.Error):
        rows = []
    if rows and rows[0] == ["slide", "size"]:
        rows = rows[1:]
    if not rows or any(len(row) not in (2, 4) for row in rows):
        raise EvaluationError(
            f"{url} is no table of lesion sizes",
            "slide,size, or Camelyon16's reference.csv",
            "give one of the two as UTF-8 text",
        )
    sizes = {row[0].strip(): row[-1].strip().lower() for row in rows}
    return {slide: size for slide, size in sizes.items() if size not in ("", "none", "negative")}
