"""Which slides lie in a folder or bucket."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from sentinode.errors import SourceError
from sentinode.slides import dicom_files
from sentinode.storage import ObjectInfo, Store, open_parent, open_store

SUFFIXES: Final = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu")
"""Of files that are taken for slides in a folder. A folder of DICOM files (*.dcm) is one slide."""
_WITH_FOLDER: Final = ".mrxs"
"""Has the rest of its files in a folder of the same name."""
_NO_SLIDES: Final = ("_mask", ".heat_map")
"""Ends of names of what others made of a slide, in lower case: masks of Camelyon (once Tumor_001_Mask.tif as well),
and heat maps of a model."""
_READERS: Final = 16


class SlideFile(NamedTuple):
    """One slide: its name, where it lies, and the version of the file."""

    name: str
    url: str
    version: str


class SlideObject(NamedTuple):
    """A slide in a store. Several may have one name."""

    name: str
    """The file's without extension; of DICOM slides, the folder's."""
    key: str
    """Of the slide, or of its folder."""
    size_bytes: int
    version: str


def list_slides(url: str, include: str = "*") -> tuple[SlideFile, ...]:
    """The slide at ``url``, or those below it, by name. ``include``: a pattern for keys below a folder.

    The name is the file's without extension (the folder's for DICOM); where two below ``url`` would share it, the whole
    key. Raises SourceError where there is no slide, StoreError.
    """
    parent, key = open_parent(url)
    alone = parent.stat(key)
    if alone is not None:
        rest = parent.list(key[: -len(_WITH_FOLDER)] + "/") if _has_folder(key) else ()
        return (SlideFile(PurePosixPath(key).stem, parent.locate(key), _version([alone, *rest])),)
    store = open_store(url)
    objects = list(store.list(linked=True))
    slides = slides_among(objects, store)
    # Named among all: a slide has one name, whichever of them are asked for.
    names = names_of(slides)
    found = [(name, s) for name, s in zip(names, slides, strict=True) if fnmatchcase(s.key, include)]
    if not found:
        some = objects[: 0 if slides else dicom_files.MOST_LOOKED_AT]
        is_dicom = any(
            dicom_files.is_dicom(store.get(info.key, length=dicom_files.MARK_BYTES))
            for info in some
            if info.size_bytes > dicom_files.MARK_BYTES
        )
        raise SourceError(
            f"no slide lies at {url}" + (f" whose key is like {include!r}" if include != "*" else ""),
            f"a slide, or a folder with files *{', *'.join(SUFFIXES)} or with folders of *{dicom_files.SUFFIX}",
            dicom_files.RENAME if is_dicom else "give the slide itself, or its folder",
        )
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise SourceError(
            f"two slides below {url} would be called {twice[0]}", "names of their own", "rename one"
        )
    return tuple(sorted(SlideFile(name, store.locate(slide.key), slide.version) for name, slide in found))


def slides_among(objects: Iterable[ObjectInfo], store: Store) -> list[SlideObject]:
    """The slides among ``objects`` of ``store``, in no order; no masks and no heat maps. Raises StoreError."""
    folders: dict[str, list[ObjectInfo]] = defaultdict(list)
    for info in objects:
        folders[info.key.rpartition("/")[0]].append(info)
    found = []
    for infos in folders.values():
        for info in infos:
            if _is_slide(info.key):
                rest = folders.get(info.key[: -len(_WITH_FOLDER)], []) if _has_folder(info.key) else []
                found.append(_slide(PurePosixPath(info.key).stem, info.key, [info, *rest]))
    dicom = {
        folder: files
        for folder, infos in folders.items()
        if (files := [info for info in infos if info.key.lower().endswith(dicom_files.SUFFIX)])
    }
    return [*found, *_dicom_slides(store, dicom)]


def _dicom_slides(store: Store, folders: dict[str, list[ObjectInfo]]) -> Iterator[SlideObject]:
    """The slides among DICOM files, by folder: the folder, or a file of each where it holds more than one."""

    def series(info: ObjectInfo) -> str | None:
        """None for other images; its key where a file cannot be read, which is told when it is opened."""
        start = (
            store.get(info.key, length=min(dicom_files.HEADER_BYTES, info.size_bytes))
            if info.size_bytes
            else b""
        )
        header = dicom_files.read_header(start)
        return info.key if header is None else header.series if header.is_slide else None

    with ThreadPoolExecutor(_READERS, thread_name_prefix="dicom-headers") as pool:
        found = {folder: pool.map(series, files) for folder, files in folders.items()}
    for folder, files in folders.items():
        members: dict[str, list[ObjectInfo]] = defaultdict(list)
        for info, name in zip(files, found[folder], strict=True):
            if name is not None:
                members[name].append(info)
        whole = [name for name, infos in members.items() if name != infos[0].key]
        if members and len(whole) < 2:
            everything = [info for infos in members.values() for info in infos]
            name = PurePosixPath(folder or store.url).name
            yield _slide(name, folder or everything[0].key, everything)
        else:
            yield from (_slide(PurePosixPath(i[0].key).stem, i[0].key, i) for i in members.values())


def _is_slide(key: str) -> bool:
    name = key.lower()
    return name.endswith(SUFFIXES) and not PurePosixPath(name).stem.endswith(_NO_SLIDES)


def _slide(name: str, key: str, files: Sequence[ObjectInfo]) -> SlideObject:
    return SlideObject(name, key, sum(info.size_bytes for info in files), _version(files))


def _has_folder(key: str) -> bool:
    return key.lower().endswith(_WITH_FOLDER)


def _version(files: Sequence[ObjectInfo]) -> str:
    if len(files) == 1:
        return f"{files[0].etag}/{files[0].size_bytes}"
    listed = "\n".join(f"{info.key} {info.etag} {info.size_bytes}" for info in files)
    return hashlib.sha256(listed.encode()).hexdigest()


def names_of(slides: Sequence[SlideObject]) -> list[str]:
    """What each is called among all: the whole key where several have one name."""
    times = Counter(slide.name for slide in slides)
    return [slide.name if times[slide.name] == 1 else slide.key.replace("/", "__") for slide in slides]
