"""``sentinode score``: whole slides become heat maps, lesions and slide scores."""

from __future__ import annotations

import logging

from sentinode.commands.slides_input import load_slide_model
from sentinode.config import Frozen
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.scoring import score_slides
from sentinode.distributed.scoring_config import Compute, PooledSettings, ScoringSettings
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore
from sentinode.logs import progress_bars
from sentinode.schema import RESEARCH_USE_ONLY
from sentinode.slides.listing import list_slides
from sentinode.storage import StoreUrl, join_url

log = logging.getLogger(__name__)
SHOWN_FAILURES = 10


class ScoreCommand(ScoringSettings, Compute):
    """Score one slide, or all below a folder or bucket, by a sealed bundle: heat map, lesions, slide score.

    Give the command again and only what is missing, failed or changed is scored.
    """

    slides: StoreUrl
    """A slide, or the folder or s3://bucket/prefix below which slides lie. S3 is read by ranges."""
    registry: StoreUrl
    """URL of the registry: s3://bucket/prefix or a folder."""
    bundle: str = "candidate"
    """Digest or alias of the bundle."""
    out: StoreUrl
    """Where the results go: s3://bucket/prefix or a folder."""
    include: str = "*"
    """Pattern of keys to be scored below the folder, such as 'test_*.tif'."""
    slide_model: StoreUrl | None = None
    """URL of what sentinode screen fitted on validation slides; it pools the cells in place of --pooling."""
    ray_address: str | None = None
    """Cluster to join; by default RAY_ADDRESS, else a local Ray is started."""


FLAGS = ScoreCommand


def run(config: ScoreCommand) -> int:
    """Score, and say what was found; 1 where slides failed."""
    config.check_tiles(config.stride_px)
    slides = list_slides(config.slides, config.include)
    settings = _settings(config)
    compute = Compute.model_validate(_part(config, Compute))
    with ray_session(config.ray_address), progress_bars() as progress:
        records = score_slides(
            slides, config.registry, config.bundle, config.out, settings, compute, progress
        )
    for line in describe(records):
        log.info("%s", line)
    log.info("results: %s; table: %s", config.out, join_url(config.out, SLIDES_NAME))
    log.info("what to read first: sentinode worklist %s --registry %s", config.out, config.registry)
    log.info("%s", RESEARCH_USE_ONLY)
    return int(any(record.status == "failed" for record in records))


def _settings(config: ScoreCommand) -> ScoringSettings:
    given = _part(config, ScoringSettings)
    if config.slide_model is None:
        return ScoringSettings.model_validate(given)
    return PooledSettings.model_validate(given | {"slide_model": load_slide_model(config.slide_model)})


def _part(config: ScoreCommand, kind: type[Frozen]) -> dict[str, object]:
    return {name: getattr(config, name) for name in kind.model_fields}


def describe(records: tuple[SlideScore, ...]) -> list[str]:
    """What was found, in plain lines."""
    done = [record for record in records if record.status == "done"]
    failed = [record for record in records if record.status == "failed"]
    lines = [
        f"{record.slide}: score {record.score:.4f}, lesions: {record.lesions} ({record.node_class}), read at "
        f"{record.read_as}" + (f"; look at it: {', '.join(record.flags)}" if record.flags else "")
        for record in (done if len(done) <= SHOWN_FAILURES else [])
    ]
    lines.append(f"slides scored: {len(done)}, failed: {len(failed)}")
    lines += [f"failed: {record.slide}: {record.reason}" for record in failed[:SHOWN_FAILURES]]
    return lines
