"""Predictions: the one input of every measure, kept as numpy columns and as one parquet file.

The file ``predictions.parquet`` has one row a patch and these columns:

    key          string            SHA-1 of the patch's RGB bytes (Kaggle: the image id)
    slide        string, nullable  slide id, null where unknown
    centre       string, nullable  hospital, null where unknown
    label        int8              1 tumour, 0 negative, -1 unlabelled
    split        string            split of the manifest
    logit        float32 | float64 tumour logit before any calibration
    probability  float64           probability of tumour in [0, 1]

and, in the schema's metadata, ``sentinode.schema_version``, ``sentinode.model_digest`` and
``sentinode.manifest_digest``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from sentinode.errors import EvaluationError, first_of
from sentinode.evaluation.calibrator import Calibration, sigmoid
from sentinode.storage.interface import Store

SCHEMA_VERSION = 1
UNLABELLED = -1

FloatArray = NDArray[np.float64]
TextArray = NDArray[np.str_]
OptionalTextArray = NDArray[np.object_]
"""Elements are str, or None where unknown."""

_COLUMNS = {
    "key": pa.string(),
    "slide": pa.string(),
    "centre": pa.string(),
    "label": pa.int8(),
    "split": pa.string(),
    "logit": None,
    "probability": pa.float64(),
}


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of N patches beside what the pathologists say. Columns are read-only.

    Raises EvaluationError on columns of unequal length, duplicate or empty keys, labels other than -1, 0, 1,
    logits or probabilities that are NaN, and probabilities outside [0, 1].
    """

    keys: TextArray
    slides: OptionalTextArray
    centres: OptionalTextArray
    labels: NDArray[np.int8]
    splits: TextArray
    logits: NDArray[np.float32] | FloatArray
    probabilities: FloatArray
    model_digest: str
    manifest_digest: str

    def __post_init__(self) -> None:
        _check(self)
        for name, dtype in (("labels", np.int8), ("probabilities", np.float64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype))
        for column in fields(self)[:7]:
            view = getattr(self, column.name).view()
            view.flags.writeable = False
            object.__setattr__(self, column.name, view)

    @classmethod
    def from_logits(
        cls,
        *,
        keys: Sequence[str],
        logits: ArrayLike,
        labels: ArrayLike,
        split: str,
        slides: Sequence[str | None] | None = None,
        centres: Sequence[str | None] | None = None,
        model_digest: str,
        manifest_digest: str,
    ) -> Self:
        """Predictions of one split; the probability is the sigmoid of the tumour logit, in float64."""
        logits_N = np.asarray(logits)
        if logits_N.dtype not in (np.float32, np.float64):
            logits_N = logits_N.astype(np.float64)
        unknown: list[str | None] = [None] * len(keys)
        return cls(
            keys=np.asarray(keys, np.str_),
            slides=np.asarray(unknown if slides is None else slides, object),
            centres=np.asarray(unknown if centres is None else centres, object),
            labels=np.asarray(labels),
            splits=np.asarray([str(split)] * len(keys), np.str_),
            logits=logits_N,
            probabilities=sigmoid(logits_N.astype(np.float64)),
            model_digest=model_digest,
            manifest_digest=manifest_digest,
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def slides_known(self) -> bool:
        """Whether every patch names its slide."""
        return len(self) > 0 and all(slide is not None for slide in self.slides)

    def select(self, rows: NDArray[Any]) -> Predictions:
        """The patches at ``rows``: bool [N] or indices [M]."""
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self)[:7]}
        return Predictions(**columns, model_digest=self.model_digest, manifest_digest=self.manifest_digest)

    def calibrated(self, calibration: Calibration) -> Predictions:
        """The same patches with the probabilities that ``calibration`` makes of the logits."""
        return replace(self, probabilities=calibration.probabilities(self.logits))

    def labelled(self) -> Predictions:
        """Only the patches that carry a label."""
        return self.select(self.labels != UNLABELLED)

    def to_parquet(self) -> bytes:
        """The file's bytes (zstd); the same predictions give the same bytes with the same Arrow release."""
        table = pa.table(
            {
                "key": pa.array(self.keys.tolist(), pa.string()),
                "slide": pa.array(self.slides.tolist(), pa.string()),
                "centre": pa.array(self.centres.tolist(), pa.string()),
                "label": pa.array(self.labels, pa.int8()),
                "split": pa.array(self.splits.tolist(), pa.string()),
                "logit": pa.array(self.logits),
                "probability": pa.array(self.probabilities, pa.float64()),
            }
        ).replace_schema_metadata(
            {
                "sentinode.schema_version": str(SCHEMA_VERSION),
                "sentinode.model_digest": self.model_digest,
                "sentinode.manifest_digest": self.manifest_digest,
            }
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        return sink.getvalue()

    @classmethod
    def from_parquet(cls, data: bytes, where: str) -> Predictions:
        """Parse and check; ``where`` names the file in errors. Raises EvaluationError."""
        try:
            table = pq.read_table(io.BytesIO(data))
        except (pa.ArrowException, OSError) as error:
            raise EvaluationError(
                f"{where} is not a parquet file ({error})",
                "predictions.parquet",
                "predict again, or give CSV (id,probability)",
            ) from error
        metadata = _check_file(table, where)
        column = {name: table.column(name) for name in _COLUMNS}
        return cls(
            keys=np.asarray(column["key"].to_pylist(), np.str_),
            slides=np.asarray(column["slide"].to_pylist(), object),
            centres=np.asarray(column["centre"].to_pylist(), object),
            labels=column["label"].to_numpy(),
            splits=np.asarray(column["split"].to_pylist(), np.str_),
            logits=column["logit"].to_numpy(),
            probabilities=column["probability"].to_numpy(),
            model_digest=metadata["sentinode.model_digest"],
            manifest_digest=metadata["sentinode.manifest_digest"],
        )

    def write(self, store: Store, key: str) -> str:
        """Put the parquet file at ``key``; returns its URL. Raises StoreError."""
        store.put(key, self.to_parquet())
        return store.locate(key)

    @classmethod
    def read(cls, store: Store, key: str) -> Predictions:
        """Get and check the parquet file at ``key``. Raises StoreError and EvaluationError."""
        return cls.from_parquet(store.get(key), store.locate(key))


def _check(p: Predictions) -> None:
    lengths = {f.name: np.shape(getattr(p, f.name)) for f in fields(p)[:7]}
    if any(shape != (len(p.keys),) for shape in lengths.values()):
        found = ", ".join(f"{name} {list(shape)}" for name, shape in lengths.items())
        raise EvaluationError(f"columns of unequal length: {found}", "one value a patch in each column")
    unique, counts = np.unique(p.keys, return_counts=True)
    if (counts > 1).any():
        raise EvaluationError(
            f"{_first(unique[counts > 1])} appear more than once",
            "each patch once",
            "drop the duplicate rows",
        )
    if (p.keys == "").any():
        raise EvaluationError(
            f"{int((p.keys == '').sum())} patches have an empty key", "a key for each patch"
        )
    odd = ~np.isin(p.labels, (UNLABELLED, 0, 1))
    if odd.any():
        raise EvaluationError(
            f"label {p.labels[odd][0]} of {_first(p.keys[odd])}", "1 tumour, 0 negative, -1 unlabelled"
        )
    for name, values in (("logit", p.logits), ("probability", p.probabilities)):
        if np.isnan(values).any():
            raise EvaluationError(
                f"{name} of {_first(p.keys[np.isnan(values)])} is NaN",
                "a number",
                "check the model and its input",
            )
    outside = (p.probabilities < 0) | (p.probabilities > 1)
    if outside.any():
        raise EvaluationError(
            f"probability {p.probabilities[outside][0]} of {_first(p.keys[outside])}",
            "a probability in [0, 1]",
            "give probabilities, not logits",
        )


def _check_file(table: Any, where: str) -> dict[str, str]:
    """The file's metadata, once columns, types and version are known to be right."""
    remedy = "predict again with this release; predictions of other systems come as CSV (id,probability)"
    metadata = {
        k.decode(errors="replace"): v.decode(errors="replace")
        for k, v in (table.schema.metadata or {}).items()
    }
    version = metadata.get("sentinode.schema_version")
    if version != str(SCHEMA_VERSION):
        raise EvaluationError(f"{where} has schema version {version}", f"version {SCHEMA_VERSION}", remedy)
    for name in ("sentinode.model_digest", "sentinode.manifest_digest"):
        if name not in metadata:
            raise EvaluationError(f"{where} does not say its {name}", "the file as it was written", remedy)
    for name, kind in _COLUMNS.items():
        if name not in table.column_names:
            raise EvaluationError(f"{where} has no column {name}", ", ".join(_COLUMNS), remedy)
        found = table.schema.field(name).type
        if found not in ([kind] if kind is not None else [pa.float32(), pa.float64()]):
            raise EvaluationError(
                f"{where}: column {name} is {found}", str(kind or "float32 or float64"), remedy
            )
        if name not in ("slide", "centre") and table.column(name).null_count:
            raise EvaluationError(f"{where}: column {name} has empty cells", "a value in each row", remedy)
    return metadata


def _first(keys: TextArray) -> str:
    """``patches a, b, c and 5 more``, for errors."""
    return f"patch{'es' if len(keys) > 1 else ''} {first_of(keys.tolist(), 3)}"
