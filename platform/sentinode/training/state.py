"""The state of a run between two epochs, and its checkpoints in the store.

A checkpoint is one safetensors file: tensors, and the rest as JSON in its header; nothing is ever unpickled.
``checkpoints/last.json`` names the newest one with its checksum and is written after it, so a kill at any
moment leaves the former checkpoint in force.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from sentinode.config import Record
from sentinode.errors import TrainingError
from sentinode.storage import Store
from sentinode.training.config import Recipe
from sentinode.training.metrics import EpochRecord
from sentinode.training.optim import Schedule

POINTER_KEY = "checkpoints/last.json"
METRICS_KEY = "metrics.jsonl"
WEIGHTS_KEY = "weights/best.safetensors"
"""Written when the run is over: its presence marks a finished run."""

log = logging.getLogger(__name__)


class CheckpointPointer(Record):
    """Which checkpoint is in force."""

    key: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    epoch: int


@dataclass
class TrainingState:
    """Everything that the next epoch depends on.

    Random generators are not part of it: they are seeded anew each epoch from (seed, epoch, rank), so a
    resumed run draws what the uninterrupted one would have drawn, on every rank.
    """

    net: nn.Module
    optimizer: Optimizer
    schedule: Schedule
    history: list[EpochRecord] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    """Of the epoch with the highest validation AUROC."""

    @property
    def best(self) -> EpochRecord | None:
        """The first epoch with the highest validation AUROC, None before the first epoch."""
        return max(self.history, key=lambda record: record.valid_auroc, default=None)

    def add(self, record: EpochRecord) -> None:
        """Note an epoch; keeps a copy of the weights where it is the best so far."""
        self.history.append(record)
        if self.best is record:
            self.best_weights = {
                name: value.detach().clone() for name, value in self.net.state_dict().items()
            }

    def is_over(self, recipe: Recipe) -> bool:
        """Whether all epochs are done, or none got better for ``early_stop_patience`` of them."""
        best, patience = self.best, recipe.train.early_stop_patience
        stalled = best is not None and patience is not None and len(self.history) - best.epoch >= patience
        return stalled or len(self.history) >= recipe.train.epochs


def save_checkpoint(store: Store, state: TrainingState) -> None:
    """Write ``checkpoints/epoch-NNNN.safetensors``, then the pointer to it, then remove older ones."""
    optimizer = state.optimizer.state_dict()
    tensors = {f"net/{name}": value for name, value in state.net.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in state.best_weights.items()}
    for index, values in optimizer["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in values.items() if value is not None}
    rest = {
        "param_groups": optimizer["param_groups"],
        "schedule": state.schedule.state_dict(),
        "history": [record.model_dump() for record in state.history],
    }
    epoch = len(state.history)
    key = f"checkpoints/epoch-{epoch:04d}.safetensors"
    digest = _upload(store, key, tensors, {"state": json.dumps(rest)})
    store.put(POINTER_KEY, CheckpointPointer(key=key, sha256=digest, epoch=epoch).to_json())
    for found in list(store.list("checkpoints/epoch-")):
        if found.key != key:
            store.delete(found.key)


def load_checkpoint(store: Store, state: TrainingState) -> bool:
    """Bring ``state`` to the checkpoint in force; False, and nothing changed, where there is none.

    Raises IntegrityError for a damaged file and TrainingError for one that does not fit the network.
    """
    if store.stat(POINTER_KEY) is None:
        return False
    pointer = CheckpointPointer.from_json(store.get(POINTER_KEY), store.locate(POINTER_KEY))
    tensors, metadata = _download(store, pointer.key, pointer.sha256)
    parts: dict[str, dict[str, Tensor]] = {"net": {}, "best": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest_of_name = name.partition("/")
        parts[part][rest_of_name] = value
    rest = json.loads(metadata["state"])
    try:
        state.net.load_state_dict(parts["net"])
        state.optimizer.load_state_dict(
            {"state": _by_weight(parts["optimizer"]), "param_groups": rest["param_groups"]}
        )
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"checkpoint {store.locate(pointer.key)} does not fit the network ({error})",
            "a checkpoint of the same recipe",
            "use a new run name",
        ) from error
    state.schedule.load_state_dict(rest["schedule"])
    state.history[:] = [EpochRecord.model_validate(record) for record in rest["history"]]
    state.best_weights = parts["best"]
    log.info("resumed from %s after epoch %d", store.locate(pointer.key), pointer.epoch)
    return True


def save_history(store: Store, history: list[EpochRecord]) -> None:
    """Write ``metrics.jsonl`` whole: one line an epoch, so a resumed run never repeats a line."""
    store.put(METRICS_KEY, b"".join(record.canonical_json() + b"\n" for record in history))


def load_history(store: Store) -> list[EpochRecord]:
    """The epochs noted so far, none where the run has not finished its first."""
    if store.stat(METRICS_KEY) is None:
        return []
    return [EpochRecord.model_validate_json(line) for line in store.get(METRICS_KEY).splitlines()]


def save_weights(store: Store, state: TrainingState) -> None:
    """Write the best weights, float32, as ``weights/best.safetensors``."""
    best = state.best
    assert best is not None
    _upload(store, WEIGHTS_KEY, state.best_weights, {"epoch": str(best.epoch)})


def load_weights(store: Store, net: nn.Module) -> None:
    """Put a finished run's best weights into ``net``.

    Raises ObjectNotFoundError where the run has not finished, TrainingError where the weights do not fit.
    """
    tensors, _ = _download(store, WEIGHTS_KEY, None)
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise TrainingError(
            f"{store.locate(WEIGHTS_KEY)} does not fit the network ({error})", "weights of the same recipe"
        ) from error


def _by_weight(flat: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """``{"0/exp_avg": t}`` -> ``{0: {"exp_avg": t}}``, as optimisers keep it."""
    nested: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        index, _, slot = name.partition("/")
        nested.setdefault(int(index), {})[slot] = value
    return nested


def _upload(store: Store, key: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Write a safetensors object; returns its SHA-256."""
    with tempfile.TemporaryDirectory(prefix="sentinode-") as folder:
        path = Path(folder) / "state.safetensors"
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path, metadata)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        store.upload(path, key)
    return digest


def _download(store: Store, key: str, sha256: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="sentinode-") as folder:
        path = Path(folder) / "state.safetensors"
        store.download(key, path, sha256=sha256)
        try:
            with safe_open(path, framework="pt") as file:
                names = file.keys()
                return {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}
        except SafetensorError as error:
            raise TrainingError(
                f"{store.locate(key)} is not a safetensors file ({error})",
                "",
                "train the run anew under a new name",
            ) from error


def seed_everything(*parts: int) -> None:
    """Seed torch's generators by ``parts``, e.g. (seed, epoch, rank): different parts, unrelated numbers."""
    digest = hashlib.sha256(":".join(map(str, parts)).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little"))
