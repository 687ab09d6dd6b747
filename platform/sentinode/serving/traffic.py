"""Which bundle answers whom: the ``user_config`` of the deployment, which changes without a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from sentinode.bundle.bundle import is_digest
from sentinode.config import Frozen, summarise
from sentinode.errors import ConfigError

_BUCKETS = 10_000


class Canary(Frozen):
    """A bundle that answers a share of the requests in place of the model's own."""

    bundle: str
    """Digest."""
    share: float = Field(gt=0.0, le=1.0)
    """Of the slides, or of the requests that name no slide."""

    @field_validator("bundle")
    @classmethod
    def _is_digest(cls, bundle: str) -> str:
        return checked_digest(bundle)


class ModelTraffic(Frozen):
    """One name under which the endpoint answers, and what stands behind it."""

    bundle: str
    """Digest of the bundle (64 hex digits); never an alias, so that a restart cannot change the model."""
    operating_point: str | None = None
    """Name of the threshold for verdicts; the card's default where it is not given."""
    prevalence: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of tumour among the patches that will be asked; moves probabilities there by Bayes' rule."""
    canary: Canary | None = None
    shadow: str | None = None
    """Digest of a bundle that is asked as well; its answers are compared and counted, never returned."""

    @field_validator("bundle", "shadow")
    @classmethod
    def _is_digest(cls, bundle: str | None) -> str | None:
        return None if bundle is None else checked_digest(bundle)

    @property
    def digests(self) -> tuple[str, ...]:
        """All bundles that must be loaded."""
        canary = self.canary.bundle if self.canary else None
        return tuple(digest for digest in (self.bundle, canary, self.shadow) if digest)


class Traffic(Frozen):
    """All models of an endpoint by name."""

    models: dict[str, ModelTraffic] = Field(min_length=1)
    default: str
    """The model that answers where a request names none."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.default not in self.models:
            raise ValueError(f"default {self.default!r} is none of {', '.join(self.models)}")
        for name in self.models:
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 63:
                raise ValueError(f"{name!r} is no name for a model (letters, digits, dashes, at most 63)")
        return self

    @property
    def digests(self) -> tuple[str, ...]:
        """All bundles that must be loaded, each once."""
        return tuple(dict.fromkeys(d for model in self.models.values() for d in model.digests))

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """From a ``user_config``. Raises ConfigError naming each fault."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ConfigError(
                f"user_config: {summarise(error)}",
                "models: {<name>: {bundle: <digest>, ...}}, default: <name>",
                "correct `user_config` of the deployment",
            ) from error


def checked_digest(bundle: str) -> str:
    """``bundle`` itself. Raises ValueError where it is no digest."""
    if not is_digest(bundle):
        raise ValueError(
            f"{bundle!r} is not a bundle digest (64 lower-case hex digits); resolve aliases beforehand"
        )
    return bundle


def is_canary(share: float, slide: bytes) -> bool:
    """Whether the canary answers for this slide: always the same for the same slide, in every replica."""
    drawn = int.from_bytes(hashlib.blake2b(slide, digest_size=8).digest()) % _BUCKETS
    return drawn < share * _BUCKETS
