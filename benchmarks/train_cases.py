"""Training loops without an end, to be run by ``on_ranks``: this project's, the bare step, and a plain eager one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from train_ranks import Place

from sentinode.data.loader import Batch
from sentinode.data.manifest import load_manifest
from sentinode.models.families import build_model
from sentinode.models.preprocess import PreprocessConfig
from sentinode.storage import open_store
from sentinode.training.averaging import build_average
from sentinode.training.config import Recipe
from sentinode.training.context import RankContext
from sentinode.training.feeds import open_feeds
from sentinode.training.keeper import Keeper
from sentinode.training.learner import Learner
from sentinode.training.memory import keep_freed_memory
from sentinode.training.optim import build_optimizer
from sentinode.training.state import TrainingState, seed_everything

READERS = 2
"""Worker processes of the plain loop's DataLoaders, all ranks together."""
TILT_DEGREES = 20
VALIDATED = 64
"""Patches of the token validation on each rank: the loops that are compared have none."""


@contextmanager
def open_learner(
    recipe: Recipe, data: Path, run: Path, place: Place, device: torch.device
) -> Iterator[Learner]:
    """This project's epochs, as each rank of ``sentinode train`` runs them, but for a token validation."""
    manifest, shards = load_manifest(str(data))
    rank, ranks = place.rank, place.layout.ranks
    store, keeper = open_store(str(run)), Keeper(open_store(str(run)), recipe.train, rank)
    with (
        open_feeds(recipe, manifest, shards, rank=rank, world_size=ranks, device=device) as feeds,
        keeper.open,
    ):
        keeper.take_over()
        if device.type == "cpu":
            keep_freed_memory()
        seed_everything(recipe.train.seed)
        net = build_model(recipe.model).to(device)
        average = build_average(recipe.train.averaging, net)
        state = TrainingState(net, average, build_optimizer(recipe.train, net))
        token = [_copy(next(iter(feeds.valid())), VALIDATED)]
        feeds = replace(feeds, valid=lambda: token)
        yield Learner(recipe, state, feeds, store, keeper, RankContext(rank, ranks, device))


def epochs(recipe: Recipe, data: Path, run: Path, place: Place) -> Iterator[int]:
    """Whole epochs: shards, gather, augmentation, steps, a token validation, checkpoint."""
    with open_learner(recipe, data, run, place, torch.device("cpu")) as learner:
        while True:
            learner.epoch()
            learner.keeper.save(learner.state)
            yield learner.feeds.steps * recipe.train.batch_size


def steps(recipe: Recipe, data: Path, run: Path, place: Place) -> Iterator[int]:
    """The training steps of epoch after epoch, one by one."""
    with open_learner(recipe, data, run, place, torch.device("cpu")) as learner:
        learner.stepper.net.train()
        epoch = 0
        while True:
            for step, batch in enumerate(learner.feeds.train(epoch, 0)):
                learner.stepper.run(batch, recipe.train.lr, epoch, step)
                yield recipe.train.batch_size
            epoch += 1


def bare_steps(recipe: Recipe, data: Path, run: Path, place: Place) -> Iterator[int]:
    """The same training steps on uint8 batches that lie in memory, as many at a time as an epoch has."""
    with open_learner(recipe, data, run, place, torch.device("cpu")) as learner:
        learner.stepper.net.train()
        batches = [_copy(batch, len(batch.labels_B)) for batch in learner.feeds.train(0, 0)]
        epoch = 0
        while True:
            for step, batch in enumerate(batches):
                learner.stepper.run(batch, recipe.train.lr, epoch, step)
            yield len(batches) * recipe.train.batch_size
            epoch += 1


def _copy(batch: Batch, count: int) -> Batch:
    """The first ``count`` samples, in memory of their own."""
    return Batch(**{name: values[:count].clone() for name, values in vars(batch).items()})


class PatchFiles(Dataset[tuple[Tensor, int]]):
    """Image files by Pillow, changed by chance one by one: flipped, tilted, fitted to the network, normalised."""

    def __init__(self, paths: list[Path], config: PreprocessConfig) -> None:
        self.paths, self.config = paths, config
        self.mean = torch.tensor(config.mean).view(3, 1, 1)
        self.std = torch.tensor(config.std).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.paths[index]
        image = Image.open(path).convert("RGB")
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        image = image.rotate(random.uniform(-TILT_DEGREES, TILT_DEGREES))
        px = self.config.input_px
        if self.config.fit == "crop":
            at = (image.width - px) // 2
            image = image.crop((at, at, at + px, at + px))
        elif image.width != px:
            image = image.resize((px, px), Image.Resampling.BILINEAR)
        pixels_CHW = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
        return (pixels_CHW - self.mean) / self.std, int(path.parent.name)


def plain_steps(recipe: Recipe, paths: list[Path], place: Place, readers: int = READERS) -> Iterator[int]:
    """The seed's way: files through a DataLoader, an eager float32 loop with Adam, the loss read each step."""
    ranks, size = place.layout.ranks, recipe.train.batch_size
    files = PatchFiles(paths, recipe.preprocess)
    sampler = DistributedSampler(files, ranks, place.rank) if ranks > 1 else None
    loader = DataLoader(
        files,
        batch_size=size // ranks,
        shuffle=sampler is None,
        sampler=sampler,
        num_workers=readers // ranks,
        multiprocessing_context="fork" if readers else None,  # the default of a process that was not spawned
        drop_last=True,
    )
    torch.manual_seed(recipe.train.seed)
    net: nn.Module = build_model(recipe.model)
    if ranks > 1:
        net = DistributedDataParallel(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.train.lr)
    net.train()
    loss_sum = 0.0
    while True:
        for images_BCHW, labels_B in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images_BCHW), labels_B)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            yield size


def plain_epochs(recipe: Recipe, paths: list[Path], place: Place, readers: int = READERS) -> Iterator[int]:
    """``plain_steps``, an epoch at a time; nothing is validated or saved."""
    done = plain_steps(recipe, paths, place, readers)
    while True:
        yield sum(islice(done, len(paths) // recipe.train.batch_size))
