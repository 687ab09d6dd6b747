"""S3-compatible object stores (AWS, Ceph, MinIO, moto) by way of boto3."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig

from sentinode.errors import (
    IntegrityError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreAccessError,
)
from sentinode.storage.files import HIDDEN, Receipt, check_size, temporary_beside, typed_os_errors
from sentinode.storage.interface import ObjectInfo, Progress
from sentinode.storage.s3_client import no_bucket, retried, s3_client, typed_s3_errors
from sentinode.storage.s3_read import DIGEST, ObjectReader
from sentinode.storage.urls import check_condition, check_key, check_prefix, join_key

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class S3Store:
    """The objects of ``bucket`` whose keys start with ``prefix/`` (an empty prefix: all).

    Holds no connection and no credentials: both come from the process and environment that use it. Payloads
    are sent with a signed SHA-256, which the store verifies; ``put`` also keeps it as metadata, which ``get``
    of a whole object verifies.
    """

    bucket: str
    prefix: str = ""

    connect_timeout_s: ClassVar[float] = 5
    read_timeout_s: ClassVar[float] = 30
    attempts: ClassVar[int] = 5
    """Tries of a request, and of a body that breaks off, with random waits that double."""
    part_bytes: ClassVar[int] = 32 << 20
    """Part of a large object that is moved by one thread in one request; smaller objects come in one."""
    threads: ClassVar[int] = 4
    """Threads of one download or upload."""
    connections: ClassVar[int] = 32
    """Connections that a process keeps open."""

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def locate(self, key: str) -> str:
        return f"s3://{self.bucket}/{self._key(key)}"

    def sub(self, prefix: str) -> S3Store:
        return S3Store(self.bucket, self._key(prefix.rstrip("/")))

    def stat(self, key: str) -> ObjectInfo | None:
        try:
            with typed_s3_errors(self.locate(key)):
                head = self._client().head_object(Bucket=self.bucket, Key=self._key(key))
        except ObjectNotFoundError:
            self._require_bucket()
            return None
        return ObjectInfo(key, head["ContentLength"], head["ETag"].strip('"'), head["LastModified"])

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if start == 0 and length is None:
            return self.get_with_etag(key)[0]
        if length == 0:
            self._existing(key)
            return b""
        return bytes(self._reader(key).read(start, length).data)

    def get_with_etag(self, key: str) -> tuple[bytes, str]:
        reader = self._reader(key)
        reading = reader.read()
        if reading.damaged():
            # A second read tells a fault of the wire from a damaged object.
            reading = reader.read()
        if reading.damaged():
            raise IntegrityError(
                f"{self.locate(key)} differs from the SHA-256 that its writer noted",
                f"{reading.sha256}",
                "the object is damaged: restore it or make it anew",
            )
        return bytes(reading.data), reading.etag

    def put(self, key: str, data: bytes, *, if_none_match: bool = False, if_match: str | None = None) -> str:
        check_condition(if_none_match, if_match)
        condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_none_match else {}
        if if_match is not None:
            # Without quotes, as AWS documents it: Ceph 16 compares the header with the bare etag.
            condition = {"IfMatch": if_match}
        digest = hashlib.sha256(data).hexdigest()
        try:
            with typed_s3_errors(self.locate(key)):
                answer = self._client().put_object(
                    Bucket=self.bucket, Key=self._key(key), Body=data, Metadata={DIGEST: digest}, **condition
                )
        except ObjectNotFoundError as error:
            raise PreconditionFailedError(
                f"{self.locate(key)} was removed", f"the version {if_match}"
            ) from error
        except PreconditionFailedError as error:
            # The answer to a first try may have been lost on the way: then the object that is there is ours.
            etag = self._etag_of(key, digest) if retried(error.__cause__) else None
            if etag is None:
                raise
            return etag
        return answer["ETag"].strip('"')

    def download(
        self,
        key: str,
        path: Path,
        *,
        sha256: str | None = None,
        size_bytes: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        with typed_os_errors(str(path)), temporary_beside(path) as temporary:
            try:
                self._fetch(key, temporary, Receipt(sha256, size_bytes), progress)
            except IntegrityError as error:
                # A second download tells a fault of the wire from a damaged object. Its bytes were counted.
                log.warning("downloading again: %s", error.found)
                self._fetch(key, temporary, Receipt(sha256, size_bytes), None)
            temporary.replace(path)

    def upload(self, path: Path, key: str, *, progress: Progress | None = None) -> ObjectInfo:
        where = f"{self.locate(key)} (from {path})"
        transfer = TransferConfig(
            multipart_threshold=self.part_bytes,
            multipart_chunksize=self.part_bytes,
            max_concurrency=self.threads,
            preferred_transfer_client="classic",
        )
        with typed_os_errors(str(path)), typed_s3_errors(where):
            size_bytes = path.stat().st_size
            try:
                self._client().upload_file(
                    str(path), self.bucket, self._key(key), Callback=_one_at_a_time(progress), Config=transfer
                )
            except S3UploadFailedError as error:
                raise error.__context__ or error from error
        info = self.stat(key)
        if info is None:
            raise ObjectNotFoundError(f"{where} was removed right after its upload", "an object")
        check_size(where, info.size_bytes, size_bytes)
        return info

    def list(self, prefix: str = "", *, linked: bool = False) -> Iterator[ObjectInfo]:
        below = f"{self.prefix}/" if self.prefix else ""
        with typed_s3_errors(f"{self.url}/{check_prefix(prefix)}"):
            pages = self._client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=below + prefix):
                for item in page.get("Contents", []):
                    # Consoles leave empty objects "folder/", copies of a local store its locks: neither are keys.
                    base = item["Key"].rpartition("/")[2]
                    if base and not base.startswith(HIDDEN):
                        key, etag = item["Key"].removeprefix(below), item["ETag"].strip('"')
                        yield ObjectInfo(key, item["Size"], etag, item["LastModified"])

    def delete(self, key: str) -> None:
        with typed_s3_errors(self.locate(key)):
            self._client().delete_object(Bucket=self.bucket, Key=self._key(key))

    def _key(self, key: str) -> str:
        return join_key(self.prefix, check_key(key))

    def _client(self) -> S3Client:
        return s3_client(self.connect_timeout_s, self.read_timeout_s, self.attempts, self.connections)

    def _reader(self, key: str) -> ObjectReader:
        return ObjectReader(self._client(), self.bucket, self._key(key), self.locate(key), self.attempts)

    def _existing(self, key: str) -> ObjectInfo:
        info = self.stat(key)
        if info is None:
            raise ObjectNotFoundError(f"{self.locate(key)} does not exist", "an existing object")
        return info

    def _fetch(self, key: str, path: Path, receipt: Receipt, progress: Progress | None) -> None:
        if receipt.expects_at_most(self.part_bytes):
            self._fetch_at_once(key, path, receipt, progress)
        else:
            self._fetch_parts(key, path, receipt, progress)
        receipt.check(self.locate(key))

    def _fetch_at_once(self, key: str, path: Path, receipt: Receipt, progress: Progress | None) -> None:
        with path.open("wb") as file:

            def take(piece: bytes) -> None:
                receipt.add(piece)
                file.write(piece)
                if progress:
                    progress(len(piece))

            self._reader(key).copy(take)

    def _fetch_parts(self, key: str, path: Path, receipt: Receipt, progress: Progress | None) -> None:
        info = self._existing(key)
        receipt.check_size(self.locate(key), info.size_bytes)
        path.touch()
        # Without a buffer, which might read ahead of what is written.
        with path.open("rb", buffering=0) as file:
            parts = self._reader(key).copy_parts(
                path, info.size_bytes, info.etag, self.part_bytes, self.threads
            )
            for length in parts:
                # Hashed from the file, in order, while later parts still come: none waits in memory.
                receipt.add_from(file, length)
                if progress:
                    progress(length)

    def _etag_of(self, key: str, digest: str) -> str | None:
        """The etag of the object if its writer noted ``digest``."""
        with typed_s3_errors(self.locate(key)):
            head = self._client().head_object(Bucket=self.bucket, Key=self._key(key))
        return head["ETag"].strip('"') if head["Metadata"].get(DIGEST) == digest else None

    def _require_bucket(self) -> None:
        """Tell a missing bucket from a missing object, which HEAD answers alike."""
        try:
            with typed_s3_errors(self.url):
                self._client().head_bucket(Bucket=self.bucket)
        except ObjectNotFoundError as error:
            raise no_bucket(self.url) from error
        except StoreAccessError:
            log.debug("may not look at bucket %s, so take it to exist", self.bucket)


def _one_at_a_time(progress: Progress | None) -> Progress | None:
    """``progress`` made safe to call from the threads of a transfer."""
    if progress is None:
        return None
    lock = threading.Lock()

    def locked(size_bytes: int) -> None:
        with lock:
            progress(size_bytes)

    return locked
