"""Storage URLs and keys: ``s3://bucket/prefix`` or a local folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from sentinode.errors import ConfigError

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?:/|(?<=^s3:))")
"""Folders may have colons in their names; but whoever writes s3: means no folder."""
_FORMS = "s3://bucket/prefix or a local folder"


class S3Location(NamedTuple):
    """A bucket and the key or prefix (perhaps empty, no slash at either end) within it."""

    bucket: str
    prefix: str


def parse_url(url: str) -> S3Location | Path:
    """The place that ``url`` names; a local one as an absolute path.

    Raises ConfigError for an empty URL, another scheme, an invalid bucket name, or ``..`` in a key.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        if not url.strip() or "\0" in url:
            raise ConfigError(f"storage URL {url!r} is empty or no path", _FORMS)
        return Path(url).expanduser().absolute()
    if not url.startswith("s3://"):
        raise ConfigError(f"storage URL {_shown(url)} has the scheme {scheme[1]!r}", _FORMS)
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"storage URL {url!r} names no bucket", _FORMS)
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"storage URL {_shown(url)} has no valid bucket name",
            "3 to 63 lower-case letters, digits, dots or dashes",
            "endpoint and credentials are not part of a URL: set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        )
    prefix = prefix.rstrip("/")
    return S3Location(bucket, check_key(prefix) if prefix else "")


def absolute_url(url: str) -> str:
    """``url`` such that it names the same place in every process: a relative folder becomes an absolute one.

    Raises ConfigError where the URL cannot be used.
    """
    place = parse_url(url)
    return str(place) if isinstance(place, Path) else url


StoreUrl = Annotated[str, AfterValidator(absolute_url)]
"""A field that holds a storage URL. Workers have other working directories, so it is made absolute at once."""


def join_url(base: str, *parts: str) -> str:
    """``base`` and ``parts`` with one slash between them. Raises ConfigError for a part that climbs."""
    return "/".join([base.rstrip("/"), *(check_key(part.rstrip("/")) for part in parts)])


def join_key(prefix: str, key: str) -> str:
    """``prefix/key``, or ``key`` where the prefix is empty."""
    return f"{prefix}/{key}" if prefix else key


def check_key(key: str) -> str:
    """``key`` itself, if it is a relative path without empty, ``.`` or ``..`` parts and control characters.

    Raises ConfigError otherwise, and for more than S3's 1,024 bytes.
    """
    parts = key.split("/")
    if not all(parts) or "." in parts or ".." in parts or not key.isprintable() or len(key.encode()) > 1024:
        raise ConfigError(
            f"object key {key!r} cannot be used",
            "a relative path of at most 1024 bytes without empty, '.' or '..' parts",
        )
    return key


def check_prefix(prefix: str) -> str:
    """``prefix`` itself, if keys can start with it: like a key, but perhaps empty or ending within a part."""
    if prefix.rstrip("/"):
        check_key(prefix.removesuffix("/"))
    elif prefix:
        raise ConfigError(f"object prefix {prefix!r} cannot be used", "a prefix without a leading slash")
    return prefix


def _shown(url: str) -> str:
    """``url`` for a message, without what may be a password."""
    return repr(re.sub(r"//[^/]*@", "//***@", url))


def check_condition(if_none_match: bool, if_match: str | None) -> None:
    """Raises ConfigError where a put asks for both conditions at once."""
    if if_none_match and if_match is not None:
        raise ConfigError("a conditional put got both if_none_match and if_match", "one of them")
