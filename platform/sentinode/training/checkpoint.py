"""Checkpoints of a run in the store.

A checkpoint is one safetensors file: tensors, and the rest as JSON in its header; nothing is ever unpickled.
``checkpoints/last.json`` names the newest one and the best weights, with their checksums, and is written
after them, so a kill at any moment leaves the former checkpoint in force.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sentinode.errors import IntegrityError, TrainingError
from sentinode.storage import Store
from sentinode.training.metrics import EpochRecord
from sentinode.training.pointer import POINTER_KEY, CheckpointPointer, Custody, StoredTensors, read_pointer
from sentinode.training.state import PartialEpoch, TrainingState

METRICS_KEY = "metrics.jsonl"
WEIGHTS_KEY = "weights/best.safetensors"
"""Written when the run is over: its presence marks a finished run."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A copy of a state, which the training may go on from while it is written."""

    tensors: Mapping[str, Tensor]
    rest: str
    history: tuple[EpochRecord, ...]
    step: int
    best_epoch: int | None
    best_weights: Mapping[str, Tensor]

    @classmethod
    def of(cls, state: TrainingState) -> Snapshot:
        """Copy ``state`` to the host's memory."""
        optimizer = state.optimizer.state_dict()
        tensors = {f"net/{name}": value for name, value in state.net.state_dict().items()}
        if state.average is not None:
            tensors |= {f"average/{name}": value for name, value in state.average.state_dict().items()}
        for index, values in optimizer["state"].items():
            tensors |= {
                f"optimizer/{index}/{name}": value for name, value in values.items() if value is not None
            }
        rest = {
            "param_groups": optimizer["param_groups"],
            "history": [record.model_dump() for record in state.history],
            "partial": state.partial.model_dump(),
        }
        return cls(
            {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()},
            json.dumps(rest),
            tuple(state.history),
            state.partial.steps,
            state.best.epoch if state.best else None,
            state.best_weights,  # replaced, never changed
        )


def save_checkpoint(store: Store, snapshot: Snapshot, custody: Custody) -> None:
    """Write best weights where they are new, state, pointer and ``metrics.jsonl``, then remove what is superseded.

    Raises RunTakenOverError where another process has taken the run over; its checkpoint stays in force.
    """
    epoch, step = len(snapshot.history), snapshot.step
    # By the writer's name too: a late write of another process must not change what the pointer names.
    suffix = f"-{custody.writer}.safetensors"
    # What comes later may be another process's.
    found_before = list(store.list("checkpoints/"))
    former = read_pointer(store)
    best = former.best if former else None
    if snapshot.best_epoch is not None:
        best_key = f"checkpoints/best-{snapshot.best_epoch:04d}"
        if best is None or not best.key.startswith(f"{best_key}-"):
            best_key += suffix
            best = _upload(store, best_key, snapshot.best_weights, {"epoch": str(snapshot.best_epoch)})
    key = f"checkpoints/epoch-{epoch:04d}" + (f"-step-{step:06d}" if step else "") + suffix
    state = _upload(store, key, snapshot.tensors, {"state": snapshot.rest})
    custody.move(CheckpointPointer(state=state, best=best, epoch=epoch, step=step))
    save_history(store, snapshot.history)
    kept = {POINTER_KEY, state.key, best.key if best else ""}
    for found in found_before:
        if found.key not in kept:
            store.delete(found.key)


def load_checkpoint(store: Store, state: TrainingState) -> bool:
    """Bring ``state`` to the checkpoint in force; False, and nothing changed, where there is none.

    Raises TrainingError for a file that is damaged or does not fit the network.
    """
    pointer = read_pointer(store)
    if pointer is None:
        return False
    tensors, metadata = _download_known(store, pointer.state)
    parts: dict[str, dict[str, Tensor]] = {"net": {}, "average": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest_of_name = name.partition("/")
        parts[part][rest_of_name] = value
    rest = json.loads(metadata["state"])
    try:
        state.net.load_state_dict(parts["net"])
        if state.average is not None:
            state.average.load_state_dict(parts["average"])
        state.optimizer.load_state_dict(
            {"state": _by_weight(parts["optimizer"]), "param_groups": rest["param_groups"]}
        )
    except (RuntimeError, ValueError) as error:
        raise _unfit(store.locate(pointer.state.key), error) from error
    state.history[:] = _history(rest)
    state.partial = PartialEpoch.model_validate(rest["partial"])
    if pointer.best is not None:
        state.best_weights, _ = _download_known(store, pointer.best)
    log.info("resumed from %s: %d epochs and %d steps", store.url, len(state.history), state.partial.steps)
    return True


def save_history(store: Store, history: tuple[EpochRecord, ...]) -> None:
    """Write ``metrics.jsonl`` whole: one line an epoch, so a resumed run never repeats a line."""
    store.put(METRICS_KEY, b"".join(record.canonical_json() + b"\n" for record in history))


def load_history(store: Store) -> list[EpochRecord]:
    """The epochs noted so far, none where the run has not finished its first."""
    if store.stat(METRICS_KEY) is None:
        return []
    return [EpochRecord.model_validate_json(line) for line in store.get(METRICS_KEY).splitlines()]


def whole_history(store: Store) -> list[EpochRecord]:
    """As ``load_history``, with what a kill between a checkpoint and its history left out; that is written now."""
    history, pointer = load_history(store), read_pointer(store)
    if pointer is not None and pointer.epoch > len(history):
        _, metadata = _download_known(store, pointer.state)
        history = _history(json.loads(metadata["state"]))
        save_history(store, tuple(history))
    return history


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
        raise _unfit(store.locate(WEIGHTS_KEY), error) from error


def _unfit(where: str, error: Exception) -> TrainingError:
    """torch names every tensor in a line of its own."""
    return TrainingError(
        f"{where} does not fit the network: {str(error).splitlines()[-1].strip()}",
        "weights of the same recipe",
        "choose another run URL",
    )


def _history(rest: dict[str, Any]) -> list[EpochRecord]:
    return [EpochRecord.model_validate(record) for record in rest["history"]]


def _by_weight(flat: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """``{"0/exp_avg": t}`` -> ``{0: {"exp_avg": t}}``, as optimisers keep it."""
    nested: dict[int, dict[str, Tensor]] = {}
    for name, value in flat.items():
        index, _, slot = name.partition("/")
        nested.setdefault(int(index), {})[slot] = value
    return nested


def _upload(store: Store, key: str, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> StoredTensors:
    with tempfile.TemporaryDirectory(prefix="sentinode-") as folder:
        path = Path(folder) / "state.safetensors"
        save_file({name: value.detach().contiguous() for name, value in tensors.items()}, path, metadata)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        store.upload(path, key)
    return StoredTensors(key=key, sha256=digest)


def _download_known(store: Store, stored: StoredTensors) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        return _download(store, stored.key, stored.sha256)
    except IntegrityError as error:
        # Unlike a store out of reach, no restart would mend it.
        raise TrainingError(
            f"the checkpoint is damaged: {error.found}",
            error.expected,
            "restore the file, or choose another run URL",
        ) from error


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
