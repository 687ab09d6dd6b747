"""The frozen base: closed, canonical, versioned."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sentinode.config import Frozen, Record, canonical_json
from sentinode.errors import ManifestError


class Point(Record):
    x: int = 0
    y: float = 1.5


def test_unknown_fields_and_changes_are_refused() -> None:
    with pytest.raises(ValidationError):
        Point.model_validate({"z": 1})
    with pytest.raises(ValidationError):
        Point().x = 2  # type: ignore[misc]


def test_nan_is_refused() -> None:
    with pytest.raises(ValidationError):
        Point(y=float("nan"))
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json({"a": float("inf")})


def test_canonical_json_does_not_depend_on_order() -> None:
    assert (
        canonical_json({"b": 1, "a": "ü"}) == canonical_json({"a": "ü", "b": 1}) == '{"a":"ü","b":1}'.encode()
    )


def test_digest_follows_content() -> None:
    assert Point(x=1).digest() == Point(x=1).digest() != Point(x=2).digest()


def test_records_come_back() -> None:
    assert Point.from_json(Point(x=3).to_json(), "here") == Point(x=3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "schema_version None"),
        (b'{"schema_version": 2}', "schema_version 2"),
        (b'{"schema_version": 1, "x": "a"}', "x: "),
        (b'{"schema_version": 1, "w": 1}', "w: "),
    ],
)
def test_broken_records_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(ManifestError, match=reason) as caught:
        Point.from_json(data, "s3://bucket/point.json")
    assert "s3://bucket/point.json" in str(caught.value)


def test_frozen_fields_carry_their_docstring() -> None:
    class Documented(Frozen):
        a: int = 0
        """What a is."""

    assert Documented.model_fields["a"].description == "What a is."
