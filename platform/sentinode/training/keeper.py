"""What rank 0 leaves in the store while a run goes on: checkpoints, history, progress."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from sentinode.storage import Store
from sentinode.training.checkpoint import Snapshot, save_checkpoint, save_weights, whole_history
from sentinode.training.config import SaveConfig, TrainConfig
from sentinode.training.metrics import ProgressRecord
from sentinode.training.pointer import Custody
from sentinode.training.state import TrainingState
from sentinode.training.writer import BackgroundWriter

PROGRESS_KEY = "progress.json"
PROGRESS_EVERY_S = 2.0


class Keeper:
    """Decides when the state is saved. Only rank 0 writes; on other ranks every call does nothing."""

    def __init__(self, store: Store, config: TrainConfig, rank: int, driver: str = "") -> None:
        self._store, self._config = store, config
        self._custody = Custody(store, driver)
        self._writer = BackgroundWriter(config.save.patience_s) if rank == 0 else None
        self._saved_s = self._told_s = time.monotonic()

    def take_over(self) -> None:
        """Let nobody who began before write to the run any more. Before a state is read, so that it stays the last.

        Raises TrainingError where this process's driver is not the last one.
        """
        if self._writer is not None:
            self._custody.take()
            whole_history(self._store)  # the last epoch's may never be written again

    @property
    def open(self) -> AbstractContextManager[object]:
        """Whatever was asked for is written when this ends. Raises StoreError where it could not be."""
        return self._writer or nullcontext()

    def after_step(self, state: TrainingState, steps: int, world_size: int, *, urgent: bool = False) -> None:
        """Save where it is time to, or ``urgent``: then it is written before this returns."""
        if self._writer is None:
            return
        # The end of an epoch is saved after validation, unless there is no time for that.
        if urgent or (state.partial.steps < steps and self._due(self._config.save, state.partial.steps)):
            self.save(state)
            if urgent:
                self._writer.flush()
        # Validation, which may be long, tells nothing.
        if state.partial.steps == steps or time.monotonic() - self._told_s >= PROGRESS_EVERY_S:
            self._told_s = time.monotonic()
            self._tell(state, steps, world_size)

    def save(self, state: TrainingState) -> None:
        """Copy the state and have it written in the background."""
        if self._writer is not None:
            self._saved_s = time.monotonic()
            job = partial(save_checkpoint, self._store, Snapshot.of(state), self._custody)
            self._writer.submit("checkpoint", job)

    def finish(self, state: TrainingState) -> None:
        """Write the best weights, after all that waits to be written; their presence marks a finished run."""
        if self._writer is not None:
            self._writer.flush()
            self._writer.submit("weights", partial(save_weights, self._store, state))

    def _due(self, config: SaveConfig, step: int) -> bool:
        if config.every_steps is not None and step % config.every_steps == 0:
            return True
        waited_s = time.monotonic() - self._saved_s
        return config.every_minutes is not None and waited_s >= 60 * config.every_minutes

    def _tell(self, state: TrainingState, steps: int, world_size: int) -> None:
        assert self._writer is not None
        done = state.partial
        record = ProgressRecord(
            epoch=len(state.history) + 1,
            step=done.steps,
            steps=steps,
            epochs=self._config.epochs,
            loss=done.loss_sum / done.steps,
            valid_auroc=state.history[-1].valid_auroc if state.history else None,
            patches_per_s=done.steps * self._config.batch_size / done.train_s,
            wait_fraction=min(done.wait_s / done.train_s, 1.0),
            world_size=world_size,
        )
        self._writer.submit(
            "progress", partial(self._store.put, PROGRESS_KEY, record.canonical_json()), at_leisure=True
        )
