"""Re-read a data set and name every fault: shards against the manifest, samples against their keys."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePosixPath
from typing import Final

import numpy as np
from PIL import Image

from sentinode.data.ingest.scan import key_of
from sentinode.data.manifest import ArrayLayout, Manifest, ShardRecord, load_manifest
from sentinode.data.shards import BLOCK, NPY_HEADER_BYTES, npy_header
from sentinode.data.sources.base import Pixels
from sentinode.errors import ObjectNotFoundError, StoreError
from sentinode.schema import PATCH_BYTES, PATCH_PX, Encoding, Split
from sentinode.storage import Store

FAULTS_SHOWN: Final = 20
"""Faults named of one shard; more are counted."""

_SHAPE = (PATCH_PX, PATCH_PX, 3)
_KEY = re.compile(r"[0-9a-f]{40}")
_THREADS = 4


@dataclass(frozen=True)
class Fault:
    """What is wrong, and where: a shard's name, or ``manifest.json``."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass
class ShardReport:
    """The faults of one shard, and what has to be compared with other shards."""

    name: str
    faults: list[Fault] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    groups: dict[str, set[str]] = field(default_factory=lambda: {"slide": set(), "patient": set()})
    """The slides and patients that its samples name."""

    def fault(self, what: str) -> None:
        """Note a fault; after FAULTS_SHOWN the last one says that there are more."""
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(Fault(self.name, what))
        elif len(self.faults) == FAULTS_SHOWN:
            self.faults.append(Fault(self.name, "and more faults, not listed"))


def verify_manifest(url: str, progress: Callable[[str, int, int], None] | None = None) -> list[Fault]:
    """Read every shard of the data set at ``url`` (its manifest or folder); all faults, none if it is whole.

    Raises ManifestError or StoreError where the manifest itself cannot be read.
    """
    manifest, store = load_manifest(url)
    faults = list(_manifest_faults(manifest))
    total = sum(shard.samples for shard in manifest.shards)
    done = 0
    reports: list[ShardReport] = []
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for record, report in zip(
            manifest.shards, pool.map(lambda shard: _read_shard(store, shard), manifest.shards), strict=True
        ):
            reports.append(report)
            faults += report.faults
            done += record.samples
            if progress:
                progress("verify", done, total)
    return faults + list(_cross_faults(manifest, reports))


def verify_shard(record: ShardRecord, data: bytes) -> ShardReport:
    """Compare the bytes of a shard with its record, and every sample with its key."""
    report = ShardReport(record.name)
    if len(data) != record.size_bytes:
        report.fault(f"{len(data)} bytes, {record.size_bytes} in the manifest")
    if hashlib.sha256(data).hexdigest() != record.sha256:
        report.fault("its SHA-256 is not the manifest's")
    samples = _read_samples(data, report)
    if any(data[-2 * BLOCK :]) or len(data) < 2 * BLOCK:
        report.fault("cut short: the tar has no end mark")
    if len(samples) != record.samples:
        report.fault(f"{len(samples)} samples, {record.samples} in the manifest")
    counts = [0, 0]
    for i, (key, members) in enumerate(samples.items()):
        report.keys.append(key)
        label = _check_sample(record, key, members, report)
        if label is not None:
            counts[label] += 1
        if record.layout and _starts(members) != _promised_starts(record.layout, i):
            report.fault(f"sample {key} does not lie where the layout says")
    if tuple(counts) != record.class_counts:
        report.fault(f"class counts {tuple(counts)}, {record.class_counts} in the manifest")
    if (record.layout is None) != (record.encoding is not Encoding.NPY):
        report.fault(f"encoding {record.encoding} {'without' if record.layout is None else 'with'} a layout")
    return report


Members = dict[str, tuple[int, bytes]]
"""Suffix to (offset of the content in the shard, content)."""


def _read_shard(store: Store, record: ShardRecord) -> ShardReport:
    try:
        return verify_shard(record, store.get(record.name))
    except ObjectNotFoundError:
        return ShardReport(record.name, [Fault(record.name, "missing")])
    except StoreError as error:
        return ShardReport(record.name, [Fault(record.name, f"cannot be read: {error.found}")])


def _read_samples(data: bytes, report: ShardReport) -> dict[str, Members]:
    samples: dict[str, Members] = {}
    try:
        with tarfile.open(fileobj=BytesIO(data), mode="r:") as tar:
            for info in tar:
                key, _, suffix = info.name.partition(".")
                content = data[info.offset_data : info.offset_data + info.size]
                if not info.isreg() or len(content) != info.size:
                    report.fault(f"member {info.name} is cut short or no file")
                elif suffix in samples.setdefault(key, {}):
                    report.fault(f"member {info.name} stands twice")
                else:
                    samples[key][suffix] = (info.offset_data, content)
    except tarfile.TarError as error:
        report.fault(f"damaged tar: {error}")
    return samples


def _check_sample(record: ShardRecord, key: str, members: Members, report: ShardReport) -> int | None:
    """Note the faults of one sample; returns its label."""
    wanted = [record.encoding.value, *(["cls"] if record.split is not Split.UNLABELLED else []), "json"]
    if list(members) != wanted:
        report.fault(f"sample {key} has the members {', '.join(members)}, expected {', '.join(wanted)}")
        return None
    pixels = _decode(record.encoding, members[record.encoding.value][1])
    if pixels is None or pixels.shape != _SHAPE:
        report.fault(f"the pixels of {key} cannot be decoded to uint8 {list(_SHAPE)}")
    elif not _KEY.fullmatch(key) or (record.encoding is not Encoding.JPEG and key_of(pixels) != key):
        report.fault(f"the pixels of {key} have another SHA-1")
    try:
        described = json.loads(members["json"][1])
        named = {"slide": described["slide"], "patient": described.get("patient")}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        report.fault(f"{key}.json is no JSON object with a slide")
    else:
        for kind, name in named.items():
            if name is not None:
                report.groups[kind].add(str(name))
    if "cls" not in members:
        return None
    if members["cls"][1] not in (b"0", b"1"):
        report.fault(f"{key}.cls is {members['cls'][1][:8]!r}, expected 0 or 1")
        return None
    return int(members["cls"][1])


def _decode(encoding: Encoding, data: bytes) -> Pixels | None:
    if encoding is Encoding.NPY:
        if len(data) != NPY_HEADER_BYTES + PATCH_BYTES or not data.startswith(npy_header()):
            return None
        return np.frombuffer(data, np.uint8, offset=NPY_HEADER_BYTES).reshape(_SHAPE)
    try:
        with Image.open(BytesIO(data), formats=(encoding.value.upper(),)) as image:
            return np.array(image) if image.size == (PATCH_PX, PATCH_PX) else None
    except Exception:  # noqa: BLE001 - a damaged image makes decoders raise nearly anything; it is a fault all the same
        return None


def _starts(members: Members) -> dict[str, int]:
    return {suffix: offset for suffix, (offset, _) in members.items()}


def _promised_starts(layout: ArrayLayout, sample: int) -> dict[str, int]:
    first = sample * layout.stride_bytes
    label = {} if layout.label_offset_bytes is None else {"cls": first + layout.label_offset_bytes}
    pixels = first + layout.pixels_offset_bytes - NPY_HEADER_BYTES
    return {"npy": pixels, **label, "json": first + layout.json_offset_bytes}


def _manifest_faults(manifest: Manifest) -> Iterator[Fault]:
    """Contradictions within the manifest."""
    names = Counter(PurePosixPath(shard.name).name for shard in manifest.shards)
    for name, count in names.items():
        if count > 1:
            yield Fault("manifest.json", f"{count} shards have the base name {name}")
    for split in sorted({*manifest.splits, *(shard.split for shard in manifest.shards)}):
        shards = [shard for shard in manifest.shards if shard.split is split]
        found = (
            sum(s.samples for s in shards),
            tuple(sum(s.class_counts[c] for s in shards) for c in (0, 1)),
        )
        summary = manifest.splits.get(split)
        if summary is None or found != (summary.samples, summary.class_counts):
            said = "nothing" if summary is None else f"{summary.samples} and {summary.class_counts}"
            yield Fault(
                "manifest.json",
                f"the shards of {split} hold {found[0]} samples, classes {found[1]}; it says {said}",
            )


def _cross_faults(manifest: Manifest, reports: list[ShardReport]) -> Iterator[Fault]:
    """A key in two shards; a slide or patient in two labelled splits, unless these were carved by content hash."""
    shard_of: dict[str, str] = {}
    split_of: dict[tuple[str, str], Split] = {}
    by_slide = all(summary.origin != "carved by content hash" for summary in manifest.splits.values())
    for record, report in zip(manifest.shards, reports, strict=True):
        doubles = [key for key in report.keys if shard_of.setdefault(key, record.name) != record.name]
        if doubles:
            more = f" and {len(doubles) - 1} more" if len(doubles) > 1 else ""
            yield Fault(record.name, f"{doubles[0]}{more} also in {shard_of[doubles[0]]}")
        if record.split is Split.UNLABELLED or not by_slide:
            continue
        for kind, names in report.groups.items():
            for name in sorted(names):
                if split_of.setdefault((kind, name), record.split) is not record.split:
                    yield Fault(record.name, f"{kind} {name} also stands in {split_of[kind, name]}")
