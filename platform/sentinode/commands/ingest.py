"""``sentinode ingest``: a folder of labelled patches becomes shards and a manifest."""

from __future__ import annotations

import logging

from sentinode.data.ingest.config import IngestConfig
from sentinode.data.manifest import Manifest
from sentinode.distributed.ingest import ingest
from sentinode.logs import progress_bars

log = logging.getLogger(__name__)
FLAGS = IngestConfig


def run(config: IngestConfig) -> int:
    """Ingest and say what was taken and what was left out."""
    with progress_bars() as progress:
        manifest = ingest(config, progress)
    for line in describe(manifest):
        log.info("%s", line)
    return 0


def describe(manifest: Manifest) -> list[str]:
    """The data set in a few plain lines."""
    lines = [f"data set {manifest.dataset} ({manifest.source} layout), version {manifest.digest()[:12]}"]
    for split, summary in manifest.splits.items():
        slides = f", {summary.slides} slides" if summary.slides else ""
        negative, positive = summary.class_counts
        classes = f" ({negative} negative, {positive} tumour)" if negative + positive else ""
        lines.append(f"{split}: {summary.samples} patches{classes}{slides}; {summary.origin}")
    dropped = {name: count for name, count in manifest.dropped.model_dump().items() if count}
    if dropped:
        lines.append(
            "left out: " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in dropped.items())
        )
    if not manifest.slides_known:
        lines.append("slides are unknown: patches of one slide may stand in several splits")
    return lines
