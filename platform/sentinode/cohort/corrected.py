"""Patches from a pathologist's corrections: tumour where it was accepted or drawn, negative where it was rejected.

Only what was outlined is taken. Where there is more than wanted, the patches of which the model was least certain come
first: they teach it most (uncertainty sampling; Lewis & Gale 1994).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Final

import numpy as np
import shapely
from numpy.typing import NDArray

from sentinode.cohort.heat import HeatAt, heat_of, nowhere
from sentinode.cohort.sample import Corner, Grid, check_resolution
from sentinode.cohort.source import SlideSource
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.data.places import reference
from sentinode.data.sources.base import SPLITS, Listing, slide_columns
from sentinode.data.sources.known import is_official_test
from sentinode.errors import SourceError, first_of
from sentinode.schema import Split
from sentinode.slides.corrections import SCORE, SUFFIX, Corrections, read_corrections
from sentinode.slides.listing import names_of, slides_among
from sentinode.slides.reader import open_slide
from sentinode.storage import Store, absolute_url, join_url, open_parent, open_store

_OF_MODELS: Final = (".tissue.geojson", ".lesions.geojson")
"""What a model wrote of a slide."""
UNKNOWN_PROBABILITY: Final = 0.5
"""Of an outline without score: where the model saw nothing, it is to learn."""


def corrected_patches(config: IngestConfig) -> tuple[SlideSource, Listing]:
    """The patches that the corrections below ``config.corrections`` give, all for training.

    Slides lie below ``config.source``, or where the corrections say. Raises SourceError where there are no
    corrections, where a slide is missing or cannot be used, StoreError.
    """
    files = list(_files(open_store(str(config.corrections))))
    root, keys = _slides(config.source, files)
    probabilities = heat_of(open_store(config.scores)) if config.scores else nowhere
    rows: list[tuple[str, str, int, Corner, int, int]] = []
    for found in files:
        name, key = found.slide.slide, keys[found.slide.slide]
        url = join_url(root, key)
        with open_slide(url, config.slides.um_px or found.slide.um_px) as slide:
            check_resolution(slide)
            grid = Grid(slide.level_dimensions[0], slide.um_px, np.random.default_rng(0))
        size = _size(url)
        chosen = choose_corrected(grid, found, config.slides, probabilities)
        rows += [(name, key, size, corner, grid.patch_px, label) for corner, label in chosen]
    if not rows:
        raise SourceError(
            "the corrections outline nothing on their slides", "accepted, rejected or drawn lesions"
        )
    slides, centres, patients = slide_columns([name for name, *_ in rows])
    train = SPLITS.index(Split.TRAIN)
    # Places are pixels, so a size that was given by hand only has to let slides without one be opened.
    um_px = config.slides.um_px or next((f.slide.um_px for f in files if f.slide.um_px), None)
    return SlideSource(root, um_px), Listing(
        [reference(key, corner, side) for _, key, _, corner, side, _ in rows],
        np.array([size for _, _, size, *_ in rows], np.int64),
        np.array([label for *_, label in rows], np.int8),
        np.full(len(rows), train, np.int8),
        slides=slides,
        centres=centres,
        patients=patients,
        warnings=tuple(_warnings(files)),
    )


def _warnings(files: Sequence[Corrections]) -> Iterable[str]:
    tests = sorted(found.slide.slide for found in files if is_official_test(found.slide.slide))
    if tests:
        yield (
            f"{len(tests)} corrected slides are test slides of Camelyon16 ({first_of(tests)}): a model "
            "that trains on them must not be measured on them; take their files out of the folder to leave them out"
        )
    for found in files:
        if found.overlaps:
            yield (
                f"outlines of {found.slide.slide} overlap and say different things (pairs: {found.overlaps}): what was "
                "drawn counts there, else the later one"
            )


def choose_corrected(
    grid: Grid, corrections: Corrections, config: SamplingConfig, probabilities: HeatAt
) -> list[tuple[Corner, int]]:
    """Corner and label of the patches of one slide: at most ``patches_per_slide`` of each class, the least certain
    first."""
    tumour = grid.holding(corrections.tumour)
    healthy = grid.within(corrections.healthy) & ~tumour
    chosen: list[tuple[Corner, int]] = []
    for label, mask in ((1, tumour), (0, healthy)):
        cells = grid.with_room(mask)
        if len(cells):
            centres = grid.centres(cells)
            found = probabilities(corrections.slide.slide, centres)
            certainty = np.abs((_of_outlines(corrections, centres) if found is None else found) - 0.5)
            order = np.lexsort((cells[:, 1], cells[:, 0], certainty.round(6)))
            chosen += [(corner, label) for corner in grid.corners(cells[order[: config.patches_per_slide]])]
    return chosen


def _of_outlines(corrections: Corrections, centres_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The score of the outline around each point: the lesion's, as the model gave it."""
    found = np.full(len(centres_N2), UNKNOWN_PROBABILITY)
    for correction in corrections.corrections:
        score = correction.region.measurements.get(SCORE)
        if score is not None and 0 <= score <= 1:
            shapely.prepare(correction.region.shape)
            found[shapely.intersects_xy(correction.region.shape, centres_N2[:, 0], centres_N2[:, 1])] = score
    return found


def _files(store: Store) -> Iterable[Corrections]:
    """Every file of corrections, in the order of keys; of plain ``<slide>.geojson`` as well."""
    names: set[str] = set()
    for info in store.list(linked=True):
        name = PurePosixPath(info.key).name
        if not name.lower().endswith(".geojson") or name.endswith(_OF_MODELS):
            continue
        stem = name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else PurePosixPath(name).stem
        found = read_corrections(store.get(info.key), store.locate(info.key), stem)
        if found.slide.slide in names:
            raise SourceError(
                f"{store.url} corrects {found.slide.slide} twice", "one file a slide", "join the two files"
            )
        names.add(found.slide.slide)
        yield found
    if not names:
        raise SourceError(f"{store.url} holds no corrections", f"files such as tumor_001{SUFFIX}")


def _slides(source: str, files: list[Corrections]) -> tuple[str, dict[str, str]]:
    """The root of the slides, and where each lies below it."""
    if source:
        store = open_store(absolute_url(source))
        found = slides_among(store.list(linked=True), store)
        by_name = {name: slide.key for name, slide in zip(names_of(found), found, strict=True)}
        missing = [f.slide.slide for f in files if f.slide.slide not in by_name]
        if missing:
            raise SourceError(
                f"{store.url} lacks {len(missing)} corrected slides ({', '.join(missing[:5])})",
                "the slides that were corrected",
                "name the folder or bucket that holds them with --source",
            )
        return store.url, by_name
    lost = [f.slide.slide for f in files if not f.slide.slide_url]
    if lost:
        raise SourceError(
            f"the corrections of {', '.join(lost[:5])} do not say where the slide lies",
            "the folder or bucket of the slides",
            "name it with --source",
        )
    urls = {f.slide.slide: absolute_url(f.slide.slide_url) for f in files}
    parents = [url.split("/")[:-1] for url in urls.values()]
    common = [part[0] for part in takewhile(lambda part: len(set(part)) == 1, zip(*parents, strict=False))]
    if common[:1] == ["s3:"] and len(common) < 3:
        raise SourceError("the corrected slides lie in several buckets", "slides of one bucket or folder")
    root = "/".join(common)
    return root, {name: url[len(root) + 1 :] for name, url in urls.items()}


def _size(url: str) -> int:
    store, key = open_parent(url)
    info = store.stat(key)
    return info.size_bytes if info else 0
