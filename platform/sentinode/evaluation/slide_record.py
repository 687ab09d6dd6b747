"""What scoring says of one slide, and the table of all slides."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from sentinode.config import Record
from sentinode.errors import EvaluationError
from sentinode.evaluation.patient_stage import NODE_NAME, NODES, stage_of
from sentinode.schema import RESEARCH_USE_ONLY, NodeClass

SLIDES_NAME: Final = "slides.parquet"
_SAME_CELLS: Final = 0.06
"""Relative difference of sides: levels that are off by up to 3 % are taken as they are."""


def file_key(name: str, kind: str) -> str:
    """Where a file of slide ``name`` lies: kind is heat_map.tif, overview.png, cells.parquet, lesions.geojson,
    tissue.geojson or tissue.json."""
    return f"slides/{name}/{name}.{kind}"


def record_key(name: str) -> str:
    """Where the record of slide ``name`` lies. It is written last."""
    return file_key(name, "score.json")


class SlideScore(Record):
    """One slide. Of a slide that failed, only the first fields are known."""

    slide: str
    """Name: the file's, without its extension."""
    url: str
    status: Literal["done", "failed"]
    reason: str = ""
    """Why it failed."""
    key: str
    """Digest of settings, model and version of the file: another one is scored again."""
    bundle: str
    """Digest of the model."""
    settings: str = ""
    """Digest of the settings that slides of one table share. Empty in records of earlier versions."""
    score: float | None = None
    """Higher with more suspicion."""
    score_low: float | None = None
    score_high: float | None = None
    """Interval of the score where one is known. A single model gives none."""
    pooling: str = ""
    """How cells became the score."""
    node_class: NodeClass | None = None
    """By the longest diameter of the largest lesion."""
    lesions: int | None = None
    macro: int | None = None
    micro: int | None = None
    itc: int | None = None
    largest_um: float | None = None
    """Longest diameter of the largest lesion."""
    tumour_mm2: float | None = None
    tissue_mm2: float | None = None
    blurred_of_tissue: float | None = None
    """Share of the tissue that was left out for its blur. Not known of records of earlier versions."""
    cells: int | None = None
    """Cells that were scored."""
    threshold: float | None = None
    """Probability from which on a cell belongs to a lesion."""
    operating_point: str = ""
    method: str = ""
    """dense, or patches."""
    stride_um: float | None = None
    """Side of a cell of the heat map."""
    um_px: float | None = None
    """Of the slide at level 0."""
    um_px_given: bool = False
    """Whether it was given by hand."""
    read_as: str = ""
    """Level that was read, and resampling."""
    width_px: int | None = None
    height_px: int | None = None
    flags: tuple[str, ...] = ()
    """Of the tissue (see TissueRecord), and ``too_many_lesions``."""
    seconds: float | None = None
    """From opening it to the last file, reading included."""
    notice: str = Field(default=RESEARCH_USE_ONLY)

    def is_comparable_with(self, other: SlideScore) -> bool:
        """Whether both may stand in one table: scored by the same settings, on cells of one size.

        A failed slide disturbs none. Of a record of an earlier version only pooling and threshold are known.
        """
        if self.stride_um is None or other.stride_um is None:
            return True
        near = math.isclose(self.stride_um, other.stride_um, rel_tol=_SAME_CELLS)
        same = self.settings == other.settings or not (self.settings and other.settings)
        return near and same and (self.pooling, self.threshold) == (other.pooling, other.threshold)


def slides_table(records: Sequence[SlideScore]) -> bytes:
    """``slides.parquet``: one row a slide, by name; flags joined by commas."""
    rows = [
        record.model_dump(mode="json") | {"flags": ",".join(record.flags)}
        for record in sorted(records, key=lambda record: record.slide)
    ]
    columns = {
        name: pa.array([row[name] for row in rows], _arrow_type(name)) for name in SlideScore.model_fields
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression="zstd")
    return buffer.getvalue()


def read_slides_table(data: bytes, where: str) -> tuple[SlideScore, ...]:
    """The records of ``slides.parquet``. Raises EvaluationError where it is none."""
    try:
        rows = pq.read_table(io.BytesIO(data)).to_pylist()
        return tuple(
            SlideScore.model_validate(row | {"flags": tuple(filter(None, row["flags"].split(",")))})
            for row in rows
        )
    except (pa.ArrowException, ValueError, KeyError, AttributeError) as error:
        raise EvaluationError(
            f"{where} is no table of scored slides ({str(error).splitlines()[0]})",
            f"the {SLIDES_NAME} that sentinode score writes",
        ) from error


def stages_csv(records: Iterable[SlideScore]) -> tuple[bytes | None, tuple[str, ...]]:
    """Camelyon17's file of stages (``patient,stage``) for patients whose five nodes were scored, else None.

    Also the patients of which nodes are missing or failed, who get no stage.
    """
    nodes: dict[str, dict[str, NodeClass]] = {}
    for record in records:
        match = NODE_NAME.fullmatch(record.slide)
        if match is not None:
            found = nodes.setdefault(match["patient"], {})
            if record.node_class is not None:
                found[record.slide] = record.node_class
    whole = sorted(patient for patient, found in nodes.items() if len(found) == NODES)
    if not whole:
        return None, tuple(sorted(nodes))
    lines = ["patient,stage"]
    for patient in whole:
        lines.append(f"{patient}.zip,{stage_of(list(nodes[patient].values())).value}")
        lines += [f"{slide}.tif,{node.value}" for slide, node in sorted(nodes[patient].items())]
    return ("\n".join(lines) + "\n").encode(), tuple(sorted(nodes.keys() - set(whole)))


def _arrow_type(name: str) -> pa.DataType:
    annotation = SlideScore.model_fields[name].annotation
    for kind, arrow in ((bool, pa.bool_()), (float, pa.float64()), (int, pa.int64())):
        if annotation in (kind, kind | None):
            return arrow
    return pa.string()
