"""``sentinode synthesize``: synthetic whole slides with metastases of known size, annotations and label files."""

from __future__ import annotations

import logging
from collections import Counter

from sentinode.cohort.synthetic.config import SynthesizeConfig
from sentinode.logs import progress_bars

log = logging.getLogger(__name__)
FLAGS = SynthesizeConfig


def run(config: SynthesizeConfig) -> int:
    """Make the slides and say what they are."""
    from sentinode.cohort.synthetic.write import synthesize

    with progress_bars() as progress:
        classes = synthesize(config, progress)
    counts = Counter(classes.values())
    log.info(
        "%d synthetic slides of %d x %d pixels at %s um/px in %s: %s",
        len(classes), config.width_px, config.height_px, config.um_px, config.out,
        ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())),
    )  # fmt: skip
    return 0
