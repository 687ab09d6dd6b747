"""The frozen pydantic base of everything that is configured or persisted, and its canonical JSON."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from sentinode.errors import ManifestError


class Frozen(BaseModel):
    """Immutable and closed: an unknown field is an error, so one model is the truth for flags, files and HTTP."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        # Docstrings are broken into lines for the source; the help of a flag is broken anew for the terminal.
        for field in cls.model_fields.values():
            if field.description:
                field.description = " ".join(field.description.replace("``", "").split())

    def canonical_json(self) -> bytes:
        """The one JSON text of this value (sorted keys, no white space, UTF-8), fit for digests."""
        return canonical_json(self.model_dump(mode="json"))

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, 64 hex digits."""
        return hashlib.sha256(self.canonical_json()).hexdigest()


class Record(Frozen):
    """A persisted model. ``schema_version`` is raised when its meaning changes."""

    schema_version: int = 1

    def to_json(self) -> bytes:
        """Readable JSON (indented, final newline) for files that people open."""
        return (self.model_dump_json(indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Self:
        """Parse ``data``; ``where`` names the file or URL in errors.

        Raises ManifestError when the text is not JSON, lacks fields or has unknown ones, or is of another version.
        """
        name = cls.__name__.lower()
        try:
            raw = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{where} is not JSON ({error})", f"a {name} record", "restore the file or make it anew"
            ) from error
        version = raw.get("schema_version") if isinstance(raw, dict) else None
        known = cls.model_fields["schema_version"].default
        if version != known:
            raise ManifestError(
                f"{where} has schema_version {version!r}",
                f"a {name} record with schema_version {known}",
                "use the Sentinode release that wrote it, or make it anew",
            )
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ManifestError(
                f"{where}: {summarise(error)}", f"a {name} record", "restore the file or make it anew"
            ) from error


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no white space, UTF-8, no NaN: the same value gives the same bytes on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def summarise(error: ValidationError) -> str:
    """The first faults of a validation error in one line: ``optim.lr: must be greater than 0; ...``."""
    faults = [
        ": ".join(filter(None, [".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")]))
        for e in error.errors()[:4]
    ]
    more = error.error_count() - len(faults)
    return "; ".join(faults) + (f"; and {more} more" if more > 0 else "")
