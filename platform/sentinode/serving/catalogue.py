"""The models of an endpoint, and their change in place: a new catalogue replaces the old one in one step."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from sentinode.errors import BusyError, RequestError, SentinodeError
from sentinode.serving.replies import Words
from sentinode.serving.traffic import ModelTraffic, Traffic, is_canary
from sentinode.serving.version import Version, VersionKey

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Model:
    """One name, and the versions behind it."""

    name: str
    traffic: ModelTraffic
    stable: Version
    canary: Version | None
    shadow: Version | None
    words: dict[Version, Words]
    """What each version's replies say under this name."""

    @property
    def versions(self) -> tuple[Version, ...]:
        """All of them, the one that usually answers first."""
        return tuple(v for v in (self.stable, self.canary, self.shadow) if v)

    def choose(self, slide: bytes = b"") -> Version:
        """Who answers for a patch of this slide; without one (``b""``), chance decides for each request."""
        if self.canary is None or self.traffic.canary is None:
            return self.stable
        share = self.traffic.canary.share
        drawn = is_canary(share, slide) if slide else random.random() < share
        return self.canary if drawn else self.stable

    def alone(self, version: Version) -> Model:
        """The model as asked by the digest of one of its bundles: that one answers, whatever the share of a canary."""
        return replace(self, stable=version, canary=None)


class Catalogue:
    """What is served at one time; never changed."""

    def __init__(self, traffic: Traffic, versions: dict[VersionKey, Version]) -> None:
        self.traffic = traffic
        self.models = {name: _model(name, one, versions) for name, one in traffic.models.items()}
        self.default = self.models[traffic.default]
        models = self.models.values()
        canaries = [(model, model.canary) for model in models if model.canary]
        self._by_digest: dict[str, Model] = {}
        for model, version in [*((model, model.stable) for model in models), *canaries]:
            self._by_digest.setdefault(version.bundle.digest, model.alone(version))

    def find(self, reference: str) -> Model:
        """The model of this name; or with this digest for its stable bundle, or else its canary, which then answers
        alone; the default one for ``""``.

        Raises RequestError 404.
        """
        if not reference:
            return self.default
        found = self.models.get(reference) or self._by_digest.get(reference)
        if found is None:
            raise RequestError(
                "this endpoint serves no such model", ", ".join(self.models), "see GET /v1/models", status=404
            )
        return found

    def version(self, digest: str) -> Version | None:
        """A version of this bundle, whatever its part."""
        every = (version for model in self.models.values() for version in model.versions)
        return next((version for version in every if version.bundle.digest == digest), None)


class Fleet:
    """The present catalogue and how to come to the next. ``open_version`` is called in threads."""

    def __init__(self, open_version: Callable[[VersionKey], Version]) -> None:
        self._open = open_version
        self._catalogue: Catalogue | None = None
        self._changing = asyncio.Lock()
        self.failure = ""
        """Why the last change was not made, in words; empty where it was."""

    @property
    def catalogue(self) -> Catalogue:
        """What is served now. Raises BusyError before anything is."""
        if self._catalogue is None:
            raise BusyError("the endpoint is starting", "a bundle", "ask again in a moment")
        return self._catalogue

    async def change(self, traffic: Traffic) -> None:
        """Serve ``traffic``: load what is new, then switch in one step. Requests under way end where they began.

        Where a new bundle cannot be served, what is served stays, and ``failure`` says why; raises it only
        where nothing is served yet.
        """
        async with self._changing:
            old = _versions(self._catalogue)
            wanted = dict.fromkeys(key for model in traffic.models.values() for key in _keys(model))
            try:
                fresh = {key: await asyncio.to_thread(self._open, key) for key in wanted if key not in old}
            except SentinodeError as error:
                self.reject(error)
                return
            self._catalogue = Catalogue(traffic, {**old, **fresh})
            self.failure = ""
            logger.info("serving %s", ", ".join(f"{n}={m.bundle[:12]}" for n, m in traffic.models.items()))
            # What left the catalogue ends with its last request: nothing but the requests under way holds it.

    def start(self, traffic: Traffic, versions: dict[VersionKey, Version]) -> None:
        """Serve versions that are loaded already."""
        self._catalogue = Catalogue(traffic, versions)

    def reject(self, error: SentinodeError) -> None:
        """A new configuration cannot be served: note why. Raises ``error`` where nothing is served yet."""
        if self._catalogue is None:
            raise error
        self.failure = str(error)
        logger.error("the new configuration is not served, the old one stays: %s", error)

    @property
    def models(self) -> Iterable[Model]:
        """Those of the present catalogue; none before there is one."""
        return self._catalogue.models.values() if self._catalogue else ()

    @property
    def waiting(self) -> int:
        """Patches in the queues of all versions."""
        return sum(version.batcher.waiting for version in _versions(self._catalogue).values())


def _versions(catalogue: Catalogue | None) -> dict[VersionKey, Version]:
    models = catalogue.models.values() if catalogue else ()
    return {version.key: version for model in models for version in model.versions}


def _keys(traffic: ModelTraffic) -> tuple[VersionKey, ...]:
    return tuple(VersionKey(d, traffic.operating_point, traffic.prevalence) for d in traffic.digests)


def _model(name: str, traffic: ModelTraffic, versions: dict[VersionKey, Version]) -> Model:
    def of(digest: str | None) -> Version | None:
        return (
            None
            if digest is None
            else versions[VersionKey(digest, traffic.operating_point, traffic.prevalence)]
        )

    stable = versions[VersionKey(traffic.bundle, traffic.operating_point, traffic.prevalence)]
    canary = of(traffic.canary.bundle if traffic.canary else None)
    words = {version: Words.of(name, version) for version in (stable, canary) if version}
    return Model(name, traffic, stable, canary, of(traffic.shadow), words)
