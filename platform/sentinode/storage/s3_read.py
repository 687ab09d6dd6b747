"""Reading one object of an S3 store as a stream: what breaks off is resumed, large objects come in parts."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import HTTPClientError, IncompleteReadError

from sentinode.errors import IntegrityError, PreconditionFailedError, StoreError
from sentinode.storage.files import CHUNK_BYTES
from sentinode.storage.s3_client import typed_s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

BACKOFF_S = 0.2
"""Upper bound of the random wait before the second attempt; it doubles with each further one."""

DIGEST = "sha256"
"""Name of the user metadata in which whole-object puts keep the digest (hex) of their content."""


@dataclass(frozen=True)
class Version:
    """The version of an object that was read, and its digest where its writer noted it."""

    etag: str
    sha256: str | None


@dataclass(frozen=True)
class Reading:
    """Bytes of one version of an object, its etag, and its digest where its writer noted it."""

    data: bytearray
    etag: str
    sha256: str | None

    def damaged(self) -> bool:
        """Whether a whole object differs from what its writer noted."""
        return self.sha256 is not None and hashlib.sha256(self.data).hexdigest() != self.sha256


@dataclass(frozen=True)
class ObjectReader:
    """Reads one object. ``where`` names it in errors; a read is tried at most ``attempts`` times."""

    client: S3Client
    bucket: str
    key: str
    where: str
    attempts: int

    def read(self, start: int = 0, length: int | None = None) -> Reading:
        """``length`` bytes (None: all) from offset ``start``. Raises as ``copy``."""
        data = bytearray()
        version = self.copy(data.extend, start, length)
        return Reading(data, version.etag, version.sha256)

    def copy(
        self,
        sink: Callable[[bytes], object],
        start: int = 0,
        length: int | None = None,
        etag: str | None = None,
    ) -> Version:
        """Give ``sink``, piece by piece, ``length`` bytes (None: all) from offset ``start`` of version ``etag``
        (None: the present one).

        A body that stalls, breaks off or is reset is resumed where it stopped, from the same version. Raises
        StoreError after the last attempt, IntegrityError where the object is shorter or changes meanwhile.
        """
        version: Version | None = None
        done = 0
        cause: Exception | None = None
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(random.uniform(0, BACKOFF_S * 2 ** (attempt - 1)))
            response = self._open(start + done, None if length is None else length - done, etag)
            if version is None:
                length = self._length(response, start, length)
                etag = response["ETag"].strip('"')
                version = Version(etag, response.get("Metadata", {}).get(DIGEST))
            try:
                for chunk in _chunks(response):
                    sink(chunk)
                    done += len(chunk)
            except (HTTPClientError, IncompleteReadError) as error:
                cause = error
            if done == length:
                return version
        raise StoreError(
            f"{self.where}: only {done} of {length} bytes came in {self.attempts} attempts ({_words(cause)})",
            "the whole body",
            "check the network and the store, then try again",
        )

    def copy_parts(
        self, path: Path, size_bytes: int, etag: str, part_bytes: int, threads: int
    ) -> Iterator[int]:
        """Fill the file ``path`` with the whole object, by threads of which each fetches a part at a time.

        Yields the length of each part once it is written, in order. Raises as ``copy``, and OSError.
        """

        def fetch(start: int) -> int:
            length = min(part_bytes, size_bytes - start)
            with path.open("r+b") as file:
                file.seek(start)
                self.copy(file.write, start, length, etag)
            return length

        pool = ThreadPoolExecutor(threads, thread_name_prefix="s3-read")
        try:
            yield from pool.map(fetch, range(0, size_bytes, part_bytes))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _open(self, start: int, length: int | None, etag: str | None) -> GetObjectOutputTypeDef:
        request: dict[str, Any] = {"Bucket": self.bucket, "Key": self.key}
        if start or length is not None:
            request["Range"] = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
        if etag is not None:
            request["IfMatch"] = f'"{etag}"'
        try:
            with typed_s3_errors(self.where):
                response = self.client.get_object(**request)
        except PreconditionFailedError as error:
            raise IntegrityError(
                f"{self.where} was replaced while it was being read", "one version", "read it again"
            ) from error
        if "Range" in request and not response.get("ContentRange", "").startswith(f"bytes {start}-"):
            raise StoreError(f"{self.where}: the store ignored the range asked for", f"{request['Range']}")
        return response

    def _length(self, response: GetObjectOutputTypeDef, start: int, length: int | None) -> int:
        """Bytes to expect; IntegrityError where the object ends before ``start + length``."""
        coming = response["ContentLength"]
        if length is not None and coming < length:
            raise IntegrityError(f"{self.where} has {start + coming} bytes", f"at least {start + length}")
        return coming


def _chunks(response: GetObjectOutputTypeDef) -> Iterator[bytes]:
    body = response["Body"]
    try:
        while chunk := body.read(CHUNK_BYTES):
            yield chunk
    finally:
        body.close()


def _words(cause: Exception | None) -> str:
    """What broke a body: the error beneath botocore's, which says more."""
    return str(getattr(cause, "kwargs", {}).get("error", cause))
