"""API keys: who may ask. Ray's token authentication never covers Serve's HTTP port."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers

from sentinode.errors import ConfigError

KEYS_VARIABLE: Final = "SENTINODE_API_KEYS"
_SHORTEST_KEY: Final = 16


class ApiKeys:
    """The keys that are accepted, kept as SHA-256 digests. No keys: everybody is admitted."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        keys = tuple(keys)
        if any(len(key) < _SHORTEST_KEY for key in keys):
            raise ConfigError(
                f"{KEYS_VARIABLE} holds a key of fewer than {_SHORTEST_KEY} characters",
                "long random keys, separated by commas",
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        self._digests = tuple(_digest(key) for key in keys)

    @classmethod
    def from_environment(cls, loopback_only: bool) -> ApiKeys:
        """The keys in SENTINODE_API_KEYS (separated by commas).

        Raises ConfigError where there is none and the endpoint can be reached from beyond loopback.
        """
        keys = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
        if not keys and not loopback_only:
            raise ConfigError(
                "the endpoint can be reached from other machines and has no API keys",
                f"{KEYS_VARIABLE} in the environment of the Ray nodes, or http_options.host 127.0.0.1",
                f"set {KEYS_VARIABLE} from a secret before Ray starts",
            )
        return cls(keys)

    def admits(self, headers: Headers) -> bool:
        """Whether the request has a known key: ``Authorization: Bearer <key>`` or ``X-API-Key: <key>``."""
        if not self._digests:
            return True
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        given = _digest(key)
        # All keys are compared, each in constant time: the answer's timing tells nothing about any of them.
        return sum(hmac.compare_digest(given, known) for known in self._digests) > 0


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
