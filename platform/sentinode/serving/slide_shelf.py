"""The slides that ``sentinode score`` has scored, for the page: their list, tiles, heat maps, lesions, corrections.

Names come from the list alone: nothing that a client sends becomes a path.
"""

from __future__ import annotations

import csv
import io
import threading
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from sentinode.config import Frozen
from sentinode.errors import (
    ObjectNotFoundError,
    PreconditionFailedError,
    RequestError,
    SourceError,
)
from sentinode.evaluation.cells_table import cells_of
from sentinode.evaluation.slide_record import SLIDES_NAME, SlideScore, file_key, read_slides_table
from sentinode.serving.deep_zoom import TILE_PX, DeepZoom
from sentinode.serving.slides_args import SlidesArgs
from sentinode.slides.corrections import (
    SUFFIX,
    CorrectedSlide,
    Corrections,
    Mark,
    read_corrections,
)
from sentinode.slides.heat_map_files import heat_map_png
from sentinode.slides.reader import open_slide
from sentinode.storage import Store, open_store

WORKLIST: Final = "worklist.csv"


class ListedSlide(Frozen):
    """One line of the list."""

    rank: int
    group: str = ""
    """What the worklist says is to be done with it; empty where no worklist was made."""
    why: str = ""
    score: SlideScore


class Listing(Frozen):
    """The reply to ``GET /v1/slides``."""

    slides: tuple[ListedSlide, ...]
    worklist: Literal["current", "outdated", "none"]
    """``outdated``: slides were scored since it was made, or it is not as it was written (a spreadsheet saves it with
    semicolons). What it says then stands nowhere here."""
    corrections: bool
    """Whether corrections are taken."""


class ShownSlide(Frozen):
    """The reply to ``GET /v1/slides/{name}``: what a viewer needs."""

    width_px: int
    height_px: int
    tile_px: int = TILE_PX
    max_level: int
    um_px: float
    heat_columns: int
    heat_rows: int
    cell_px: float
    """Side of a cell of the heat map, in pixels of level 0."""


class SlideShelf:
    """Opens slides when they are asked for, and keeps the latest open. Safe to share between threads."""

    def __init__(self, args: SlidesArgs) -> None:
        self.args = args
        self._scores = open_store(args.scores)
        self._corrections = open_store(args.corrections) if args.corrections else None
        self._open: OrderedDict[str, DeepZoom] = OrderedDict()
        self._lock = threading.Lock()
        self._known: tuple[str, dict[str, SlideScore]] = ("", {})

    def listing(self) -> Listing:
        """All slides, in the order of the worklist, else by falling score. Raises RequestError 404 without any."""
        records = list(self._records().values())
        told = self._worklist()
        is_current = told is not None and all(
            r.slide in told and told[r.slide].made_of == (r.key, r.status) for r in records
        )
        found = {r.slide: told[r.slide] if told and is_current else _Told() for r in records}
        records.sort(key=lambda r: (found[r.slide].rank, -(r.score or 0.0), r.slide))
        return Listing(
            slides=tuple(
                ListedSlide(rank=rank, group=found[r.slide].group, why=found[r.slide].why, score=r)
                for rank, r in enumerate(records, 1)
            ),
            worklist="none" if told is None else "current" if is_current else "outdated",
            corrections=self._corrections is not None,
        )

    def shown(self, name: str) -> ShownSlide:
        """Size and scales of one slide."""
        record, zoom = self._record(name), self.zoom(name)
        grid, cell_um = cells_of(self._scores, record)
        assert record.um_px is not None
        return ShownSlide(
            width_px=zoom.width_px,
            height_px=zoom.height_px,
            max_level=zoom.top,
            um_px=record.um_px,
            heat_columns=grid.shape[1],
            heat_rows=grid.shape[0],
            cell_px=cell_um / record.um_px,
        )

    def zoom(self, name: str) -> DeepZoom:
        """The tiles of one slide. Raises SourceError, StoreError where it cannot be opened."""
        record = self._record(name)
        with self._lock:
            if name in self._open:
                self._open.move_to_end(name)
                return self._open[name]
        opened = DeepZoom(open_slide(record.url, record.um_px if record.um_px_given else None))
        with self._lock:
            # Those pushed out are closed when the last tile that is cut from them is done.
            self._open[name] = opened
            while len(self._open) > self.args.open_slides:
                self._open.popitem(last=False)
        return opened

    def heat_map(self, name: str) -> bytes:
        """RGBA PNG, a pixel a cell, transparent where nothing was scored."""
        return heat_map_png(cells_of(self._scores, self._record(name))[0])

    def lesions(self, name: str) -> bytes:
        """GeoJSON of the model's lesions."""
        # Lesions do not say of which scoring they are; their cells do.
        cells_of(self._scores, self._record(name))
        return self._scores.get(file_key(name, "lesions.geojson"))

    def corrections(self, name: str) -> tuple[bytes, str]:
        """The corrections of one slide and their version; an empty collection and "" where there are none.

        Of whatever QuPath wrote, the features have marks, and their classes are those that the page knows.
        """
        self._record(name)
        try:
            data, version = self._store().get_with_etag(name + SUFFIX)
        except ObjectNotFoundError:
            return b'{"type": "FeatureCollection", "features": []}', ""
        return read_corrections(data, self._store().locate(name + SUFFIX), name).to_geojson(), version

    def correct(self, name: str, body: bytes, version: str, by: str) -> str:
        """Put ``body`` in the place of the corrections of ``version`` and return the new version.

        Raises RequestError 400 for what are no corrections, 412 where somebody else has saved meanwhile.
        """
        record = self._record(name)
        try:
            given = read_corrections(body, "the request", name)
        except SourceError as error:
            raise RequestError(error.found, error.expected, error.remedy) from error
        about = CorrectedSlide(
            slide=name,
            slide_url=record.url,
            um_px=record.um_px if record.um_px_given else None,
            bundle=record.bundle,
        )
        stamp = {"by": by, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        kept = self._marks(name)
        stamped = tuple(
            # Who and when are the endpoint's word: a mark keeps its own only where it stands here already.
            c if (c.mark, c.region.shape.wkb) in kept else replace(c, mark=c.mark.model_copy(update=stamp))
            for c in given.corrections
        )
        data = Corrections(about, stamped).to_geojson()
        try:
            if version:
                return self._store().put(name + SUFFIX, data, if_match=version)
            return self._store().put(name + SUFFIX, data, if_none_match=True)
        except PreconditionFailedError as error:
            raise RequestError(
                "somebody else has saved corrections of this slide",
                "the latest version",
                "load them and save again",
                412,
            ) from error

    def _marks(self, name: str) -> set[tuple[Mark, bytes]]:
        """Those that are kept of a slide, with who made them and when, and the outline of each."""
        try:
            data = self._store().get(name + SUFFIX)
        except ObjectNotFoundError:
            return set()
        found = read_corrections(data, self._store().locate(name + SUFFIX), name).corrections
        return {(c.mark, c.region.shape.wkb) for c in found if c.mark.at}

    def _store(self) -> Store:
        if self._corrections is None:
            raise RequestError(
                "this endpoint takes no corrections", "a place for them", "see SlidesArgs", 404
            )
        return self._corrections

    def _record(self, name: str) -> SlideScore:
        record = self._records().get(name)
        if record is None or record.status != "done":
            raise RequestError("there is no such scored slide", "one of GET /v1/slides", status=404)
        return record

    def _records(self) -> dict[str, SlideScore]:
        info = self._scores.stat(SLIDES_NAME)
        if info is None:
            raise RequestError("no slide has been scored yet", "what sentinode score writes", status=404)
        if info.etag != self._known[0]:
            table = read_slides_table(self._scores.get(SLIDES_NAME), self._scores.locate(SLIDES_NAME))
            self._known = (info.etag, {record.slide: record for record in table})
        return self._known[1]

    def _worklist(self) -> dict[str, _Told] | None:
        """What the worklist says, by slide: nothing where it cannot be read; None where none was made."""
        try:
            text = self._scores.get(WORKLIST).decode("utf-8-sig")
            rows = csv.DictReader(io.StringIO(text), restval="")
            return {
                row["slide"].lstrip("'"): _Told(
                    int(row["rank"]), row["group"], row["why"], (row.get("key", ""), row["status"])
                )
                for row in rows
            }
        except ObjectNotFoundError:
            return None
        except (ValueError, KeyError, csv.Error):
            return {}


class _Told(NamedTuple):
    """Of a slide by a worklist; as it begins, where there is none to go by."""

    rank: int = 0
    group: str = ""
    why: str = ""
    made_of: tuple[str, str] = ("", "")
    """Key and status of the record that it speaks of."""
