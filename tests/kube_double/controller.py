"""What the DOUBLES of KubeRay's controllers share: a thread that reconciles what the double of the API server holds."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from kube_double.api_server import ApiServerDouble
from kube_double.refusals import Object

OPERATOR = "kuberay-operator"
"""Its field manager."""


class ControllerDouble(ABC):
    """``with`` it, whatever ``pending`` finds is given to ``reconcile``; a fault of it fails the test at the end."""

    def __init__(self, api: ApiServerDouble) -> None:
        self._api = api
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.faults: list[BaseException] = []

    @abstractmethod
    def pending(self) -> Object | None:
        """What is to be reconciled next; called with the API server's lock held."""

    @abstractmethod
    def reconcile(self, found: Object, /) -> None:
        """Bring it one step on."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._api.changed:
            self._api.changed.notify_all()
        self._thread.join(60)
        assert not self.faults

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                with self._api.changed:
                    found = self.pending()
                    if found is None:
                        self._api.changed.wait(0.5)
                        continue
                self.reconcile(found)
        except Exception as error:
            self.faults.append(error)
            raise
