"""Stores as pyarrow file systems, for Ray's ``storage_filesystem``."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pyarrow import fs

from sentinode.errors import ConfigError
from sentinode.storage.urls import join_key, parse_url


def arrow_filesystem(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of ``url`` and the path in it: ``bucket/prefix`` or an absolute folder, which is made.

    Endpoint, region and credentials come from the environment. Raises ConfigError for an unusable URL.
    """
    place = parse_url(url)
    if isinstance(place, Path):
        place.mkdir(parents=True, exist_ok=True)
        return fs.LocalFileSystem(), str(place)
    return EnvironmentS3(), join_key(place.bucket, place.prefix).rstrip("/")


class EnvironmentS3(fs.S3FileSystem):  # type: ignore[misc]
    """pyarrow's S3 with endpoint, region and credentials of the process that it is in.

    Pickled it carries nothing; pyarrow's own pickles carry access keys and lose the retry strategy.
    """

    def __init__(self) -> None:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        address = urlsplit(endpoint or "https://")
        if endpoint and (address.scheme not in ("http", "https") or not address.netloc):
            raise ConfigError(f"AWS_ENDPOINT_URL is {endpoint!r}", "a URL such as http://host:port")
        # Only by this variable can the trailing checksums be turned off, which Ceph 16 refuses with HTTP 411.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        super().__init__(
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
            scheme=address.scheme,
            endpoint_override=address.netloc or None,
            connect_timeout=5,
            request_timeout=30,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=5),
            # The empty first request that opens a file at once breaks moto's completion of multipart uploads.
            allow_delayed_open=True,
        )

    def __reduce__(self) -> tuple[type[EnvironmentS3], tuple[()]]:
        return EnvironmentS3, ()
