"""``sentinode join``: several data sets become one, such as corrections beside what a model was trained on."""

from __future__ import annotations

import logging

from pydantic import Field
from tyro.conf import Positional

from sentinode.commands.ingest import describe
from sentinode.config import Frozen
from sentinode.data.join import join
from sentinode.logs import progress_bars
from sentinode.storage import StoreUrl

log = logging.getLogger(__name__)


class JoinConfig(Frozen):
    """Join data sets: each patch stays in its split, and what stands in two splits is refused.

    Where two data sets label a place on a slide differently, the later one counts: corrections come last.
    """

    manifests: Positional[tuple[StoreUrl, ...]] = Field(min_length=2)
    """URLs of the data sets (manifest, or the folder that holds it)."""
    dataset: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")
    """Name of the data set that they become."""
    out: StoreUrl
    """Where it goes: a folder, or s3://bucket/prefix. Shards are copied."""


FLAGS = JoinConfig


def run(config: JoinConfig) -> int:
    """Join and say what came of it."""
    with progress_bars() as progress:
        joined = join(
            config.manifests, config.dataset, config.out, lambda done, total: progress("copy", done, total)
        )
    # The first says what was joined, which is no news.
    for warning in joined.warnings[1:]:
        log.warning("%s", warning)
    for line in describe(joined):
        log.info("%s", line)
    return 0
