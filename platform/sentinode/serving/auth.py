"""Who asks, and what they may: API keys and bearer tokens. Ray's token authentication never covers Serve's port."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.datastructures import Headers

from sentinode.errors import ConfigError
from sentinode.serving.keys import KeyFile, KeyRecord, RateLimits, Scope, key_id

if TYPE_CHECKING:
    from sentinode.serving.tokens import TokenVerifier

KEYS_VARIABLE: Final = "SENTINODE_API_KEYS"
KEY_FILE_VARIABLE: Final = "SENTINODE_KEY_FILE"
JWT_VARIABLES: Final = ("SENTINODE_JWT_ISSUER", "SENTINODE_JWT_AUDIENCE", "SENTINODE_JWKS_FILE")
_SHORTEST_KEY: Final = 16
_LONGEST_CREDENTIAL: Final = 8192
_PLAIN_SCOPES: Final = frozenset({Scope.PREDICT, Scope.EXPLAIN, Scope.METRICS})


@dataclass(frozen=True)
class Caller:
    """Who sent a request."""

    name: str
    """Stands in the audit log: ``key:<id>:<holder>``, ``key:<hash>``, ``jwt:<subject>`` or ``anonymous``."""
    scopes: frozenset[Scope]
    limits: RateLimits | None
    """None: nothing is limited."""


ANONYMOUS: Final = Caller("anonymous", frozenset(Scope), None)
"""Everybody, where no key is configured: on loopback alone."""


class ApiKeys:
    """The credentials that are accepted. None configured: everybody is admitted, with every scope.

    ``keys`` are plain (from the environment) and kept as SHA-256 digests, without the scope ``admin``; ``records``
    come from a key file; ``tokens`` checks JWTs, whose callers get ``token_limits``.
    """

    def __init__(
        self,
        keys: Iterable[str] = (),
        records: Iterable[KeyRecord] = (),
        tokens: TokenVerifier | None = None,
        token_limits: RateLimits | None = None,
    ) -> None:
        keys = tuple(keys)
        if any(len(key) < _SHORTEST_KEY for key in keys):
            raise ConfigError(
                f"{KEYS_VARIABLE} holds a key of fewer than {_SHORTEST_KEY} characters",
                "long random keys, separated by commas",
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'",
            )
        self._plain = tuple(
            (_digest(key), Caller(f"key:{_digest(key)[:4].hex()}", _PLAIN_SCOPES, RateLimits()))
            for key in keys
        )
        self._records = {
            record.id: (
                record,
                Caller(f"key:{record.id}:{record.name}", frozenset(record.scopes), record.limits),
            )
            for record in records
        }
        self._tokens = tokens
        self._token_limits = token_limits or RateLimits()

    @classmethod
    def from_environment(cls, loopback_only: bool) -> ApiKeys:
        """Keys in SENTINODE_API_KEYS (separated by commas), hashes in SENTINODE_KEY_FILE, and tokens of
        SENTINODE_JWT_ISSUER for SENTINODE_JWT_AUDIENCE, signed by a key of SENTINODE_JWKS_FILE.

        Raises ConfigError where there is none and the endpoint can be reached from beyond loopback, and where a
        file cannot be used.
        """
        keys = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
        file = os.environ.get(KEY_FILE_VARIABLE, "")
        records = KeyFile.read(Path(file)).keys if file else ()
        tokens = _verifier()
        if not keys and not records and tokens is None and not loopback_only:
            raise ConfigError(
                "the endpoint can be reached from other machines and has no API keys",
                f"{KEYS_VARIABLE} or {KEY_FILE_VARIABLE} in the environment of the Ray nodes, "
                "or http_options.host 127.0.0.1, no HAProxy and no gRPC port (both listen on all interfaces)",
                "make a key with `sentinode keys`, and mount its file before Ray starts",
            )
        return cls(keys, records, tokens)

    @property
    def are_required(self) -> bool:
        """Whether a request needs a credential at all."""
        return bool(self._plain or self._records or self._tokens)

    def identify(self, authorization: str, x_api_key: str) -> Caller | None:
        """The caller with these header values (``""`` for none): ``Authorization: Bearer <key or token>``, or
        ``X-API-Key: <key>``; None where the credential is missing or not valid.
        """
        if not self.are_required:
            return ANONYMOUS
        scheme, _, bearer = authorization.partition(" ")
        credential = bearer.strip() if scheme.lower() == "bearer" else x_api_key
        if not credential or len(credential) > _LONGEST_CREDENTIAL:
            return None
        known = self._records.get(key_id(credential) or "")
        if known is not None and known[0].fits(credential):
            return known[1]
        caller = self._plain_caller(credential)
        if caller is None and self._tokens is not None and credential.count(".") == 2:
            verified = self._tokens.verify(credential)
            caller = Caller(f"jwt:{verified[0]}", verified[1], self._token_limits) if verified else None
        return caller

    def admits(self, headers: Headers) -> bool:
        """Whether the request has a valid credential."""
        return self.identify(headers.get("authorization", ""), headers.get("x-api-key", "")) is not None

    def _plain_caller(self, credential: str) -> Caller | None:
        given = _digest(credential)
        # All keys are compared, each in constant time: the answer's timing tells nothing about any of them.
        matches = [caller for known, caller in self._plain if hmac.compare_digest(given, known)]
        return matches[0] if matches else None


def _verifier() -> TokenVerifier | None:
    values = {name: os.environ.get(name, "") for name in JWT_VARIABLES}
    if not any(values.values()):
        return None
    missing = [name for name, value in values.items() if not value]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} is not set", "all of " + ", ".join(JWT_VARIABLES) + ", or none"
        )
    # Costs a tenth of a second and a package that endpoints with API keys do without.
    from sentinode.serving.tokens import JwtArgs, TokenVerifier

    issuer, audience, file = values.values()
    return TokenVerifier(JwtArgs(issuer=issuer, audience=audience, jwks_file=Path(file)))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
