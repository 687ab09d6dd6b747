"""The pointer to the checkpoint in force, and who may move it: the process that has begun last, nobody before it.

A node that is cut off does not know that its run goes on elsewhere. When its link comes back, a write that was under
way would put an old checkpoint in force. So each process that begins writes its own name into the pointer, and every
move is conditional on the version that it knows: a fencing token (Kleppmann, Designing Data-Intensive Applications,
2017, chapter 8).

A command may be given twice, and Ray starts the processes of each again when they fail. So each command leaves its
name in the run first, and processes that an earlier one starts after that are refused.
"""

from __future__ import annotations

import uuid

from pydantic import Field

from sentinode.config import Frozen, Record
from sentinode.errors import PreconditionFailedError, RunTakenOverError, TrainingError
from sentinode.storage import Store

POINTER_KEY = "checkpoints/last.json"
DRIVER_KEY = "driver.json"


class StoredTensors(Frozen):
    """A safetensors object and its checksum."""

    key: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class CheckpointPointer(Record):
    """Which checkpoint is in force."""

    schema_version: int = 2
    state: StoredTensors
    """Weights, average, optimiser, history, position."""
    best: StoredTensors | None
    """Weights of the best epoch so far."""
    epoch: int
    """Epochs done."""
    step: int
    """Optimiser steps done in the next epoch."""
    writer: str = ""
    """The process that may write the next one."""


class Driver(Record):
    """``driver.json``: who has begun last to train the run."""

    name: str


def begin_driving(store: Store) -> str:
    """Let nobody that was begun before start processes on the run in ``store`` any more; the name to give one's own."""
    driver = Driver(name=_new_name())
    store.put(DRIVER_KEY, driver.to_json())
    return driver.name


def read_pointer(store: Store) -> CheckpointPointer | None:
    """The pointer of the run in ``store``, None where no state was saved yet."""
    found = _with_etag(store)
    return None if found is None else found[0]


class Custody:
    """This process's right to move the pointer of the run in ``store``, which whoever takes it later ends."""

    def __init__(self, store: Store, driver: str = "") -> None:
        """``driver``: who started this process, as ``begin_driving`` named it; "" for nobody that needs one."""
        self._store, self._driver = store, driver
        self.writer = _new_name()
        """Name of this process, which no other has."""
        self._etag: str | None = None

    def take(self) -> None:
        """Take the run over: from now on nobody who began before can move its pointer.

        Raises TrainingError where another driver has begun since this process's.
        """
        while True:
            found = _with_etag(self._store)
            self._check_driver()  # of the one that begins after this, the processes take over later
            if found is None:
                break
            pointer, etag = found
            try:
                self._put(pointer, etag)
            except PreconditionFailedError:
                continue
            return
        self._etag = None

    def move(self, pointer: CheckpointPointer) -> None:
        """Put ``pointer`` in force. Raises RunTakenOverError where another process has taken the run over."""
        try:
            self._put(pointer, self._etag)
        except PreconditionFailedError as error:
            found = _with_etag(self._store)
            # A former try of ours may have been written although its answer was lost.
            if found is None or found[0].writer != self.writer:
                raise RunTakenOverError(
                    f"another process goes on with {self._store.url}",
                    "one process that trains a run",
                    "nothing where this node was cut off and the run goes on elsewhere; else stop one of the two",
                ) from error
            self._put(pointer, found[1])

    def _check_driver(self) -> None:
        if not self._driver:
            return
        last = Driver.from_json(self._store.get(DRIVER_KEY), self._store.locate(DRIVER_KEY))
        if last.name != self._driver:
            raise TrainingError(
                f"the training of {self._store.url} was begun once more after this one",
                "one command that trains a run",
                "follow the later one, or stop it and give this command again",
            )

    def _put(self, pointer: CheckpointPointer, etag: str | None) -> None:
        data = pointer.model_copy(update={"writer": self.writer}).to_json()
        self._etag = self._store.put(POINTER_KEY, data, if_none_match=etag is None, if_match=etag)


def _new_name() -> str:
    return uuid.uuid4().hex[:12]


def _with_etag(store: Store) -> tuple[CheckpointPointer, str] | None:
    if store.stat(POINTER_KEY) is None:
        return None
    data, etag = store.get_with_etag(POINTER_KEY)
    return CheckpointPointer.from_json(data, store.locate(POINTER_KEY)), etag
