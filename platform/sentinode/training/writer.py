"""What rank 0 writes while training goes on: one background thread, one job at a time, the newest first to count."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from sentinode.errors import StoreAccessError, StoreError

Job = Callable[[], object]

RETRY_EVERY_S = 2.0

log = logging.getLogger(__name__)


class BackgroundWriter:
    """Runs jobs in a thread. A job that waits is replaced by a newer one of its kind.

    A job that meets a store out of reach is tried again for ``patience_s``, or until a newer one takes its
    place; then its error is raised at the next ``submit`` or ``flush``. Jobs ``at_leisure`` are tried once.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._waiting: dict[str, tuple[Job, bool]] = {}
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, kind: str, job: Job, *, at_leisure: bool = False) -> None:
        """Have ``job`` done soon. Raises what a former job has failed with for good."""
        with self._changed:
            self._raise_failure()
            self._waiting[kind] = (job, at_leisure)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written. Raises what a job has failed with for good."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure or not (self._waiting or self._busy))
            self._raise_failure()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self.flush()
        except StoreError:
            if error is None:
                raise
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._thread.join()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._try(*job)
            except BaseException as error:  # noqa: BLE001 - raised again in the training thread
                with self._changed:
                    self._failure = error
                    self._waiting.clear()
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> tuple[str, Job, bool] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if not self._waiting:
                return None
            self._busy = True
            kind = next(iter(self._waiting))
            return (kind, *self._waiting.pop(kind))

    def _try(self, kind: str, job: Job, at_leisure: bool) -> None:
        began = time.monotonic()
        while True:
            try:
                job()
                return
            except StoreError as error:
                if at_leisure:
                    log.debug("not written: %s", error)
                    return
                hopeless = isinstance(error, StoreAccessError)
                if hopeless or time.monotonic() - began > self._patience_s:
                    raise
                log.warning("the %s could not be written; trying again: %s", kind, error)
            with self._changed:
                # Whatever comes meanwhile is not held up by the pause; a newer job of the kind takes over.
                self._changed.wait_for(lambda: kind in self._waiting, timeout=RETRY_EVERY_S)
                if kind in self._waiting:
                    job = self._waiting.pop(kind)[0]
