"""Reads what W&B leaves on disk: a log of protobuf records in LevelDB's format, which ``wandb sync`` replays."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK_BYTES = 32 << 10
HEADER_BYTES = 7
FULL, LAST = 1, 4
"""Kinds of a fragment that end a record."""


def read_records(folder: Path) -> list[Record]:
    """The records of the one run in ``folder``."""
    (path,) = folder.glob("*.wandb")
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, parts, records = HEADER_BYTES, b"", []
    while at < len(data):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER_BYTES:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        at += HEADER_BYTES
        parts += data[at : at + size]
        at += size
        if kind in (FULL, LAST):
            records.append(Record.FromString(parts))
            parts = b""
    return records


def of_kind(records: list[Record], kind: str) -> list[Any]:
    """The records of one kind: history, artifact, stats, ..."""
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def history(records: list[Record]) -> list[dict[str, Any]]:
    """One row a step; names of nested values are joined by dots."""
    return [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in row.item}
        for row in of_kind(records, "history")
    ]


def config(records: list[Record]) -> dict[str, Any]:
    """The run's configuration as it was begun."""
    (run,) = of_kind(records, "run")
    return {item.key: json.loads(item.value_json) for item in run.config.update}


def summary(records: list[Record]) -> dict[str, Any]:
    """The run's summary; names of nested values are joined by dots."""
    return {
        ".".join(item.nested_key) or item.key: json.loads(item.value_json)
        for update in of_kind(records, "summary")
        for item in update.update
    }
