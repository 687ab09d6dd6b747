"""The file that an offline W&B run is, read while it is still being written.

It is a log in LevelDB's format: after 7 bytes of its own, blocks of 32 KiB with fragments of records, each behind a
checksum, a size and a kind. ``wandb sync`` gives up at a record that is torn, and with it on all later files of the
same run; so what is kept of a running process has to end with a whole one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

FILE_HEADER_BYTES = 7
BLOCK_BYTES = 32 << 10
FRAGMENT_HEADER = struct.Struct("<IHB")
"""Checksum, size, kind."""
ENDS_A_RECORD = (1, 4)
"""Kinds of a fragment: the only one of its record, or the last."""


def whole_records(log: bytes) -> bytes:
    """``log`` up to the end of its last whole record."""
    ends = [end for _, end in _records(log)]
    return log[: ends[-1] if ends else FILE_HEADER_BYTES]


def last_step(log: bytes) -> int:
    """The highest step of which the whole records of ``log`` tell figures; 0 where none does."""
    from wandb.proto.wandb_internal_pb2 import Record

    records = [Record.FromString(content) for content, _ in _records(log)]
    steps = [record.history.step.num for record in records if record.WhichOneof("record_type") == "history"]
    return max(steps, default=0)


def _records(log: bytes) -> Iterator[tuple[bytes, int]]:
    """Content of each whole record, and the position at which it ends."""
    at, content = FILE_HEADER_BYTES, b""
    while True:
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < FRAGMENT_HEADER.size:
            at += left
        if at + FRAGMENT_HEADER.size > len(log):
            return
        _, size, kind = FRAGMENT_HEADER.unpack_from(log, at)
        begin, at = at + FRAGMENT_HEADER.size, at + FRAGMENT_HEADER.size + size
        if at > len(log):
            return
        content += log[begin:at]
        if kind in ENDS_A_RECORD:
            yield content, at
            content = b""
