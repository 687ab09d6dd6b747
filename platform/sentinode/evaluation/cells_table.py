"""The exact heat map of a slide as a table: a row for each scored cell."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sentinode.errors import EvaluationError
from sentinode.evaluation.slide_record import SlideScore, file_key
from sentinode.slides.score_grid import MAX_CELLS
from sentinode.storage import Store

Grid = NDArray[np.float32]


def cells_table(
    probabilities: Grid, cell_um: float, cell_px: float, record: SlideScore | None = None
) -> bytes:
    """Parquet of column, row and probability (float32) of each scored cell of [rows, columns].

    The file's metadata hold the extent of the heat map, the side of a cell (micrometres, pixels of level 0) and, of
    ``record``, which scoring it belongs to.
    """
    rows, columns = np.nonzero(~np.isnan(probabilities))
    table = pa.table(
        {
            "column": columns.astype(np.int32),
            "row": rows.astype(np.int32),
            "probability": probabilities[rows, columns],
        }
    )
    facts: dict[str, object] = {
        "columns": probabilities.shape[1],
        "rows": probabilities.shape[0],
        "cell_um": cell_um,
        "level0_px_per_cell": cell_px,
    }
    if record is not None:
        facts |= {"bundle": record.bundle, "key": record.key}
    buffer = io.BytesIO()
    metadata = {f"sentinode.{name}": str(value) for name, value in facts.items()}
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


def read_cells(data: bytes, where: str, record: SlideScore | None = None) -> tuple[Grid, float]:
    """Probabilities [rows, columns], NaN where nothing was scored, and the side of a cell in micrometres.

    Raises EvaluationError where ``data`` is no such table, or one of another scoring than ``record``. Tables that do
    not say which, of earlier versions, are taken as they are.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
        facts = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        shape = int(facts["sentinode.rows"]), int(facts["sentinode.columns"])
        if not 0 < shape[0] * shape[1] <= MAX_CELLS:
            raise ValueError(f"{shape[1]} x {shape[0]} cells")
        whole = np.full(shape, np.nan, np.float32)
        whole[table["row"].to_numpy(), table["column"].to_numpy()] = table["probability"].to_numpy()
        cell_um = float(facts["sentinode.cell_um"])
    except (pa.ArrowException, ValueError, KeyError, IndexError) as error:
        raise EvaluationError(
            f"{where} is no table of cells ({error})", "the cells.parquet of a scored slide"
        ) from error
    if record is not None and facts.get("sentinode.key", record.key) != record.key:
        raise EvaluationError(
            f"the cells of {record.slide} are of another scoring (bundle {facts['sentinode.bundle'][:12]}) than its "
            f"record (bundle {record.bundle[:12]}): sentinode score was stopped before it had written its table",
            "records and cells of one scoring",
            "give the last command of sentinode score again: it goes on",
        )
    return whole, cell_um


def cells_of(store: Store, record: SlideScore) -> tuple[Grid, float]:
    """The cells of a scored slide, as ``read_cells`` has them. Raises EvaluationError, StoreError."""
    key = file_key(record.slide, "cells.parquet")
    return read_cells(store.get(key), store.locate(key), record)
