"""The exact heat map of a slide as a table: a row for each scored cell."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sentinode.errors import EvaluationError
from sentinode.slides.score_grid import MAX_CELLS

Grid = NDArray[np.float32]


def cells_table(probabilities: Grid, cell_um: float, cell_px: float) -> bytes:
    """Parquet of column, row and probability (float32) of each scored cell of [rows, columns].

    The file's metadata hold the extent of the heat map and the side of a cell: micrometres, pixels of level 0.
    """
    rows, columns = np.nonzero(~np.isnan(probabilities))
    table = pa.table(
        {
            "column": columns.astype(np.int32),
            "row": rows.astype(np.int32),
            "probability": probabilities[rows, columns],
        }
    )
    facts = {
        "columns": probabilities.shape[1],
        "rows": probabilities.shape[0],
        "cell_um": cell_um,
        "level0_px_per_cell": cell_px,
    }
    buffer = io.BytesIO()
    metadata = {f"sentinode.{name}": str(value) for name, value in facts.items()}
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd")
    return buffer.getvalue()


def read_cells(data: bytes, where: str) -> tuple[Grid, float]:
    """Probabilities [rows, columns], NaN where nothing was scored, and the side of a cell in micrometres.

    Raises EvaluationError where ``data`` is no such table.
    """
    try:
        table = pq.read_table(io.BytesIO(data))
        facts = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        shape = int(facts["sentinode.rows"]), int(facts["sentinode.columns"])
        if not 0 < shape[0] * shape[1] <= MAX_CELLS:
            raise ValueError(f"{shape[1]} x {shape[0]} cells")
        whole = np.full(shape, np.nan, np.float32)
        whole[table["row"].to_numpy(), table["column"].to_numpy()] = table["probability"].to_numpy()
        return whole, float(facts["sentinode.cell_um"])
    except (pa.ArrowException, ValueError, KeyError, IndexError) as error:
        raise EvaluationError(
            f"{where} is no table of cells ({error})", "the cells.parquet of a scored slide"
        ) from error
