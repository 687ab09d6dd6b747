"""Who acts, for the histories of aliases: as configured, never taken from the machine."""

from __future__ import annotations

import os

from pydantic import TypeAdapter, ValidationError

from sentinode.bundle.registry import Line
from sentinode.errors import ConfigError

VARIABLE = "SENTINODE_ACTOR"


def actor(by: str | None) -> str:
    """``by``, else SENTINODE_ACTOR, else an empty text. Raises ConfigError where the variable is no line of text."""
    given = os.environ.get(VARIABLE, "") if by is None else by
    try:
        return TypeAdapter(Line).validate_python(given)
    except ValidationError as error:
        raise ConfigError(
            f"{VARIABLE} holds {given[:40]!r}", "one line of at most 1000 characters"
        ) from error
