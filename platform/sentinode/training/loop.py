"""The training loop: plain PyTorch. Who starts the ranks and joins them in a process group is not its
concern.
"""

from __future__ import annotations

from sentinode.models.families import build_model
from sentinode.storage import Store
from sentinode.training.averaging import build_average
from sentinode.training.checkpoint import load_checkpoint
from sentinode.training.config import Recipe
from sentinode.training.context import RankContext
from sentinode.training.failure import told_to_all
from sentinode.training.feeds import Feeds
from sentinode.training.keeper import Keeper
from sentinode.training.learner import Learner
from sentinode.training.memory import keep_freed_memory
from sentinode.training.optim import build_optimizer
from sentinode.training.pointer import read_pointer
from sentinode.training.state import TrainingState, seed_everything

__all__ = ["RankContext", "run_training"]


def run_training(recipe: Recipe, feeds: Feeds, store: Store, context: RankContext) -> TrainingState:
    """Train until the recipe's last epoch, resuming from the run's checkpoint in ``store`` where there is
    one, also with another number of ranks.

    Rank 0 writes metrics.jsonl, checkpoints and, at the end, the weights of the best epoch. On
    CPUs, the same recipe, data and number of ranks give the same weights, interrupted or not.
    Raises TrainingError where a loss is not finite, and what one rank meets before the first step, on every rank
    alike; StoreError where the store stays out of reach for longer than ``train.save.patience_s``, and
    RunTakenOverError where another process has begun to train the run.
    """
    keeper = Keeper(store, recipe.train, context.rank, context.driver)
    with keeper.open:
        # All ranks come to its end before they read the state: that of the moment when rank 0 took the run over.
        with told_to_all(context.world_size):
            state = _start(recipe, context, resumed=read_pointer(store) is not None)
            keeper.take_over()
        with told_to_all(context.world_size):
            load_checkpoint(store, state)
        learner = Learner(recipe, state, feeds, store, keeper, context)
        while not state.is_over(recipe):
            record = learner.epoch()
            keeper.save(state)
            if context.report is not None:
                context.report(record)
        keeper.finish(state)
    return state


def _start(recipe: Recipe, context: RankContext, *, resumed: bool) -> TrainingState:
    """A checkpoint holds all weights, so those that a ``resumed`` run began with need not be had any more."""
    if context.device.type == "cpu":
        keep_freed_memory()
    seed_everything(recipe.train.seed)
    net = build_model(recipe.model, pretrained=not resumed).to(context.device)
    return TrainingState(
        net,
        build_average(recipe.train.averaging, net),
        build_optimizer(recipe.train, net),
        best_by=recipe.train.best_by,
    )
