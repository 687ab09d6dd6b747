"""Read the small CSV tables of data sets, and say which line is wrong."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from sentinode.errors import SourceError, first_of


def read_table(path: Path, columns: Sequence[str]) -> dict[str, list[str]]:
    """The named columns of a CSV file with a header; other columns are ignored.

    Raises SourceError where the file is no UTF-8 CSV, lacks a column or has a short row.
    """
    values: dict[str, list[str]] = {name: [] for name in columns}
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle, strict=True)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise SourceError(
                    f"{path.name} has the columns {reader.fieldnames or 'none'}",
                    f"a header with {', '.join(columns)}",
                    "restore the file from the data set",
                )
            for row in reader:
                for name in columns:
                    if row[name] is None:
                        raise SourceError(
                            f"{path.name} line {reader.line_num} is cut short", ", ".join(columns)
                        )
                    values[name].append(row[name].strip())
    except FileNotFoundError as error:
        raise SourceError(
            f"there is no {path.name} in the folder", f"a table {', '.join(columns)}"
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path.name} is no CSV text ({error})", f"a table {', '.join(columns)}") from error
    return values


def check_unique(path: Path, ids: Sequence[str]) -> None:
    """Raises SourceError naming ids that stand twice."""
    seen: set[str] = set()
    double = [i for i in ids if i in seen or seen.add(i)]  # type: ignore[func-returns-value]
    if double:
        raise SourceError(f"{path.name} names {first_of(double)} more than once", "each id once")


def parse_labels(path: Path, texts: Sequence[str]) -> list[int]:
    """Labels 0 and 1. Raises SourceError naming the first lines that hold anything else."""
    wrong = [f"line {i + 2}: {text!r}" for i, text in enumerate(texts) if text not in ("0", "1")]
    if wrong:
        raise SourceError(
            f"{path.name} has labels that are not 0 or 1 ({first_of(wrong)})", "0 (negative) or 1 (tumour)"
        )
    return [int(text) for text in texts]
