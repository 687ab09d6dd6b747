"""Detections of one slide: points with a confidence, as Camelyon16's contest takes them.

The file ``<slide>.csv`` has one line a detection, ``confidence,x,y``, with x and y in level-0 pixels; a line of
column names may stand first. An empty file says that nothing was found.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sentinode.errors import EvaluationError
from sentinode.evaluation.metrics import FloatArray

HEADER = ("confidence", "x", "y")


@dataclass(frozen=True, eq=False)
class Detections:
    """D points of one slide. Raises EvaluationError on confidences outside [0, 1] and coordinates not finite."""

    confidences_D: FloatArray
    xy_D2: FloatArray
    """Level-0 pixels."""

    @classmethod
    def of(cls, confidences: ArrayLike, xy: ArrayLike, where: str = "detections") -> Detections:
        """Check; ``where`` names the file in errors."""
        confidences_D = np.asarray(confidences, np.float64)
        xy_D2 = np.asarray(xy, np.float64).reshape(-1, 2)
        if confidences_D.shape != (len(xy_D2),):
            raise EvaluationError(
                f"{where}: {confidences_D.size} confidences for {len(xy_D2)} points", "one a point"
            )
        odd = ~((confidences_D >= 0) & (confidences_D <= 1))
        if odd.any():
            raise EvaluationError(
                f"{where} has a confidence of {confidences_D[odd][0]}", "a number in [0, 1]"
            )
        if not np.isfinite(xy_D2).all():
            raise EvaluationError(f"{where} has a coordinate that is not finite", "pixels at level 0")
        return cls(confidences_D, xy_D2)

    def to_csv(self) -> bytes:
        """Camelyon16's file, without column names."""
        rows = zip(self.confidences_D.tolist(), self.xy_D2.tolist(), strict=True)
        return "".join(f"{c!r},{x!r},{y!r}\n" for c, (x, y) in rows).encode()


def read_detections(data: bytes, where: str) -> Detections:
    """The detections of one slide. Raises EvaluationError when a line is not three numbers in range."""
    rows: list[list[float]] = []
    try:
        for number, cells in enumerate(csv.reader(io.StringIO(data.decode("utf-8-sig")))):
            if not cells or (number == 0 and tuple(c.strip().lower() for c in cells) == HEADER):
                continue
            row = [float(cell) for cell in cells]
            if len(row) != len(HEADER):
                raise ValueError(f"line {number + 1} has {len(row)} columns")
            rows.append(row)
    except (ValueError, csv.Error) as error:
        raise EvaluationError(f"{where}: {error}", f"lines of {','.join(HEADER)}") from error
    table = np.array(rows, np.float64).reshape(-1, len(HEADER))
    return Detections.of(table[:, 0], table[:, 1:], where)
