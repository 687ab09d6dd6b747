"""``sentinode verify``: re-read a data set and name each fault."""

from __future__ import annotations

import logging

from tyro.conf import Positional

from sentinode.config import Frozen
from sentinode.data.ingest.verify import verify_manifest
from sentinode.logs import progress_bars
from sentinode.storage import StoreUrl

log = logging.getLogger(__name__)


class VerifyConfig(Frozen):
    """Re-read every shard of a data set and compare it with its manifest."""

    manifest: Positional[StoreUrl]
    """URL of the manifest, or of the folder that holds it."""


FLAGS = VerifyConfig


def run(config: VerifyConfig) -> int:
    """Exit code 0 when the data set is whole, 1 when it has a fault; each is logged."""
    with progress_bars() as progress:
        faults = verify_manifest(config.manifest, progress)
    for fault in faults:
        log.error("%s", fault)
    log.info("%s: %s", config.manifest, f"{len(faults)} faults" if faults else "whole, no fault found")
    return 1 if faults else 0
