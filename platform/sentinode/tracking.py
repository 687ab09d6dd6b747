"""Experiment tracking by Weights & Biases: the only owner of wandb.

Tracking never stands in the way of training: whatever goes wrong here is logged once, and training goes on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def tracking_mode() -> Any:
    """``WANDB_MODE`` where it is set, else online with an API key and offline without one."""
    asked = os.environ.get("WANDB_MODE", "")
    return asked or ("online" if os.environ.get("WANDB_API_KEY") else "offline")


class Tracker:
    """One W&B run, for rank 0 only. Offline runs lie below ``folder`` and are sent by ``wandb sync``.

    ``run_id``: the same one continues the same run.
    """

    def __init__(
        self,
        name: str,
        run_id: str,
        config: Mapping[str, Any],
        folder: Path,
        project: str = "sentinode",
    ) -> None:
        self._run: Any = None
        mode = tracking_mode()
        if mode == "disabled":
            return
        try:
            import wandb
        except ImportError:
            log.info("wandb is not installed: the run is not tracked")
            return

        def start() -> None:
            folder.mkdir(parents=True, exist_ok=True)
            settings = wandb.Settings(silent=True, console="off", x_disable_stats=True, init_timeout=30)
            self._run = wandb.init(
                project=project,
                name=name,
                id=run_id,
                resume="allow",
                config=dict(config),
                dir=str(folder),
                mode=mode,
                settings=settings,
            )

        self._try("start", start)

    @property
    def active(self) -> bool:
        """Whether anything is tracked."""
        return self._run is not None

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Note ``metrics`` at ``step`` (the epoch)."""
        if self.active:
            self._try("log", lambda: self._run.log(dict(metrics), step=step))

    def finish(self) -> None:
        """Close the run and flush what it holds."""
        if self.active:
            self._try("finish", lambda: self._run.finish())
        self._run = None

    def _try(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a tracker's fault must not end hours of training
            log.warning("W&B failed to %s (%s): the run goes on untracked", what, error)
            self._run = None
