"""Ingest over Ray tasks: scan, assemble, write shards; resumable, and visible only when whole.

Both passes cut their work into pieces whose outcome is a small record under ``_work/`` in the target store. A
run that was killed finds the records of finished pieces and goes on with the others; what had bad images is
read again, since these may have been mended. The manifest is written last, then ``_work/`` goes. Pixels of a
small data set are read once: they stay in Ray's object store between the passes.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import numpy.typing as npt
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sentinode.cohort.corrected import corrected_patches
from sentinode.data.ingest.assemble import Assembly, Scan, assemble
from sentinode.data.ingest.build import ShardPlan, make_shard
from sentinode.data.ingest.config import SLIDES, IngestConfig
from sentinode.data.ingest.scan import CHUNK_PATCHES, ScanRecord, scan_chunk
from sentinode.data.manifest import MANIFEST_NAME, Manifest, ShardRecord
from sentinode.data.sources import Listing, Source, SourceItem
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.slide_samples import list_slides, sample_slides
from sentinode.distributed.tasks import Progress, finished, run_tasks
from sentinode.errors import (
    ConfigError,
    LabelConflictError,
    ObjectNotFoundError,
    PreconditionFailedError,
    SourceError,
)
from sentinode.schema import PATCH_BYTES, PATCH_PX
from sentinode.storage import Store, open_store

log = logging.getLogger(__name__)

WORK: Final = "_work/"
_SHARD_NAME = re.compile(r"shards/[a-z0-9_-]+-[0-9a-f]{8}-[a-z]+-\d{6}\.tar")
_REMEMBER_BYTES = 1 << 30
_REMEMBER_SHARE = 0.3
"""Of Ray's object store."""


def ingest(config: IngestConfig, progress: Progress) -> Manifest:
    """Make the data set that ``config`` describes; returns its manifest once that stands in the store.

    A data set of the same settings and input (names, sizes, labels, slides) is returned as it is. Raises
    ConfigError where another one stands there and ``overwrite`` is not set, or comes to stand there meanwhile,
    SourceError and its kinds for what is wrong with the source, StoreError where the store fails.
    """
    store = open_store(config.out)
    source: Source
    with ExitStack() as stack:
        if config.corrections is not None:
            # What pathologists corrected is for training; the valid and test slides stay what they are.
            config = config.model_copy(update={"valid_fraction": 0.0, "test_fraction": 0.0})
            source, listing = corrected_patches(config)
        elif config.kind == SLIDES:
            # Only by opening each slide is it known what patches there are.
            cohort = list_slides(config, progress)
            stack.enter_context(ray_session())
            source, listing = sample_slides(config, cohort, store, progress)
        else:
            source = config.open_source()
            stack.callback(source.close)  # listing unpacks, also where nothing is left to be done
            progress("list", 0, 1)
            listing = source.listing()
            progress("list", 1, 1)
        standing, replaced = _standing(config, listing, store)
        if standing is not None:
            log.info("%s is up to date; set overwrite to make it anew", store.locate(MANIFEST_NAME))
            return standing
        if config.overwrite:
            _delete(store, WORK)  # anew: files may have been mended in place, which no listing shows
        stack.enter_context(ray_session())
        try:
            manifest = _make(config, source, listing, store, progress)
        finally:
            _close_everywhere(source)
    _publish(store, manifest, replaced)
    _tidy(store, manifest)
    return manifest


def _standing(config: IngestConfig, listing: Listing, store: Store) -> tuple[Manifest | None, str | None]:
    """The finished data set at ``out`` if it is the one asked for, else None; and the etag of what stands there."""
    try:
        data, etag = store.get_with_etag(MANIFEST_NAME)
    except ObjectNotFoundError:
        return None, None
    if config.overwrite:
        return None, etag
    manifest = Manifest.from_json(data, store.locate(MANIFEST_NAME))
    if manifest.recipe_digest == config.recipe_digest(listing.digest()):
        return manifest, etag
    raise ConfigError(
        f"{store.url} holds {manifest.dataset} ({manifest.source}), made of other input or settings",
        "an empty place, or the same source and settings",
        "choose another --out, or replace it with --overwrite",
    )


def _publish(store: Store, manifest: Manifest, replaced: str | None) -> None:
    """Put the manifest where none stands, or over the one with the etag ``replaced``.

    The shards of an ingest that has ended there meanwhile are not this one's to remove, and this one's are gone by now:
    ConfigError, unless it made the same.
    """
    data = manifest.to_json()
    try:
        store.put(MANIFEST_NAME, data, if_none_match=replaced is None, if_match=replaced)
    except PreconditionFailedError as error:
        if store.get(MANIFEST_NAME) != data:
            raise ConfigError(
                f"another ingest has meanwhile written to {store.url}",
                "one ingest at a time for each --out",
                "choose another --out, or replace what stands there with --overwrite",
            ) from error


def _make(
    config: IngestConfig, source: Source, listing: Listing, store: Store, progress: Progress
) -> Manifest:
    scan, blocks = _scan(source, listing, store, progress)
    try:
        assembly = assemble(config, listing, scan)
    except LabelConflictError:
        _delete(store, WORK)  # an image put in the place of a contradicting one may have its size
        raise
    for warning in assembly.warnings():
        log.warning("%s", warning)
    try:
        shards = _write(config, source, assembly, blocks, store, progress)
    except SourceError:
        _delete(store, WORK)  # the source has changed: what was scanned is of no use any more
        raise
    return assembly.manifest(config, source.kind, shards)


def _scan(
    source: Source, listing: Listing, store: Store, progress: Progress
) -> tuple[Scan, dict[int, ray.ObjectRef]]:
    """First pass, in chunks. Pixels of a small data set stay in Ray's object store: chunk number to block."""
    total = len(listing)
    folder = f"{WORK}scan-{source.kind}-{listing.digest()[:16]}/"
    chunks = {
        f"{folder}{number:08d}.json": (number, range(start, min(start + CHUNK_PATCHES, total)))
        for number, start in enumerate(range(0, total, CHUNK_PATCHES))
    }
    before = {
        name: ScanRecord.from_json(store.get(name), store.locate(name))
        for name in finished(store, folder, chunks)
    }
    records = {name: record for name, record in before.items() if not record.bad}
    remember = total * PATCH_BYTES <= _remembered_bytes()
    calls = (
        (name, (source, listing.items(part), remember, store.url, name))
        for name, (_, part) in chunks.items()
        if name not in records
    )
    blocks = {}
    done = sum(len(chunks[name][1]) for name in records)
    progress("scan", done, total)
    for name, record, block in run_tasks(_scan_task, calls):
        number, part = chunks[name]
        records[name] = record
        if remember:
            blocks[number] = block
        done += len(part)
        progress("scan", done, total)
    return Scan.join(listing, [records[name] for name in chunks]), blocks


def _scan_task(
    source: Source, items: Sequence[SourceItem], remember: bool, url: str, name: str
) -> tuple[ScanRecord, npt.NDArray[np.uint8] | None]:
    block_NHWC = np.zeros((len(items), PATCH_PX, PATCH_PX, 3), np.uint8) if remember else None
    record = scan_chunk(source, items, block_NHWC)
    open_store(url).put(name, record.to_json())
    return record, block_NHWC


def _write(
    config: IngestConfig,
    source: Source,
    assembly: Assembly,
    blocks: dict[int, ray.ObjectRef],
    store: Store,
    progress: Progress,
) -> list[ShardRecord]:
    """Second pass, one task a shard."""
    folder = f"{WORK}shards-{assembly.version[:16]}/"
    cuts = {f"{folder}{PurePosixPath(cut.name).stem}.json": cut for cut in assembly.cuts(config)}
    records = {
        name: ShardRecord.model_validate_json(store.get(name)) for name in finished(store, folder, cuts)
    }
    calls = (
        (name, (source, assembly.plan(cut, config.encoding), blocks, store.url, name))
        for name, cut in cuts.items()
        if name not in records
    )
    done = sum(record.samples for record in records.values())
    progress("write", done, assembly.samples)
    for name, record, _ in run_tasks(_write_task, calls):
        records[name] = record
        done += record.samples
        progress("write", done, assembly.samples)
    return [records[name] for name in cuts]


def _write_task(
    source: Source, plan: ShardPlan, blocks: dict[int, ray.ObjectRef], url: str, name: str
) -> tuple[ShardRecord, None]:
    remembered = dict(zip(blocks, ray.get(list(blocks.values())), strict=True))
    buffer, record = make_shard(source, plan, remembered)
    store = open_store(url)
    with tempfile.TemporaryDirectory(prefix="sentinode-") as folder:
        path = Path(folder, "shard.tar")
        buffer.tofile(path)
        store.upload(path, plan.name)
    store.put(name, record.canonical_json())
    return record, None


def _remembered_bytes() -> float:
    """How many bytes of pixels may stay in memory between the passes."""
    object_store = float(ray.cluster_resources().get("object_store_memory", 0.0))
    return min(_REMEMBER_BYTES, _REMEMBER_SHARE * object_store)


def _close_everywhere(source: Source) -> None:
    """Let every node remove what the source unpacked there."""
    task = ray.remote(num_cpus=0)(type(source).close)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    strategies = [NodeAffinitySchedulingStrategy(node, soft=True) for node in nodes]
    ray.get([task.options(scheduling_strategy=s).remote(source) for s in strategies])


def _tidy(store: Store, manifest: Manifest) -> None:
    """Remove work records, and shards that an earlier or unfinished data set left here."""
    _delete(store, WORK)
    wanted = {shard.name for shard in manifest.shards}
    for info in list(store.list("shards/")):
        if _SHARD_NAME.fullmatch(info.key) and info.key not in wanted:
            store.delete(info.key)


def _delete(store: Store, prefix: str) -> None:
    for info in list(store.list(prefix)):
        store.delete(info.key)
