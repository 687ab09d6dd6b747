"""MIRAX slides lie in a folder of many files: whether all are there, and as long as the index says.

The index as openslide.org/formats/mirax describes it. OpenSlide notices a file that is missing or cut when it comes to
a tile in it, perhaps after an hour.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np

from sentinode.errors import SourceError

_VERSION_BYTES: Final = 5
_REMEDY: Final = "copy the folder again"


def check_files(path: Path, properties: Mapping[str, str]) -> None:
    """``properties`` are OpenSlide's of the slide at ``path``. Raises SourceError where a part of it is missing."""
    count = int(properties.get("mirax.DATAFILE.FILE_COUNT", 0))
    folder = path.with_suffix("")
    names = [properties[f"mirax.DATAFILE.FILE_{i}"] for i in range(count)]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise SourceError(
            f"{path} lacks {len(missing)} of the {count} files in its folder ({', '.join(missing[:5])})",
            "Index.dat, Slidedat.ini and all Data*.dat",
            _REMEDY,
        )
    for name, end in _ends(folder, names, properties).items():
        size = (folder / name).stat().st_size
        if size < end:
            raise SourceError(
                f"{folder / name} has {size:,} bytes, and an image that ends at {end:,}",
                "a whole file",
                _REMEDY,
            )


def _ends(folder: Path, names: list[str], properties: Mapping[str, str]) -> dict[str, int]:
    """Where the last image of each file ends; nothing where the index is laid out otherwise."""
    index = (folder / properties["mirax.HIERARCHICAL.INDEXFILE"]).read_bytes() if names else b""
    ends: dict[str, int] = {}
    try:
        (root,) = struct.unpack_from("<i", index, _VERSION_BYTES + len(properties["mirax.GENERAL.SLIDE_ID"]))
        for level in range(int(properties["mirax.HIERARCHICAL.HIER_0_COUNT"])):
            (page,) = struct.unpack_from("<i", index, root + 4 * level)
            for entries in _pages(index, page):
                for number in np.unique(entries[:, 3]).tolist():
                    offsets, lengths = entries[entries[:, 3] == number, 1:3].astype(np.int64).T
                    name = names[number]
                    ends[name] = max(ends.get(name, 0), int((offsets + lengths).max()))
    except (struct.error, IndexError, KeyError, ValueError):
        return {}
    return ends


def _pages(index: bytes, at: int) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.int32]]]:
    """int32 [N, 4]: image number, offset, length, file number; a level's images lie on one or more pages."""
    _, at = struct.unpack_from("<ii", index, at)
    while at:
        count, following = struct.unpack_from("<ii", index, at)
        yield np.frombuffer(index, "<i4", 4 * count, at + 8).reshape(count, 4)
        # Pages follow each other; a loop would be a damaged index.
        at = following if following > at else 0
