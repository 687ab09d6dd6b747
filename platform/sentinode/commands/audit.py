"""``sentinode audit``: what stands on both sides of a split, within a data set and between data sets."""

from __future__ import annotations

import logging
from errno import EISDIR
from os import strerror
from pathlib import Path

from pydantic import Field
from tyro.conf import Positional

from sentinode.config import Frozen
from sentinode.data.audit import AuditReport, Overlap, audit
from sentinode.data.manifest import load_manifest
from sentinode.logs import progress_bars
from sentinode.storage import StoreUrl
from sentinode.storage.files import temporary_beside, typed_os_errors

log = logging.getLogger(__name__)


class AuditConfig(Frozen):
    """Look for leaks: exact and near duplicates, conflicting labels, slides and patients on both sides."""

    manifests: Positional[tuple[StoreUrl, ...]] = Field(min_length=1)
    """URLs of the data sets (manifest, or the folder that holds it); several are compared with each other."""
    near_duplicates: bool = True
    """Look for patches that are alike but for turning, mirroring, recompression or staining as well."""
    json_file: Path | None = None
    """Write the whole report there as JSON; missing folders are made."""


FLAGS = AuditConfig


def run(config: AuditConfig) -> int:
    """Exit code 1 when patches, slides or patients stand on both sides of a split; 0 otherwise."""
    if config.json_file:
        _check_writable(config.json_file)
    manifests = [load_manifest(url)[0] for url in config.manifests]
    total = sum(part.samples for manifest in manifests for part in manifest.splits.values())
    done = 0
    with progress_bars() as progress:

        def tell(patches: int) -> None:
            nonlocal done
            done += patches
            progress("compare", done, total)

        report = audit(config.manifests, near_duplicates=config.near_duplicates, progress=tell)
    if config.json_file:
        with typed_os_errors(str(config.json_file)):
            config.json_file.write_bytes(report.to_json())
    for line in describe(report):
        log.info("%s", line)
    return 1 if report.exact_leaks else 0


def _check_writable(path: Path) -> None:
    """Tell before the work, and not after it, that no report can be written there."""
    with typed_os_errors(str(path)), temporary_beside(path) as trial:
        trial.touch()
        if path.is_dir():
            raise IsADirectoryError(EISDIR, strerror(EISDIR))


def describe(report: AuditReport) -> list[str]:
    """The report in plain lines."""
    lines = []
    for part in report.parts:
        slides = f"{part.slides} slides" if part.slides else "slides unknown"
        lines.append(f"{part.name}: {part.samples} patches, {slides}")
    lines += [_line(report, overlap) for overlap in report.overlaps]
    if not report.near_duplicates_searched:
        lines.append("near-duplicates were not looked for")
    elif report.blank:
        lines.append(
            f"{report.blank} patches without structure were left out of the search for near-duplicates"
        )
    if not report.exact_leaks:
        lines.append("no patch, slide or patient stands on both sides of a split")
    return lines


def _line(report: AuditReport, overlap: Overlap) -> str:
    first, second = report.parts[overlap.first], report.parts[overlap.second]
    where = f"within {first.name}" if overlap.first == overlap.second else f"{first.name} and {second.name}"
    kind = "LEAK" if overlap.leak else "note"
    return f"{kind}: {overlap.count} times {overlap.kind}, {where}, e.g. {', '.join(overlap.examples[:2])}"
