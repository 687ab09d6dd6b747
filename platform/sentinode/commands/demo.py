"""``sentinode demo``: the whole way on one machine, from a folder of patches to served verdicts."""

from __future__ import annotations

import logging
import os
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import Field

from sentinode.commands.demo_steps import Demo
from sentinode.config import Frozen
from sentinode.data.ingest.config import SYNTHETIC
from sentinode.distributed.cluster import ray_session
from sentinode.logs import progress_bars
from sentinode.storage.embedded import EmbeddedStore

log = logging.getLogger(__name__)


class DemoCommand(Frozen):
    """Ingest, train, evaluate, seal and serve on this machine, with a local Ray and a local S3 server."""

    source: str = SYNTHETIC
    """Folder of patches in any layout that ingest knows, or `synthetic`."""
    out: Path = Path("demo-out")
    """Where the report, the run, the bundle and the manifest are left."""
    patches: int = Field(default=6000, ge=200)
    """Synthetic patches to make."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the training patches; by default as many as keep the demo short."""
    workers: int = Field(default=2, ge=1)
    """DDP workers."""
    requests: int = Field(default=512, ge=1)
    """Patches to send over HTTP, at most."""
    on_conflict: Literal["error", "drop"] = "error"
    """What to do when the same pixels carry two labels: error, or drop."""
    max_bad: int = Field(default=0, ge=0)
    """Number of unreadable images to tolerate."""
    open_report: bool = False
    """Show the report in a browser at the end."""


FLAGS = DemoCommand


def run(config: DemoCommand) -> int:
    """Run the demo; its last lines are a table of figures and places."""
    with embedded_store() as url, ray_session("local", config.workers), progress_bars() as progress:
        demo = Demo(
            source=config.source,
            patches=config.patches,
            epochs=config.epochs,
            workers=config.workers,
            requests=config.requests,
            on_conflict=config.on_conflict,
            max_bad=config.max_bad,
            url=url,
            out=config.out.absolute(),
            progress=progress,
        )
        demo.run()
    demo.print_table()
    if config.open_report:
        webbrowser.open(demo.report_path.as_uri())
    return 0


@contextmanager
def embedded_store() -> Iterator[str]:
    """A local S3 server with an empty bucket; the environment points to it within the ``with``."""
    with EmbeddedStore("sentinode-demo") as store:
        before = {name: os.environ.get(name) for name in store.environment}
        os.environ.update(store.environment)
        try:
            log.info("started a local S3 server at %s", store.endpoint_url)
            yield store.url
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
