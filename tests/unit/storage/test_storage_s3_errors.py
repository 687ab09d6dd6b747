"""How answers of S3 servers become typed errors."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from sentinode.errors import (
    IntegrityError,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreAccessError,
    StoreError,
)
from sentinode.storage.s3_client import retried, typed_s3_errors

WHERE = "s3://bucket/key"


def answer(code: str, status: int, operation: str = "GetObject", retries: int = 0) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "words of the server"},
        "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": retries},
    }
    return ClientError(response, operation)


def typed(error: Exception) -> StoreError:
    with pytest.raises(StoreError) as caught, typed_s3_errors(WHERE):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchKey", 404, ObjectNotFoundError),
        ("404", 404, ObjectNotFoundError),
        ("NoSuchBucket", 404, StoreError),
        ("AccessDenied", 403, StoreAccessError),
        ("403", 403, StoreAccessError),
        ("SignatureDoesNotMatch", 403, StoreAccessError),
        ("ExpiredToken", 400, StoreAccessError),
        ("InvalidToken", 400, StoreAccessError),
        ("PreconditionFailed", 412, PreconditionFailedError),
        ("412", 412, PreconditionFailedError),
        ("ConditionalRequestConflict", 409, PreconditionFailedError),
        ("BadDigest", 400, IntegrityError),
        ("XAmzContentSHA256Mismatch", 400, IntegrityError),
        ("InvalidRange", 416, IntegrityError),
        ("SlowDown", 503, StoreError),
        ("InternalError", 500, StoreError),
        ("InvalidRequest", 400, StoreError),
    ],
)
def test_answers(code: str, status: int, kind: type[StoreError]) -> None:
    error = typed(answer(code, status))
    assert type(error) is kind
    assert error.found.startswith(f"{WHERE}: {code} words of the server")
    assert error.expected


def test_a_400_to_head_points_at_the_token() -> None:
    error = typed(answer("400", 400, "HeadObject"))
    assert type(error) is StoreAccessError
    assert "expired" in error.remedy


def test_no_answer_and_no_credentials() -> None:
    assert "AWS_ENDPOINT_URL" in typed(EndpointConnectionError(endpoint_url="http://host:1")).remedy
    assert type(typed(NoCredentialsError())) is StoreAccessError


def test_attempts_are_told() -> None:
    assert "5 attempts" in typed(answer("SlowDown", 503, retries=4)).found
    assert retried(answer("PreconditionFailed", 412, retries=1))
    assert not retried(answer("PreconditionFailed", 412))
    assert not retried(None)


def test_errors_cross_processes() -> None:
    error = typed(answer("SlowDown", 503))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301
