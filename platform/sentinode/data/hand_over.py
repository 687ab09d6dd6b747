"""Batches handed to their consumer through a few reused buffers, filled ahead of need by a background thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue

import torch

from sentinode.errors import ConfigError
from sentinode.schema import PATCH_PX


@dataclass(frozen=True)
class Batch:
    """The samples of one rank in one step."""

    images_BHWC: torch.Tensor
    """uint8 [B, 96, 96, 3]"""
    labels_B: torch.Tensor
    """int64: 0 negative, 1 tumour, -1 unlabelled or padding."""
    sample_ids_B: torch.Tensor
    """int64: place in the split's manifest order, -1 padding."""
    mask_B: torch.Tensor
    """bool: False marks padding."""


@dataclass
class Slot:
    """Host buffers of one batch. ``copied`` is set while a GPU may still read from them."""

    images_BHWC: torch.Tensor
    labels_B: torch.Tensor
    sample_ids_B: torch.Tensor
    mask_B: torch.Tensor
    copied: torch.cuda.Event | None = None
    on_device: Batch | None = field(default=None, repr=False)

    @classmethod
    def empty(cls, size: int, *, pinned: bool) -> Slot:
        return cls(
            torch.empty((size, PATCH_PX, PATCH_PX, 3), dtype=torch.uint8, pin_memory=pinned),
            torch.empty(size, dtype=torch.int64, pin_memory=pinned),
            torch.empty(size, dtype=torch.int64, pin_memory=pinned),
            torch.empty(size, dtype=torch.bool, pin_memory=pinned),
        )

    def batch(self) -> Batch:
        return Batch(self.images_BHWC, self.labels_B, self.sample_ids_B, self.mask_B)


Fill = Callable[[Iterator[Slot]], Iterator[Slot]]
"""Takes free slots and yields them filled, in order."""


class HandOver:
    """``ahead`` batches of ``size`` samples are made ready while the consumer works on the one before; with
    none, each is filled by the consumer itself, when it asks.
    """

    def __init__(self, size: int, ahead: int, device: torch.device) -> None:
        self._device, self._ahead = device, ahead
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._free: SimpleQueue[Slot | None] = SimpleQueue()
        self._ready: SimpleQueue[Slot | BaseException | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        for _ in range(ahead + 1):
            self._free.put(Slot.empty(size, pinned=self._stream is not None))

    def run(self, fill: Fill) -> Iterator[Batch]:
        """The filled batches, on the device. An error of ``fill`` is raised here, in its place."""
        return self._run_ahead(fill) if self._ahead else self._run_at_need(fill)

    def _run_at_need(self, fill: Fill) -> Iterator[Batch]:
        try:
            for slot in fill(self._free_slots()):
                self._send(slot)
                yield self._receive(slot)
                self._free.put(slot)
            self._check_whole()
        finally:
            self.stop()

    def _run_ahead(self, fill: Fill) -> Iterator[Batch]:
        self._thread = threading.Thread(target=self._produce, args=(fill,), name="batches", daemon=True)
        self._thread.start()
        try:
            while isinstance(slot := self._ready.get(), Slot):
                yield self._receive(slot)
                self._free.put(slot)
            if slot is not None:
                raise slot
        finally:
            self.stop()

    def stop(self) -> None:
        """End the background thread after its present batch; asking for more batches is an error then."""
        self._stopped = True
        self._free.put(None)
        if self._thread is not None:
            self._thread.join()

    def _produce(self, fill: Fill) -> None:
        try:
            for slot in fill(self._free_slots()):
                self._send(slot)
                self._ready.put(slot)
            self._check_whole()
        except BaseException as error:  # noqa: BLE001 - raised again in the consumer
            self._ready.put(error)
        else:
            self._ready.put(None)

    def _check_whole(self) -> None:
        if self._stopped:
            raise ConfigError(
                "the loader was closed, or began another epoch, within an epoch",
                "one epoch at a time, read to its end or left for good",
            )

    def _free_slots(self) -> Iterator[Slot]:
        while (slot := self._free.get()) is not None:
            if slot.copied is not None:
                slot.copied.synchronize()
            yield slot

    def _send(self, slot: Slot) -> None:
        if self._stream is None:
            return
        with torch.cuda.stream(self._stream):
            host = (slot.images_BHWC, slot.labels_B, slot.sample_ids_B, slot.mask_B)
            slot.on_device = Batch(*(t.to(self._device, non_blocking=True) for t in host))
            slot.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            slot.copied.record(self._stream)

    def _receive(self, slot: Slot) -> Batch:
        if slot.on_device is None or slot.copied is None:
            return slot.batch()
        batch, slot.on_device = slot.on_device, None
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(slot.copied)
        for tensor in (batch.images_BHWC, batch.labels_B, batch.sample_ids_B, batch.mask_B):
            tensor.record_stream(stream)
        return batch


class WaitClock:
    """Measures which share of a loop's time is spent waiting for its iterator."""

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._total_s = 0.0

    @property
    def fraction(self) -> float:
        """Of the latest loop, up to the latest item; 0 before the first."""
        return self._waited_s / self._total_s if self._total_s else 0.0

    def timed(self, items: Iterator[Batch]) -> Iterator[Batch]:
        """``items``, timed from the first request on."""
        self._waited_s = self._total_s = 0.0
        began = time.perf_counter()
        try:
            while True:
                asked = time.perf_counter()
                item = next(items, None)
                now = time.perf_counter()
                self._waited_s += now - asked
                self._total_s = now - began
                if item is None:
                    return
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
