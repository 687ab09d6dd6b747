"""Bearer tokens of an identity provider: JWT (RFC 7519), signed by a key of a JWKS file (RFC 7517).

Only asymmetric signatures count: with a shared secret, who can check a token could also make one. The file is read
once; the endpoint fetches nothing over the network.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet
from pydantic import Field

from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.serving.keys import Scope

logger = logging.getLogger(__name__)

_ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
_LONGEST_TOKEN: Final = 8192
_MOST_REMEMBERED: Final = 4096
_LEEWAY_S: Final = 30


class JwtArgs(Frozen):
    """Which tokens are accepted."""

    issuer: str = Field(min_length=1)
    """The ``iss`` claim, exactly."""
    audience: str = Field(min_length=1)
    """A value of the ``aud`` claim."""
    jwks_file: Path
    """Public keys of the issuer, as a JWKS on the replica's disk."""


class TokenVerifier:
    """Checks signature, issuer, audience, times and scopes. Tokens that passed are remembered until they expire.

    Raises ConfigError where the JWKS file has no public key to verify with.
    """

    def __init__(self, args: JwtArgs) -> None:
        self._keys = _public_keys(args.jwks_file)
        self._claims = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": args.issuer},
            aud={"essential": True, "value": args.audience},
            sub={"essential": True},
            exp={"essential": True},
        )
        self._remembered: dict[str, tuple[float, str, frozenset[Scope]]] = {}

    def verify(self, token: str) -> tuple[str, frozenset[Scope]] | None:
        """Subject and scopes of a valid token; None for any other."""
        now_s = time.time()
        known = self._remembered.get(token)
        if known is not None and now_s < known[0]:
            return known[1:]
        if len(token) > _LONGEST_TOKEN:
            return None
        try:
            claims = jwt.decode(token, self._keys, algorithms=list(_ALGORITHMS)).claims
            self._claims.validate(claims)
            subject, expires_s = claims["sub"], float(claims["exp"])
        except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
            # What the library raises for hostile text is not closed; each of these means: not a valid token.
            return None
        if not isinstance(subject, str) or not 0 < len(subject) <= 256:
            return None
        scopes = _scopes(claims.get("scope", ""))
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[token] = (expires_s, subject, scopes)
        return subject, scopes


def _scopes(claim: Any) -> frozenset[Scope]:
    words = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    known = {scope.value: scope for scope in Scope}
    return frozenset(known[word] for word in words if isinstance(word, str) and word in known)


def _public_keys(path: Path) -> KeySet:
    try:
        entries = json.loads(path.read_bytes())["keys"]
        usable = [entry for entry in entries if entry.get("kty") in ("RSA", "EC", "OKP")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is no readable JWKS ({type(error).__name__}: {error})",
            'a file {"keys": [...]} with the issuer\'s public keys',
            "save the provider's jwks_uri there",
        ) from error
    keys = [key for key in map(_public_key, usable) if key is not None]
    if not keys:
        raise ConfigError(
            f"{path} holds no RSA, EC or OKP key that can be read",
            "public keys: secrets shared with the issuer do not count",
        )
    return KeySet(keys)


def _public_key(entry: dict[str, Any]) -> Key | None:
    """None for a key of a curve, say, that is not known here: providers add new kinds beside those in use, and the
    others go on counting (RFC 7517, section 5).
    """
    try:
        key = JWKRegistry.import_key(entry)
        key.ensure_kid()
    except Exception as error:  # noqa: BLE001 - what the library raises for odd keys is not closed
        logger.warning(
            "key %r of the JWKS is left out: it cannot be read (%s: %s)",
            entry.get("kid"), type(error).__name__, error,
        )  # fmt: skip
        return None
    return key
