"""Candidates of all slides of a cohort over Ray, one task a slide; resumable, and kept for the next run.

The outcome of a slide is a record ``sampling/<slide>-<digest>.json`` beside the manifest, named by slide, annotation
and settings. It says where each candidate lies, and spares a later run the search for tissue.
"""

from __future__ import annotations

import logging
from typing import Final

from sentinode.cohort.choose import choose
from sentinode.cohort.folder import Cohort, CohortSlide, find_slides
from sentinode.cohort.heat import heat_of, nowhere
from sentinode.cohort.sample import SlideSample, sample_digest, sample_slide
from sentinode.cohort.source import SlideSource
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.data.sources import Listing
from sentinode.distributed.tasks import Progress, finished, run_tasks
from sentinode.errors import SourceError
from sentinode.storage import Store, absolute_url, open_store

log = logging.getLogger(__name__)

SAMPLING: Final = "sampling/"


def list_slides(config: IngestConfig, progress: Progress) -> Cohort:
    """The slides of ``config.source``; apart from sampling, since what is wrong here needs no Ray to be told.

    Raises SourceError for a folder without usable slides or with one that lacks its annotation; StoreError.
    """
    progress("list", 0, 1)
    cohort = find_slides(open_store(absolute_url(config.source)))
    progress("list", 1, 1)
    return cohort


def sample_slides(
    config: IngestConfig, cohort: Cohort, store: Store, progress: Progress
) -> tuple[SlideSource, Listing]:
    """The patches to take from the slides of ``cohort``. Needs a Ray session.

    Raises SourceError where too many slides cannot be read; StoreError.
    """
    slides = open_store(absolute_url(config.source))
    named = {_record_name(slides, slide, config.slides): slide for slide in cohort.slides}
    records = {
        name: SlideSample.from_json(store.get(name), store.locate(name))
        for name in finished(store, SAMPLING, named)
    }
    if records:
        log.info("%d of %d slides were sampled before and need not be again", len(records), len(named))
    calls = (
        (name, (slides.url, slide, config.slides, store.url, name))
        for name, slide in named.items()
        if name not in records
    )
    progress("slides", len(records), len(named))
    for name, record, _ in run_tasks(_sample_task, calls):
        records[name] = record
        progress("slides", len(records), len(named))
    probabilities = heat_of(open_store(config.scores)) if config.scores else nowhere
    listing = choose(cohort, [records[name] for name in named], config.slides, probabilities)
    return SlideSource(slides.url, config.slides.um_px), listing


def _record_name(slides: Store, slide: CohortSlide, config: SamplingConfig) -> str:
    annotation = slides.get(slide.annotation) if slide.annotation else b""
    return f"{SAMPLING}{slide.name}-{sample_digest(slide, annotation, config)[:16]}.json"


def _sample_task(
    root: str, slide: CohortSlide, config: SamplingConfig, url: str, name: str
) -> tuple[SlideSample, None]:
    try:
        record = sample_slide(open_store(root), slide, config)
    except SourceError as error:
        fault = f"{error.found}; {error.remedy}" if error.remedy else error.found
        # Not kept: a slide that is copied again keeps its size and name.
        return SlideSample(slide=slide.name, key=slide.key, patch_px=0, fault=fault), None
    open_store(url).put(name, record.to_json())
    return record, None
