"""Whole slides, from local files and from object stores, behind one small interface.

Which library reads what (by content, not by name):

    OpenSlide   local files: Aperio SVS, Hamamatsu NDPI and VMS, 3DHistech MRXS, DICOM WSI, Leica SCN, Philips TIFF,
                Ventana BIF, Sakura, Trestle, tiled TIFF. Decodes in parallel. The default for local files.
    tiffslide   files of one TIFF, and so also ``s3://`` by ranged reads: SVS, NDPI, SCN, Philips TIFF, pyramidal TIFF
                with levels as pages or SubIFDs (OME-TIFF). The default for stores and for what OpenSlide does not know.

MRXS, VMS and DICOM lie in several files, which only OpenSlide reads, from a local folder; it alone stitches the
overlapping tiles of BIF.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO, Final, Literal, cast

from sentinode.errors import ObjectNotFoundError, SourceError
from sentinode.slides import dicom_files, openslide_backend
from sentinode.slides.openslide_backend import OpenSlidePixels
from sentinode.slides.ranged_file import Blocks, RangedFile
from sentinode.slides.slide import CONVERSION, Slide
from sentinode.slides.tiffslide_backend import TiffSlidePixels, check_start, check_tiles, check_whole, is_ndpi
from sentinode.storage import Store, absolute_url, open_parent
from sentinode.storage.files import typed_os_errors
from sentinode.storage.urls import parse_url

_LOG = logging.getLogger(__name__)

Backend = Literal["openslide", "tiffslide"]

_TIFF: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DICOM: Final = b"DICM"
"""From byte 128."""
_NO_SLIDES: Final = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF document",
    b"<": "an XML or HTML text",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
}
_REMEDIES: Final = {
    b"version https://git-lfs": "git lfs pull",
    b"PK\x03\x04": "unpack it",
    b"\x1f\x8b": "unpack it",
}
"""Where it is not to give another file, or to convert it."""
_SLIDES: Final = "a slide (SVS, NDPI, MRXS, DICOM, pyramidal TIFF)"


def open_slide(url: str, mpp_um_px: float | None = None, backend: Backend | None = None) -> Slide:
    """The slide at ``url``: a local file or folder of DICOM files, or an object ``s3://bucket/key``, read by ranges.

    ``mpp_um_px`` (micrometres per pixel at level 0, x and y alike) takes the place of what the slide's metadata say.
    ``backend`` None: OpenSlide for local files of which it sees all levels, else tiffslide.

    Raises ObjectNotFoundError, StoreError, ConfigError for a URL that cannot be used, MissingDependencyError, and
    SourceError for what is no whole slide or has no credible size of its pixels (see ``Slide``).
    """
    place = parse_url(url)
    if isinstance(place, Path) and place.is_dir():
        with typed_os_errors(str(place)):
            place = dicom_files.first_file(place)
    store, key = open_parent(str(place) if isinstance(place, Path) else url)
    info = store.stat(key)
    where = store.locate(key)
    if info is None:
        if any(found.key.lower().endswith(dicom_files.SUFFIX) for found in store.list(f"{key}/")):
            raise _local_only(where)
        raise ObjectNotFoundError(f"{where} does not exist", "a slide")
    if info.size_bytes == 0:
        raise SourceError(f"{where} has zero bytes", _SLIDES, "copy the slide again")
    start = store.get(key, start=0, length=min(256, info.size_bytes))
    if start.startswith(_TIFF):
        check_start(start, info.size_bytes, where)
    if isinstance(place, Path):
        pixels = _open_local(place, start, backend)
    else:
        pixels = _open_stored(store, key, info.size_bytes, start, backend)
    try:
        return Slide(absolute_url(url), pixels, mpp_um_px)
    except BaseException:
        pixels.close()
        raise


def _open_local(path: Path, start: bytes, backend: Backend | None) -> OpenSlidePixels | TiffSlidePixels:
    is_tiff = start.startswith(_TIFF)
    if backend != "tiffslide" and openslide_backend.knows(path):
        hides_levels = is_tiff and _check_tiff(path)
        if backend == "openslide" or not hides_levels:
            if start[128:132] == _DICOM:
                with typed_os_errors(str(path)):
                    dicom_files.check_files(path)
            return OpenSlidePixels(path)
    elif backend == "openslide":
        raise _unknown(str(path), start, "OpenSlide")
    if not is_tiff:
        raise _unknown(str(path), start, "OpenSlide or tiffslide" if backend is None else "tiffslide")
    with typed_os_errors(str(path)):
        file = path.open("rb")
    return _owning(file, str(path))


def _open_stored(
    store: Store, key: str, size_bytes: int, start: bytes, backend: Backend | None
) -> TiffSlidePixels:
    where = store.locate(key)
    if backend == "openslide" or start[128:132] == _DICOM or key.lower().endswith((".mrxs", ".vms", ".vmu")):
        raise _local_only(where)
    if not start.startswith(_TIFF):
        raise _unknown(where, start, "tiffslide")
    blocks = Blocks(store, key, size_bytes)
    return _owning(cast(BinaryIO, RangedFile(blocks)), where, blocks)


def _local_only(where: str) -> SourceError:
    return SourceError(
        f"{where} lies in an object store, and needs OpenSlide, which reads local files",
        "SVS, NDPI, SCN or pyramidal TIFF in a store",
        f"copy the slide with its folder to a local disk, or convert it: {CONVERSION}",
    )


def _owning(file: BinaryIO, where: str, blocks: Blocks | None = None) -> TiffSlidePixels:
    try:
        return TiffSlidePixels(file, where, blocks)
    except BaseException:
        file.close()
        raise


def _check_tiff(path: Path) -> bool:
    """Whether levels are in SubIFDs (OME-TIFF), which OpenSlide does not see.

    Raises SourceError on what OpenSlide takes badly. A truncated file it notices when it comes to the tile, perhaps
    after an hour; tiles too large for the memory, from a damaged header, make it end the process. Label and macro
    image, which are not tiled, may have been cut away on purpose.
    """
    import tifffile

    try:
        with path.open("rb") as opened, tifffile.TiffFile(opened, is_ndpi=is_ndpi(opened)) as file:
            for page in file.pages:
                if page.is_tiled:
                    check_tiles(page, str(path))
                if page.is_tiled or page.index == 0:
                    check_whole(page, file.filehandle.size, str(path))
            return bool(file.pages.first.subifds)
    except SourceError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged or odd header makes the parser raise nearly anything
        _LOG.info("%s: left to OpenSlide, since tifffile does not understand it (%s)", path, error)
        return False


def _unknown(where: str, start: bytes, library: str) -> SourceError:
    if start[128:132] == _DICOM and library != "tiffslide":
        return SourceError(
            f"{where} is a DICOM file, but no whole slide that OpenSlide can read",
            "VL Whole Slide Microscopy Images",
            "give the slide, or copy it again: it may be truncated",
        )
    if where.lower().endswith(".mrxs") and library != "tiffslide":
        return SourceError(
            f"{where} stands without its folder",
            "Slidedat.ini and Data*.dat in a folder of the same name beside it",
            "copy the folder too",
        )
    magic = next((magic for magic in _NO_SLIDES if start.startswith(magic)), b"")
    return SourceError(
        f"{where} is {_NO_SLIDES[magic]}"
        if magic
        else f"{where} starts with {start[:8]!r}, which {library} does not know",
        _SLIDES,
        _REMEDIES.get(magic)
        or f"the content counts, not the extension: give the slide itself, or convert it: {CONVERSION}",
    )
