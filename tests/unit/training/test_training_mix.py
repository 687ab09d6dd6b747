"""MixUp and CutMix: pairs, labels after PCam's centre rule, independence of ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_parts import MemoryData, plan, weights

from sentinode.data.plan import ShuffleConfig
from sentinode.storage import open_store
from sentinode.training.config import MixConfig
from sentinode.training.loop import RankContext, run_training
from sentinode.training.mix import mix_pairs

PX, CENTRE = 64, 32.0


def mixed(
    config: MixConfig, start: int = 0, stop: int = 400, **how: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Batch members ``start`` to ``stop`` of white tumour and black negative patches by turns."""
    targets = (torch.arange(400) % 2).float()[start:stop]
    images = targets[:, None, None, None].expand(-1, 3, PX, PX).contiguous()
    ids = torch.arange(1000, 1400)[start:stop]
    return mix_pairs(images, targets, config, 3, 1, ids, CENTRE, **how)


def test_mixup_mixes_images_and_targets_alike() -> None:
    images, targets = mixed(MixConfig(mixup=1.0))
    assert torch.allclose(images.flatten(1), targets[:, None].expand(-1, 3 * PX * PX), atol=1e-6)
    assert torch.allclose(targets[::2] + targets[1::2], torch.ones(200))
    assert targets[::2].min() < 0.02
    assert 0.48 < targets[::2].max() <= 0.5


def test_cutmix_labels_by_the_part_of_the_centre_that_was_pasted() -> None:
    images, targets = mixed(MixConfig(cutmix=1.0))
    side = int(CENTRE)
    centre = images[
        :, 0, PX // 2 - side // 2 : PX // 2 + side // 2, PX // 2 - side // 2 : PX // 2 + side // 2
    ]
    assert torch.allclose(centre.mean((1, 2)), targets, atol=1e-6)
    assert set(images.unique().tolist()) == {0.0, 1.0}
    beside = (targets[::2] == 0) & (images[::2].mean((1, 2, 3)) > 0)
    assert beside.any(), "boxes beside the centre leave the label as it is"


def test_both_kinds_by_the_toss_of_a_coin() -> None:
    images, _ = mixed(MixConfig(mixup=1.0, cutmix=1.0))
    pasted = torch.tensor([len(image.unique()) == 2 for image in images[::2]])
    assert 60 < int(pasted.sum()) < 140


def test_a_part_of_the_batch_is_mixed_as_in_the_whole() -> None:
    config = MixConfig(mixup=0.4, cutmix=0.4)
    whole, part = mixed(config), mixed(config, 100, 200)
    assert torch.equal(whole[0][100:200], part[0])
    assert torch.equal(whole[1][100:200], part[1])


def test_where_classes_alternate_half_of_the_partners_are_of_the_same_class() -> None:
    config = MixConfig(mixup=1.0)
    images, targets = mixed(config, alternating=True)
    assert torch.allclose(images.flatten(1), targets[:, None].expand(-1, 3 * PX * PX), atol=1e-6)
    pure = ((targets == 0) | (targets == 1)).reshape(100, 4)
    assert torch.equal(pure.all(1), pure.any(1)), "four neighbours are partners of each other"
    assert 35 < int(pure.all(1).sum()) < 65
    assert targets.mean() == pytest.approx(0.5)
    part = mixed(config, 100, 200, alternating=True)
    assert torch.equal(images[100:200], part[0])
    assert torch.equal(targets[100:200], part[1])
    assert torch.equal(mixed(config, 0, 3, alternating=True)[1], mixed(config, 0, 3)[1])


@pytest.mark.parametrize("count", [1, 5])
def test_an_odd_last_patch_stays_as_it_is(count: int) -> None:
    images, targets = mixed(MixConfig(mixup=1.0), 1, 1 + count)
    assert targets[-1] == 1
    assert (images[-1] == 1).all()


def test_nothing_asked_nothing_done() -> None:
    images, targets = mixed(MixConfig())
    assert set(targets.tolist()) == {0.0, 1.0}
    assert set(images.unique().tolist()) == {0.0, 1.0}


def test_partners_are_drawn_so_where_a_recipe_balances_the_classes(tmp_path: Path) -> None:
    recipe = plan(epochs=1, mix={"mixup": 1.0})
    balanced = recipe.model_copy(update={"shuffle": ShuffleConfig(balanced=True)})
    plain, other = (
        weights(run_training(asked, MemoryData().feeds(), open_store(str(tmp_path / name)), RankContext()))
        for name, asked in (("plain", recipe), ("balanced", balanced))
    )
    assert not torch.equal(plain, other)
