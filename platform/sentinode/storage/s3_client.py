"""The boto3 client (one per process and environment) and botocore's errors made typed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from sentinode.errors import (
    ConfigError,
    IntegrityError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreAccessError,
    StoreError,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
    SSOError,
)
_REFUSED = {
    "AccessDenied",
    "AllAccessDisabled",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_LOST = {"ConditionalRequestConflict", "OperationAborted", "PreconditionFailed"}
_DAMAGED = {"BadDigest", "IncompleteBody", "InvalidDigest", "InvalidRange", "XAmzContentSHA256Mismatch"}
_SIGN_IN = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or give this machine a role"
)
_CHECK_ENDPOINT = "check the network and AWS_ENDPOINT_URL, then try again"


def s3_client(connect_timeout_s: float, read_timeout_s: float, attempts: int, connections: int) -> S3Client:
    """The client for the environment as it is now, with time-outs and at most ``attempts`` tries a request.

    Thread-safe and never shared over a fork. Raises ConfigError for an endpoint that is no URL.
    """
    environment = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    return _client(os.getpid(), environment, connect_timeout_s, read_timeout_s, attempts, connections)


@lru_cache(maxsize=8)
def _client(
    _pid: int,
    _environment: tuple[tuple[str, str], ...],
    connect_timeout_s: float,
    read_timeout_s: float,
    attempts: int,
    connections: int,
) -> S3Client:
    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=connections,
        tcp_keepalive=True,
        # The signed SHA-256 of every payload is verified by AWS and by Ceph alike; the trailing CRC of
        # boto3's defaults is not understood by many S3-compatible servers.
        s3={"payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # boto3 itself reads only AWS_DEFAULT_REGION.
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    try:
        with typed_s3_errors("the S3 client"):
            return boto3.session.Session().client("s3", region_name=region, config=config)
    except ValueError as error:
        raise ConfigError(
            f"the S3 client cannot be made: {error}", "a URL such as http://host:port in AWS_ENDPOINT_URL"
        ) from error


@contextmanager
def typed_s3_errors(where: str) -> Iterator[None]:
    """Turn what boto3 raises into a StoreError or one of its kinds that names ``where`` and the cause."""
    try:
        yield
    except ClientError as error:
        raise _from_response(error, where) from error
    except _NO_CREDENTIALS as error:
        raise StoreAccessError(f"{where}: {error}", "credentials in the environment", _SIGN_IN) from error
    except ResponseParserError as error:
        raise StoreError(
            f"{where}: the answer is not S3's ({error})", "an S3 endpoint", _CHECK_ENDPOINT
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        raise StoreError(f"{where}: {error}", "an answer from the store", _CHECK_ENDPOINT) from error


def retried(error: BaseException | None) -> bool:
    """Whether botocore had sent the refused request more than once."""
    return isinstance(error, ClientError) and error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0


def no_bucket(cause: str) -> StoreError:
    """The error for a bucket that is not there."""
    return StoreError(
        f"{cause}: no such bucket", "an existing bucket", "create it, or correct the URL or AWS_ENDPOINT_URL"
    )


def _from_response(error: ClientError, where: str) -> StoreError:
    answer = error.response.get("Error", {})
    metadata = error.response.get("ResponseMetadata", {})
    code = answer.get("Code", "")
    status = metadata.get("HTTPStatusCode", 0)
    tries = metadata.get("RetryAttempts", 0) + 1
    cause = f"{where}: {code} {answer.get('Message', '')} (HTTP {status}, {tries} attempts)"
    if code == "NoSuchBucket":
        return no_bucket(cause)
    if code in _REFUSED or status in (401, 403):
        return StoreAccessError(cause, "credentials that may do this and have not expired", _SIGN_IN)
    if code in _LOST or status in (409, 412):
        return PreconditionFailedError(cause, "the version that was read", "read it again")
    if code in _DAMAGED or status == 416:
        return IntegrityError(cause, "as many bytes as were asked for or sent")
    if status == 404:
        return ObjectNotFoundError(cause, "an existing object")
    if status == 400 and error.operation_name.startswith("Head"):
        # A reply to HEAD has no body, so S3 cannot say what a 400 is about.
        return StoreAccessError(
            cause, "a request that the store accepts", f"often an expired session token: {_SIGN_IN}"
        )
    return StoreError(cause, "success", "try again later, or look into the store's log")
