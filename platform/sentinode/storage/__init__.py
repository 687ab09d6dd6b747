"""Object stores: S3-compatible ones and local folders behind one small interface.

Only this room imports boto3 and pyarrow.fs. Endpoint and credentials come from the environment alone
(AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, or a role).
"""

from __future__ import annotations

from pathlib import Path

from sentinode.errors import ConfigError
from sentinode.storage.interface import ObjectInfo, Progress, Store
from sentinode.storage.urls import StoreUrl, absolute_url, join_url, parse_url

__all__ = [
    "ObjectInfo",
    "Progress",
    "Store",
    "StoreUrl",
    "absolute_url",
    "join_url",
    "open_parent",
    "open_store",
]


def open_store(url: str) -> Store:
    """The store at ``url``: ``s3://bucket/prefix`` or a local folder, which need not exist yet.

    Nothing is contacted. Raises ConfigError where the URL cannot be used.
    """
    place = parse_url(url)
    if isinstance(place, Path):
        from sentinode.storage.local import LocalStore

        return LocalStore(place)
    from sentinode.storage.s3 import S3Store

    return S3Store(place.bucket, place.prefix)


def open_parent(url: str) -> tuple[Store, str]:
    """The store that holds the object at ``url``, and the object's key in it (its last part).

    Raises ConfigError where the URL cannot be used or names a whole bucket.
    """
    place = parse_url(url)
    parent, _, key = (
        str(place).rpartition("/") if isinstance(place, Path) else _split(place.bucket, place.prefix)
    )
    if not key:
        raise ConfigError(
            f"storage URL {url!r} names no object", "the URL of an object, e.g. s3://bucket/folder/file"
        )
    return open_store(parent or "/"), key


def _split(bucket: str, prefix: str) -> tuple[str, str, str]:
    return f"s3://{bucket}/{prefix}".rpartition("/") if prefix else ("", "", "")
