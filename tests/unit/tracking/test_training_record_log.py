"""The file of an offline W&B run, read while it is being written."""

from __future__ import annotations

import struct

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from sentinode.tracking.record_log import BLOCK_BYTES, last_step, whole_records

HEADER = b":W&B\x00\x00\x00"
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def fragment(kind: int, content: bytes) -> bytes:
    return struct.pack("<IHB", 0, len(content), kind) + content


def step(number: int) -> bytes:
    record = Record()
    record.history.step.num = number
    return record.SerializeToString()


@pytest.fixture
def log() -> bytes:
    """Steps 1 and 2; then one of 70,000 bytes, which spans three blocks; then step 3."""
    written = HEADER + fragment(FULL, step(1)) + fragment(FULL, step(2))
    long = Record()
    long.history.step.num = 9
    long.history.item.add(key="note", value_json="x" * 70_000)
    left = long.SerializeToString()
    kind = FIRST
    while left:
        room = BLOCK_BYTES - len(written) % BLOCK_BYTES - 7
        part, left = left[:room], left[room:]
        written += fragment(kind if left else LAST, part)
        kind = MIDDLE
    return written + fragment(FULL, step(3))


def test_a_log_that_ends_with_a_record_is_whole(log: bytes) -> None:
    assert whole_records(log) == log
    assert last_step(log) == 9


def test_what_is_torn_is_left_out(log: bytes) -> None:
    two = len(HEADER) + 2 * (7 + len(step(1)))
    for torn in (two, two + 3, two + 7, two + 100, BLOCK_BYTES, BLOCK_BYTES + 3, 2 * BLOCK_BYTES + 50):
        assert whole_records(log[:torn]) == log[:two]
        assert last_step(log[:torn]) == 2
    assert whole_records(log[:-1]) == log[: -7 - len(step(3))]


def test_blocks_end_with_padding_where_no_fragment_fits() -> None:
    first = fragment(FULL, b"\x00" * (BLOCK_BYTES - len(HEADER) - 7 - 5))
    written = HEADER + first + b"\x00" * 5 + fragment(FULL, step(4))
    assert len(HEADER + first) == BLOCK_BYTES - 5
    assert whole_records(written) == written
    assert whole_records(written[:-1]) == HEADER + first


def test_nothing_but_a_header() -> None:
    assert whole_records(HEADER) == HEADER
    assert last_step(HEADER) == 0
    assert whole_records(b"") == b""
