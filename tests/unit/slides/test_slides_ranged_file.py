"""An object as a file: the right bytes, each block fetched once, few kept."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from sentinode.slides.ranged_file import BLOCK_BYTES, REQUEST_BLOCKS, Blocks, RangedFile
from sentinode.storage import open_store

SIZE = 40 * BLOCK_BYTES + 123
CONTENT = np.random.default_rng(0).bytes(SIZE)


@pytest.fixture
def blocks(tmp_path: Path) -> Blocks:
    (tmp_path / "a").write_bytes(CONTENT)
    return Blocks(open_store(str(tmp_path)), "a", SIZE, kept_bytes=16 * BLOCK_BYTES)


def test_reads_and_seeks_as_a_file(blocks: Blocks) -> None:
    ours, real = RangedFile(blocks), io.BytesIO(CONTENT)
    rng = np.random.default_rng(1)
    for _ in range(200):
        offset, length = int(rng.integers(0, SIZE + 100)), int(rng.integers(0, 3 * BLOCK_BYTES))
        assert ours.seek(offset) == real.seek(offset)
        assert ours.read(length) == real.read(length)
        assert ours.tell() == real.tell()
    assert ours.seek(-10, io.SEEK_END) == SIZE - 10
    buffer = bytearray(20)
    assert ours.readinto(buffer) == 10
    assert bytes(buffer[:10]) == CONTENT[-10:]
    assert ours.seek(-5, io.SEEK_CUR) == SIZE - 5
    assert ours.read() == CONTENT[-5:]
    with pytest.raises(ValueError, match="seek"):
        ours.seek(-1)


def test_a_block_is_fetched_once_and_neighbours_together(blocks: Blocks) -> None:
    blocks.read(10, 3 * BLOCK_BYTES)
    assert (blocks.requests, blocks.fetched_bytes) == (1, 4 * BLOCK_BYTES)
    blocks.read(0, 6 * BLOCK_BYTES)
    assert (blocks.requests, blocks.fetched_bytes) == (2, 6 * BLOCK_BYTES)
    blocks.prefetch([(BLOCK_BYTES, 10), (8 * BLOCK_BYTES - 5, 10), (SIZE - 3, 3), (20 * BLOCK_BYTES, 10)])
    assert (blocks.requests, blocks.fetched_bytes) == (5, 9 * BLOCK_BYTES + 123)
    blocks.read(20 * BLOCK_BYTES, 5)
    assert blocks.requests == 5


def test_more_than_is_kept_is_read_all_the_same(blocks: Blocks) -> None:
    assert blocks.read(0, SIZE) == CONTENT
    blocks.prefetch([(0, SIZE)])
    assert blocks.read(5, SIZE - 9) == CONTENT[5 : SIZE - 4]
    assert SIZE < REQUEST_BLOCKS * BLOCK_BYTES


def test_threads_get_the_right_bytes(blocks: Blocks) -> None:
    places = [int(p) for p in np.random.default_rng(2).integers(0, SIZE - 70_000, 200)]
    with ThreadPoolExecutor(8) as pool:
        for place, found in zip(places, pool.map(lambda p: blocks.read(p, 70_000), places), strict=True):
            assert found == CONTENT[place : place + 70_000]
