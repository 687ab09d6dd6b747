"""Several data sets as one: corrections beside what a model was trained on, PCam beside one's own slides."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from sentinode.config import canonical_json
from sentinode.data.audit import AuditReport, audit, check_leaks
from sentinode.data.cache import ShardCache
from sentinode.data.contradictions import find_contradicted
from sentinode.data.manifest import MANIFEST_NAME, Dropped, Manifest, ShardRecord, SplitSummary, load_manifest
from sentinode.data.repeats import find_repeated
from sentinode.data.trim import trim_shard
from sentinode.errors import ConfigError, IntegrityError, LabelConflictError, LeakError, ObjectNotFoundError
from sentinode.schema import Split
from sentinode.storage import Store, open_store

JOINED = "joined"
_TOLD = {
    "conflicting": "may contradict a later data set, which labels their place otherwise",
    "duplicates": "stand in an earlier data set too",
}
"""Why patches are left out, by the fields of Dropped."""
_RULES = 4
"""Raised when the same data sets would be joined to another one."""
LeftOut = Mapping[str, Mapping[str, Sequence[int]]]
"""Why (as ``_TOLD``) -> shard -> its rows that are not taken."""
UNCHECKED = "manifest.unchecked.json"
REMEDY = "leave it out of one of the data sets, e.g. the corrections of slides that stand in test or valid"


def join(urls: Sequence[str], dataset: str, out: str, progress: Callable[[int, int], None]) -> Manifest:
    """Copy the shards of the data sets at ``urls`` to ``out``, as the data set ``dataset``; splits stay what they are.

    Where a later data set labels a place on a slide otherwise, the patches of the earlier ones that it may contradict
    are left out, and counted, as are patches that an earlier data set holds in the same split. The manifest is written
    last, once no patch, slide or patient stands in two splits and no patch has two labels. A join that was killed goes
    on, and one that is there already is left as it is.
    ``progress``: shards done, and of all.
    Raises ConfigError where the data sets do not go together or ``out`` holds another one, LeakError,
    LabelConflictError, StoreError.
    """
    loaded = [load_manifest(url) for url in urls]
    manifests = [manifest for manifest, _ in loaded]
    _check(manifests)
    digest = hashlib.sha256(
        canonical_json([_RULES, dataset, *(one.digest() for one in manifests)])
    ).hexdigest()
    store = open_store(out)
    standing = _standing(store, digest)
    if standing is not None:
        return standing
    contradicted = find_contradicted(loaded)
    left_out = {"conflicting": contradicted, "duplicates": find_repeated(loaded, contradicted)}
    taken = _copy(loaded, left_out, store, progress)
    joined = _joined(manifests, taken, dataset, digest)
    store.put(UNCHECKED, joined.to_json())
    try:
        report = audit([store.locate(UNCHECKED)], near_duplicates=False)
        check_leaks(report, REMEDY)
        _check_labels(report)
    except (LeakError, LabelConflictError, IntegrityError):  # and not what the store may do better next time
        for shard in joined.shards:
            store.delete(shard.name)
        raise
    finally:
        store.delete(UNCHECKED)
    joined = joined.model_copy(update={"splits": _with_slides(joined, report)})
    store.put(MANIFEST_NAME, joined.to_json())
    return joined


def _check(manifests: Sequence[Manifest]) -> None:
    if len(manifests) < 2:
        raise ConfigError("one data set is nothing to join", "two or more")
    first = manifests[0]
    for other in manifests[1:]:
        for field in ("patch_px", "mpp_um_px", "class_names"):
            here, there = getattr(first, field), getattr(other, field)
            if here != there:
                raise ConfigError(
                    f"{field} is {here} in {first.dataset} and {there} in {other.dataset}",
                    "data sets of the same patches",
                )
    names = [shard.name for manifest in manifests for shard in manifest.shards]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"two of the data sets have a shard {twice[0]}",
            "data sets of different names (--dataset of ingest)",
            "leave out the one that is given twice, or ingest it again under another name",
        )


def _standing(store: Store, digest: str) -> Manifest | None:
    try:
        manifest = Manifest.from_json(store.get(MANIFEST_NAME), store.locate(MANIFEST_NAME))
    except ObjectNotFoundError:
        return None
    if manifest.recipe_digest == digest:
        return manifest
    raise ConfigError(
        f"{store.url} holds the data set {manifest.dataset}, made of something else",
        "an empty place, or the same data sets in the same order",
        "choose another --out",
    )


def _copy(
    loaded: Sequence[tuple[Manifest, Store]],
    left_out: LeftOut,
    store: Store,
    progress: Callable[[int, int], None],
) -> list[Manifest]:
    """Shards without what is ``left_out``; the manifests of what was taken."""
    total, done = sum(len(manifest.shards) for manifest, _ in loaded), 0
    taken = []
    for manifest, source in loaded:
        cache = ShardCache(source)
        shards: list[ShardRecord] = []
        for shard in manifest.shards:
            rows = [row for some in left_out.values() for row in some.get(shard.name, ())]
            if len(rows) < shard.samples:
                shards.append(_copy_shard(shard, cache, rows, store))
            done += 1
            progress(done, total)
        taken.append(_less(manifest, shards, left_out))
    return taken


def _copy_shard(shard: ShardRecord, cache: ShardCache, rows: Sequence[int], store: Store) -> ShardRecord:
    there = store.stat(shard.name)
    if rows:
        whole, shard = trim_shard(shard, cache, rows)
        store.put(shard.name, whole)
    # Copies in a folder are looked at once more, by their checksums, when the splits are compared. Of those in S3 the
    # node cache has the source's; there an upload is whole or is not there, and its name holds a digest of its content.
    elif there is None or there.size_bytes != shard.size_bytes:
        with cache.lease(shard):
            store.upload(cache.path(shard), shard.name)
    return shard


def _less(manifest: Manifest, shards: Sequence[ShardRecord], left_out: LeftOut) -> Manifest:
    """The manifest where only ``shards`` are left."""
    counts_of = {
        why: sum(len(rows.get(shard.name, ())) for shard in manifest.shards) for why, rows in left_out.items()
    }
    if not any(counts_of.values()):
        return manifest
    splits = {}
    for split, summary in manifest.splits.items():
        mine = [shard for shard in shards if shard.split is split]
        if mine:
            samples = sum(shard.samples for shard in mine)
            counts = tuple(sum(shard.class_counts[label] for shard in mine) for label in (0, 1))
            splits[split] = summary.model_copy(update={"samples": samples, "class_counts": counts})
    dropped = {why: getattr(manifest.dropped, why) + count for why, count in counts_of.items()}
    told = (
        f"{count} patches of {manifest.dataset} {_TOLD[why]}: left out"
        for why, count in counts_of.items()
        if count
    )
    return manifest.model_copy(
        update={
            "splits": splits,
            "dropped": manifest.dropped.model_copy(update=dropped),
            "warnings": (*told, *manifest.warnings),
            "shards": tuple(shards),
        }
    )


def _joined(manifests: Sequence[Manifest], taken: Sequence[Manifest], dataset: str, digest: str) -> Manifest:
    """The manifest over what was ``taken`` of the data sets."""
    dropped = [manifest.dropped.model_dump() for manifest in taken]
    parts = ", ".join(f"{one.dataset} ({one.source}), version {one.digest()[:12]}" for one in manifests)
    return manifests[0].model_copy(
        update={
            "dataset": dataset,
            "source": JOINED,
            "slides_known": all(manifest.slides_known for manifest in taken),
            "splits": _splits(taken),
            "dropped": Dropped(**{name: sum(one[name] for one in dropped) for name in dropped[0]}),
            "flagged": {k: why for manifest in taken for k, why in manifest.flagged.items()},
            "warnings": (f"joined of {parts}", *(w for manifest in taken for w in manifest.warnings)),
            "recipe_digest": digest,
            "shards": tuple(shard for manifest in taken for shard in manifest.shards),
        }
    )


def _splits(manifests: Sequence[Manifest]) -> dict[Split, SplitSummary]:
    splits: dict[Split, SplitSummary] = {}
    for split, part in ((split, part) for one in manifests for split, part in one.splits.items()):
        before = splits.get(split)
        if before is not None:
            counts = (
                before.class_counts[0] + part.class_counts[0],
                before.class_counts[1] + part.class_counts[1],
            )
            samples = before.samples + part.samples
            part = before.model_copy(update={"samples": samples, "class_counts": counts})
        splits[split] = part
    return splits


def _with_slides(joined: Manifest, report: AuditReport) -> dict[Split, SplitSummary]:
    slides = {part.split: part.slides for part in report.parts}
    return {
        split: part.model_copy(update={"slides": slides[split] if joined.slides_known else None})
        for split, part in joined.splits.items()
    }


def _check_labels(report: AuditReport) -> None:
    for overlap in report.overlaps:
        if overlap.kind == "conflicting label":
            raise LabelConflictError(
                f"{overlap.count} patches have two labels, such as {', '.join(overlap.examples[:3])}",
                "one label for each patch",
                "leave the data set out whose labels are older, or correct them there",
            )
