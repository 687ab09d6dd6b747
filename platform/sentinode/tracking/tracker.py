"""A run of Weights & Biases.

Tracking never stands in the way of training: whatever goes wrong here is logged once, and training goes on.

An offline run is a folder that ``wandb sync`` sends later, also from another machine. It must therefore need
nothing outside itself: charts travel as media files, and artefacts refer to objects in storage by URL (bytes that
W&B stages elsewhere would be missed by then). Nothing is written to the user's home.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sentinode.tracking.loggable import Artefact, Loggable, for_wandb, reference
from sentinode.tracking.mode import tracking_mode

FINISH_TIMEOUT_S = 120.0
"""How long the end of an online run may take to send what is left."""
INIT_TIMEOUT_S = 30.0
PROJECT = "sentinode"
"""Of W&B, where WANDB_PROJECT names no other."""

log = logging.getLogger(__name__)


class Tracker:
    """One W&B run, which lies below ``folder`` while it goes on; for rank 0 only.

    It is none, and every call does nothing, where W&B is disabled, not installed or could not begin.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run: Any = None
        self._home: Path | None = None
        self._failed: set[str] = set()
        self.is_sent = False
        """Whether W&B's server has, or will soon have, all that there is: then no file is left to keep."""

    @property
    def active(self) -> bool:
        """Whether anything is tracked."""
        return self._run is not None

    @contextmanager
    def run(
        self,
        name: str,
        run_id: str,
        config: Mapping[str, Any],
        *,
        group: str | None = None,
        job_type: str | None = None,
    ) -> Iterator[None]:
        """Track from here to the end of the block, in ``tracking_mode()``; what cannot begin online begins offline.

        ``run_id``: the same one continues the same run. ``config`` stays nested: W&B itself shows ``train.lr``.
        ``group`` and ``job_type``: under which W&B shows it beside others. The project is ``WANDB_PROJECT``, else
        sentinode.
        """
        with _away_from_home(self._folder):
            self._start(name, run_id, config, {"group": group, "job_type": job_type})
            try:
                yield
            except BaseException:
                self._finish(exit_code=1)
                raise
            self._finish()

    def attempt(self, what: str, action: Callable[[], object]) -> bool:
        """Do ``action``; whether that went well. Of failures to do ``what`` the first one is logged."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - a tracker's fault must not end hours of training
            if what not in self._failed:
                log.warning("W&B failed to %s (%s): training goes on", what, error)
            self._failed.add(what)
            return False
        return True

    def log(self, values: Mapping[str, Loggable], step: int) -> None:
        """Note ``values`` at ``step`` (the epoch)."""

        def send() -> None:
            ready = {key: for_wandb(self._run, key, value, step) for key, value in values.items()}
            self._run.log(ready, step=step, commit=True)

        self._tell("log", send)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Set figures of the run as a whole, by which runs are compared."""
        self._tell("summarise", lambda: self._run.summary.update(dict(values)))

    def log_input(self, artefact: Artefact) -> None:
        """Note that the run uses ``artefact``."""

        def send() -> None:
            # What run.use_artifact() does with a new artefact; but that one refuses to work offline.
            self._run._log_artifact(reference(artefact), is_user_created=True, use_after_commit=True)

        self._tell("note the input", send)

    def log_output(self, artefact: Artefact) -> None:
        """Note that the run has made ``artefact``."""
        self._tell("note the output", lambda: self._run.log_artifact(reference(artefact)))

    def files(self) -> Iterator[Path]:
        """What ``wandb sync`` needs of this run: records and media, without W&B's own debugging logs."""
        if self._home is not None and not self.is_sent:
            yield from self._home.glob("*.wandb")
            yield from (path for path in self._home.glob("files/**/*") if path.is_file())

    def _start(
        self, name: str, run_id: str, config: Mapping[str, Any], place: Mapping[str, str | None]
    ) -> None:
        mode = tracking_mode()
        if mode == "disabled":
            return
        try:
            import wandb
        except ImportError:
            log.info("wandb is not installed: the run is not tracked")
            return

        def begin(mode: Any) -> None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                group=place["group"],
                job_type=place["job_type"],
                name=name,
                id=run_id,
                resume="allow",
                config=dict(config),
                dir=str(self._folder),
                mode=mode,
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,  # the config names the commit; W&B would look at the working folder
                    init_timeout=INIT_TIMEOUT_S,
                    finish_timeout=FINISH_TIMEOUT_S,
                    finish_timeout_raises=True,
                ),
            )
            self._home = Path(self._run.dir).parent

        if not self.attempt(f"start {mode}", lambda: begin(mode)) and mode == "online":
            wandb.teardown()
            self.attempt("start offline", lambda: begin("offline"))
        self.is_sent = self.active and not self._run.offline

    def _finish(self, exit_code: int = 0) -> None:
        def end() -> None:
            import wandb

            self._run.finish(exit_code)
            wandb.teardown()

        if self.active and not self.attempt("finish", end):
            self.is_sent = False
        self._run = None

    def _tell(self, what: str, action: Callable[[], object]) -> None:
        if self.active:
            self.attempt(what, action)


@contextmanager
def _away_from_home(folder: Path) -> Iterator[None]:
    """W&B's staging areas lie below ``folder``, and it reports its own faults to nobody, unless asked otherwise."""
    wanted = {f"WANDB_{area}_DIR": str(folder / "staging") for area in ("CACHE", "DATA", "CONFIG")}
    wanted |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    ours = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
