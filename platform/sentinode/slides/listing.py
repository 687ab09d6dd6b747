"""Which slides lie in a folder or bucket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from sentinode.errors import SourceError
from sentinode.storage import ObjectInfo, open_parent, open_store

SUFFIXES: Final = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu")
"""Of files that are taken for slides in a folder. DICOM slides, of many files each, are given one by one."""


class SlideFile(NamedTuple):
    """One slide: its name, where it lies, and the version of the file."""

    name: str
    url: str
    version: str


def list_slides(url: str, include: str = "*") -> tuple[SlideFile, ...]:
    """The slide at ``url``, or those below it, by name. ``include``: a pattern for keys below a folder.

    The name is the file's without extension; where two would share it, the whole key. Raises SourceError where there
    is no slide, StoreError.
    """
    parent, key = open_parent(url)
    alone = parent.stat(key)
    if alone is not None:
        return (SlideFile(PurePosixPath(key).stem, parent.locate(key), _version(alone)),)
    store = open_store(url)
    found = [
        info
        for info in store.list()
        if info.key.lower().endswith(SUFFIXES) and fnmatchcase(info.key, include)
    ]
    if not found:
        raise SourceError(
            f"no slide lies at {url}" + (f" whose key is like {include!r}" if include != "*" else ""),
            f"a slide, or a folder with files *{', *'.join(SUFFIXES)}",
            "give the slide itself, or its folder",
        )
    names = _names([info.key for info in found])
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise SourceError(
            f"two slides below {url} would be called {twice[0]}", "names of their own", "rename one"
        )
    slides = [
        SlideFile(name, store.locate(info.key), _version(info))
        for name, info in zip(names, found, strict=True)
    ]
    return tuple(sorted(slides))


def _version(info: ObjectInfo) -> str:
    return f"{info.etag}/{info.size_bytes}"


def _names(keys: Sequence[str]) -> list[str]:
    stems = [PurePosixPath(key).stem for key in keys]
    times = Counter(stems)
    return [
        stem if times[stem] == 1 else key.replace("/", "__") for stem, key in zip(stems, keys, strict=True)
    ]
