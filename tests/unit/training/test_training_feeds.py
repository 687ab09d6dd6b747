"""The splits of a data set as training is fed with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_parts import plan, write_lesson

from sentinode.storage import open_store
from sentinode.training.feeds import VALID_BATCH, open_feeds


@pytest.mark.parametrize(("samples", "world_size"), [(75, 1), (75, 2), (2 * VALID_BATCH + 3, 2)])
def test_validation_scores_hardly_any_padding(tmp_path: Path, samples: int, world_size: int) -> None:
    manifest = write_lesson(str(tmp_path), train=16, valid=samples)
    scored, real = 0, 0
    for rank in range(world_size):
        with open_feeds(
            plan(), manifest, open_store(str(tmp_path)), rank=rank, world_size=world_size
        ) as feeds:
            for batch in feeds.valid():
                assert len(batch.mask_B) <= VALID_BATCH
                scored += len(batch.mask_B)
                real += int(batch.mask_B.sum())
    assert real == samples
    assert scored < samples + 2 * world_size
