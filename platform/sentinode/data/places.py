"""Where on a slide a patch lies: ``<key>#xywh=pixel:x,y,w,h`` at level 0 (W3C Media Fragments URI 1.0)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from sentinode.errors import ConfigError

_REFERENCE: Final = re.compile(r"(?P<key>.+)#xywh=pixel:(?P<x>\d+),(?P<y>\d+),(?P<side>\d+),\d+")


class Place(NamedTuple):
    """A square of a slide, in level-0 pixels."""

    key: str
    """Where the slide lies."""
    corner: tuple[int, int]
    """Upper left, x and y."""
    side_px: int


def reference(key: str, corner: tuple[int, int], side_px: int) -> str:
    """The place in words, as a sample's ``source`` has it."""
    return f"{key}#xywh=pixel:{corner[0]},{corner[1]},{side_px},{side_px}"


def find_place(ref: str) -> Place | None:
    """The place that ``ref`` names; None where it is none, but a file of a folder say."""
    match = _REFERENCE.fullmatch(ref)
    if match is None:
        return None
    return Place(match["key"], (int(match["x"]), int(match["y"])), int(match["side"]))


def parse_reference(ref: str) -> Place:
    """As ``find_place``. Raises ConfigError on another form."""
    place = find_place(ref)
    if place is None:
        raise ConfigError(f"{ref!r} is no place on a slide", "<key>#xywh=pixel:x,y,w,h")
    return place
