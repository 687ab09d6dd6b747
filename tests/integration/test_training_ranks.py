"""Two real processes in a group: metrics and weights over ranks. Starting them takes seconds, so not a unit test."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import distributed, multiprocessing
from training_parts import MemoryData, sample_measures, scored_sample

from sentinode.data.loader import Batch
from sentinode.errors import ConfigError, TrainingError
from sentinode.models.families import ModelConfig, SeedCnnConfig, TimmConfig, ValidCnnConfig, build_model
from sentinode.models.preprocess import PreprocessConfig
from sentinode.models.timm_backbone import TimmDetector
from sentinode.storage import open_store
from sentinode.training.checkpoint import load_history
from sentinode.training.config import Recipe, TrainConfig
from sentinode.training.feeds import Feeds
from sentinode.training.loop import RankContext, run_training
from sentinode.training.state import TrainingState
from sentinode.training.validation import ScoreCollector

SAMPLES = 72
MODELS: dict[str, ModelConfig] = {
    "seed-cnn": SeedCnnConfig(),
    "weights": ValidCnnConfig(input_px=64, equivariant=False, widths=(8, 8, 8), norm="weights"),
    "batch": ValidCnnConfig(input_px=64, equivariant=False, widths=(8, 8, 8), norm="batch"),
}


def plan(model: str = "seed-cnn", **changes: object) -> Recipe:
    config = MODELS[model]
    preprocess = PreprocessConfig()
    if isinstance(config, ValidCnnConfig):
        preprocess = PreprocessConfig(input_px=config.input_px, fit="crop")
    settings = {"epochs": 2, "batch_size": 16, "lr": 3e-4, "precision": "fp32", **changes}
    return Recipe(model=config, preprocess=preprocess, train=TrainConfig.model_validate(settings))


def weights(state: TrainingState) -> torch.Tensor:
    """All numbers of the network and of its average in one row."""
    nets = [net for net in (state.net, state.average) if net is not None]
    return torch.cat([value.flatten().double() for net in nets for value in net.state_dict().values()])


def _join(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def _train_rank(rank: int, folder: str, recipe: Recipe) -> None:
    _join(rank, folder)
    data = MemoryData(samples=SAMPLES, rank=rank, world_size=2)
    state = run_training(recipe, data.feeds(), open_store(f"{folder}/run"), RankContext(rank, 2))
    torch.save(weights(state), f"{folder}/weights{rank}")
    distributed.destroy_process_group()


@pytest.mark.parametrize(("model", "average"), [*((name, "ema") for name in MODELS), ("batch", "swa")])
def test_two_ranks_train_as_one_would(tmp_path: Path, model: str, average: str) -> None:
    averaging = {"kind": average, "swa_from": 0.0}
    recipe = plan(model, mix={"mixup": 0.5, "cutmix": 0.5}, averaging=averaging, label_smoothing=0.1)
    multiprocessing.spawn(_train_rank, args=(str(tmp_path), recipe), nprocs=2)
    ranks = [torch.load(tmp_path / f"weights{rank}", weights_only=True) for rank in (0, 1)]
    assert torch.equal(ranks[0], ranks[1])
    one = run_training(
        recipe, MemoryData(samples=SAMPLES).feeds(), open_store(str(tmp_path / "one")), RankContext()
    )
    torch.testing.assert_close(ranks[0], weights(one), atol=1e-5, rtol=1e-5)
    two = load_history(open_store(str(tmp_path / "run")))
    for there, here in zip(two, one.history, strict=True):
        assert there.train_loss == pytest.approx(here.train_loss, abs=1e-5)
        assert there.valid_loss == pytest.approx(here.valid_loss, abs=1e-5)
        assert there.valid_auroc == pytest.approx(here.valid_auroc, abs=1e-4)


def test_a_run_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    """One rank, broken off within an epoch, then two: as near to one rank throughout as two ranks are."""
    recipe = plan(save={"every_steps": 1})
    feeds = MemoryData(samples=SAMPLES).feeds()
    store = open_store(str(tmp_path / "run"))
    with pytest.raises(InterruptedError):
        run_training(recipe, _until(feeds, 1, 2), store, RankContext())
    multiprocessing.spawn(_train_rank, args=(str(tmp_path), recipe), nprocs=2)
    whole = run_training(recipe, feeds, open_store(str(tmp_path / "whole")), RankContext())
    found = torch.load(tmp_path / "weights0", weights_only=True)
    torch.testing.assert_close(found, weights(whole), atol=1e-5, rtol=1e-5)


def _until(feeds: Feeds, epoch: int, step: int) -> Feeds:
    def train(asked: int, start_step: int) -> Iterator[Batch]:
        for number, batch in enumerate(feeds.train(asked, start_step), start_step):
            if (asked, number) == (epoch, step):
                raise InterruptedError
            yield batch

    return replace(feeds, train=train)


def _bad_rank(rank: int, folder: str) -> None:
    _join(rank, folder)
    feeds = MemoryData(samples=SAMPLES, rank=rank, world_size=2).feeds()

    def train(epoch: int, start_step: int) -> Iterator[Batch]:
        for batch in feeds.train(epoch, start_step):
            bad = torch.full(batch.images_BHWC.shape, torch.nan)
            yield replace(batch, images_BHWC=bad) if rank == 1 else batch

    try:
        run_training(plan(), replace(feeds, train=train), open_store(f"{folder}/run"), RankContext(rank, 2))
    except TrainingError as error:
        Path(folder, f"error{rank}").write_text(str(error))
    distributed.destroy_process_group()


def test_a_bad_batch_of_one_rank_stops_all_with_one_error(tmp_path: Path) -> None:
    multiprocessing.spawn(_bad_rank, args=(str(tmp_path),), nprocs=2)
    errors = [(tmp_path / f"error{rank}").read_text() for rank in (0, 1)]
    assert errors[0] == errors[1]
    assert "epoch 1, step 1" in errors[0]
    assert "rank 1: key-" in errors[0]
    assert "rank 0" not in errors[0]
    kept = sorted(path.name for path in (tmp_path / "run" / "failures").glob("*.safetensors"))
    assert kept == ["epoch-0001-step-000001-rank-1.safetensors"]


def _rank_without_weights(rank: int, folder: str) -> None:
    """The weights lie on rank 0's node only."""
    _join(rank, folder)
    feeds = MemoryData(samples=SAMPLES, rank=rank, world_size=2).feeds()
    weights = Path(folder, f"node{rank}", "w.safetensors")
    model = TimmConfig(name="resnet10t", input_px=64, pretrained="file", weights_file=weights)
    recipe = Recipe(model=model, preprocess=PreprocessConfig(input_px=64, fit="crop"), train=plan().train)
    with pytest.raises(ConfigError) as caught:
        run_training(recipe, feeds, open_store(f"{folder}/run"), RankContext(rank, 2))
    assert caught.value.everywhere
    Path(folder, f"error{rank}").write_text(str(caught.value))
    distributed.destroy_process_group()


def test_weights_that_one_node_lacks_stop_all_ranks_with_one_error(tmp_path: Path) -> None:
    net = build_model(TimmConfig(name="resnet10t", input_px=64))
    assert isinstance(net, TimmDetector)
    (tmp_path / "node0").mkdir()
    save_file(net.backbone.state_dict(), tmp_path / "node0" / "w.safetensors")
    multiprocessing.spawn(_rank_without_weights, args=(str(tmp_path),), nprocs=2)
    errors = [(tmp_path / f"error{rank}").read_text() for rank in (0, 1)]
    assert errors[0] == errors[1]
    assert "node1/w.safetensors" in errors[0]


def _measure_rank(rank: int, folder: str) -> None:
    _join(rank, folder)
    logits, labels = scored_sample()
    # Rank 1 holds padding only in its second batch, and one sample in its first.
    mine = [slice(0, 30), slice(30, 36)] if rank == 0 else [slice(36, 37), slice(0, 35)]
    collector = ScoreCollector()
    for turn, part in enumerate(mine):
        mask = torch.full_like(labels[part], not (rank == 1 and turn == 1), dtype=torch.bool)
        collector.add(logits[part], labels[part], mask, torch.arange(37)[part])
    scores = collector.gather(2)
    Path(folder, f"rank{rank}").write_text(repr((scores.loss, *scores.auroc_and_accuracy())))
    distributed.destroy_process_group()


def test_two_ranks_measure_as_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_measure_rank, args=(str(tmp_path),), nprocs=2)
    for rank in (0, 1):
        values = [float(value) for value in (tmp_path / f"rank{rank}").read_text().strip("()").split(",")]
        assert values == pytest.approx(sample_measures(), abs=1e-6)
