"""Scoring slides over Ray: actors that hold the model, a thread of the driver for each slide that is under way.

While there are more slides than actors, each slide has an actor of its own; the last ones share those that are
free. A slide is done when its record is written. A slide that fails is recorded with its reason, and the others go
on; the next run tries it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import ray

from sentinode.bundle.bundle import read_card
from sentinode.bundle.registry import resolve
from sentinode.distributed.score_actors import Pool, got, started
from sentinode.distributed.scoring_config import Compute, ScoringSettings
from sentinode.distributed.slide_worker import SlidePlan, lesion_point
from sentinode.distributed.tile_scorer import method_for
from sentinode.errors import EvaluationError, ManifestError, ObjectNotFoundError, SentinodeError, first_of
from sentinode.evaluation.slide_record import (
    SLIDES_NAME,
    SlideScore,
    read_slides_table,
    record_key,
    slides_table,
    stages_csv,
)
from sentinode.logs import ProgressCallback
from sentinode.slides.listing import SlideFile
from sentinode.storage import Store, open_store

log = logging.getLogger(__name__)

STAGES_NAME: Final = "stages.csv"
CHUNK_TILES: Final = 16
"""Tiles of one call to an actor: some seconds on a CPU, after which progress is told."""
_POLL_S: Final = 0.5
_READERS: Final = 16


def score_slides(
    slides: Sequence[SlideFile],
    registry: str,
    bundle: str,
    out: str,
    settings: ScoringSettings,
    compute: Compute,
    progress: ProgressCallback,
) -> tuple[SlideScore, ...]:
    """Score ``slides`` by the bundle that digest or alias ``bundle`` names; within a Ray session.

    What stands in ``out`` of the same model, settings and file is not done again. Returns the records of all, failed
    ones included, by name, and writes them as ``slides.parquet``, beside those of other slides that this model has
    scored there before, with ``stages.csv`` where slides are Camelyon17's. Raises ConfigError, BundleError and
    StoreError for what concerns all slides.
    """
    store = open_store(out)
    digest = resolve(open_store(registry), bundle)
    card = read_card(open_store(registry), digest)
    log.info(
        "%s scores %d slides, %s, at a stride of %d px (%.1f um)",
        f"bundle {card.name} {digest[:12]}",
        len(slides),
        "dense" if method_for(card, settings.stride_px, settings.method) == "dense" else "patch by patch",
        settings.stride_px,
        settings.stride_px * card.mpp_um_px,
    )
    lesion_point(card, settings)
    compute.check_tiles(settings.stride_px)
    settings.check_pooling(digest, settings.stride_px * card.mpp_um_px)
    records = _standing(store, slides, settings, digest)
    left = [slide for slide in slides if slide.name not in records]
    if records:
        log.info("%d slides are done already", len(records))
    with started(registry, digest, settings, out, compute, len(left)) as pool:
        for record in _run(pool, left, settings, digest, store, progress, len(records)):
            records[record.slide] = record
    ordered = tuple(records[slide.name] for slide in slides)
    all_there = _with_earlier(store, ordered, digest)
    # Stages are of the table that they stand beside.
    store.delete(STAGES_NAME)
    store.put(SLIDES_NAME, slides_table(all_there))
    stages, without = stages_csv(all_there)
    if stages is not None:
        store.put(STAGES_NAME, stages)
    if without:
        log.warning(
            "%d patients have no stage, for want of scored nodes: %s", len(without), ", ".join(without[:5])
        )
    return ordered


def _standing(
    store: Store, slides: Sequence[SlideFile], settings: ScoringSettings, digest: str
) -> dict[str, SlideScore]:
    """The records of slides that are done; also those of earlier versions name their settings, which the key proves."""

    def find(slide: SlideFile) -> SlideScore | None:
        key = record_key(slide.name)
        try:
            record = SlideScore.from_json(store.get(key), store.locate(key))
        except (ObjectNotFoundError, ManifestError):
            return None
        # A size of pixels that was given by hand for this slide is known from then on.
        by_hand = record.um_px_given and settings.mpp_um_px is None
        same = settings.model_copy(update={"mpp_um_px": record.um_px}) if by_hand else settings
        done = record.status == "done" and record.key == same.key(slide, digest)
        return record.model_copy(update={"settings": settings.shared}) if done else None

    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(find, slides))
    return {record.slide: record for record in found if record is not None}


def _with_earlier(store: Store, records: Sequence[SlideScore], digest: str) -> tuple[SlideScore, ...]:
    """``records``, and those that stand in the table for other slides that were scored in the same way; by name."""
    try:
        earlier = read_slides_table(store.get(SLIDES_NAME), store.locate(SLIDES_NAME))
    except (ObjectNotFoundError, EvaluationError):
        earlier = ()
    done = [record for record in records if record.status == "done"][:1]
    found = {
        record.slide: record
        for record in earlier
        if record.bundle == digest and all(map(record.is_comparable_with, done))
    }
    found.update({record.slide: record for record in records})
    otherwise = {record.slide for record in earlier} - found.keys()
    if otherwise:
        log.warning(
            "%d slides were scored by another model or other settings, and leave the table: %s",
            len(otherwise),
            first_of(sorted(otherwise)),
        )
    return tuple(found[name] for name in sorted(found))


@dataclass
class _Progress:
    """Slides done, and the share done of those under way. Threads write, the driver's reads."""

    done: float
    shares: dict[str, float]
    lock: threading.Lock

    def set(self, name: str, share: float) -> None:
        with self.lock:
            self.shares[name] = share

    def end(self, name: str) -> None:
        with self.lock:
            self.shares.pop(name, None)
            self.done += 1

    def now(self) -> tuple[float, str]:
        with self.lock:
            names = ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
            return self.done + sum(self.shares.values()), names


def _run(
    pool: Pool,
    slides: Sequence[SlideFile],
    settings: ScoringSettings,
    digest: str,
    store: Store,
    progress: ProgressCallback,
    before: int,
) -> Iterator[SlideScore]:
    """The records of ``slides`` as they are done."""
    stopped = threading.Event()
    told = _Progress(float(before), {}, threading.Lock())
    total = before + len(slides)

    def one(slide: SlideFile) -> SlideScore:
        left = max(1, total - int(told.done))
        with pool.some(max(1, pool.slots // left)) as actors:
            try:
                record = _score(actors, slide, lambda share: told.set(slide.name, share))
            except (SentinodeError, ray.exceptions.RayError) as error:
                if stopped.is_set():
                    raise
                record = _failed(slide, settings.key(slide, digest), digest, error)
                store.put(record_key(slide.name), record.to_json())
                log.warning("slide %s failed: %s", slide.name, record.reason.splitlines()[0])
        told.end(slide.name)
        return record

    with ThreadPoolExecutor(max(1, pool.slots), thread_name_prefix="slide") as threads:
        waiting = {threads.submit(one, slide) for slide in slides}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=_POLL_S, return_when="FIRST_COMPLETED")
                at, names = told.now()
                progress("score", at, total, note=names)
                yield from (future.result() for future in done)
        finally:
            if waiting:
                # Interrupted: slides under way did not fail, and leave no record.
                stopped.set()
                for future in waiting:
                    future.cancel()
                pool.kill()


def _score(actors: Sequence[Any], slide: SlideFile, tell: Callable[[float], None]) -> SlideScore:
    """One slide over ``actors``: the first one plans and finishes, all score."""
    began = time.time()
    tell(0.0)
    plan: SlidePlan = got(actors[0].plan.remote(slide))
    logits = np.full((plan.grid.rows, plan.grid.columns), np.nan, np.float32)
    chunks = iter([plan.tiles[at : at + CHUNK_TILES] for at in range(0, len(plan.tiles), CHUNK_TILES)])
    flying: dict[Any, tuple[Any, Sequence[Any]]] = {}

    def send(actor: Any) -> None:
        chunk = next(chunks, None)
        if chunk is not None:
            flying[actor.score.remote(slide, plan.grid, chunk)] = (actor, chunk)

    # Two calls at each actor: it need not wait for the driver.
    for actor in [*actors, *actors]:
        send(actor)
    done = 0
    while flying:
        (ready, *_), _ = ray.wait(list(flying))
        actor, chunk = flying.pop(ready)
        send(actor)
        for tile, part in zip(chunk, got(ready), strict=True):
            logits[tile.row : tile.row + tile.rows, tile.column : tile.column + tile.columns] = part
        done += len(chunk)
        tell(0.95 * done / len(plan.tiles))
    record: SlideScore = got(actors[0].finish.remote(slide, plan, logits, began))
    return record


def _failed(slide: SlideFile, key: str, digest: str, error: Exception) -> SlideScore:
    reason = str(error) if isinstance(error, SentinodeError) else _of_ray(error)
    return SlideScore(slide=slide.name, url=slide.url, status="failed", reason=reason, key=key, bundle=digest)


def _of_ray(error: Exception) -> str:
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"unexpected {type(error.cause).__name__}: {error.cause}"
    return (
        f"the process that scored it died, and again when tried anew ({type(error).__name__})\n"
        "  what to do: see whether its node had memory left; fewer --tile-cells need less"
    )
