"""Errors say what was found, expected and to be done, and cross process borders."""

from __future__ import annotations

import pickle

import pytest

from sentinode import errors
from sentinode.errors import RequestError, SentinodeError, first_of

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SentinodeError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind: type[SentinodeError]) -> None:
    error = kind("95x96 pixels", "96x96", "crop it")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copy) is kind
    assert str(copy) == str(error) == "95x96 pixels\n  expected: 96x96\n  what to do: crop it"


def test_status_survives_pickling() -> None:
    assert pickle.loads(pickle.dumps(RequestError("too large", status=413))).status == 413  # noqa: S301


def test_only_what_is_known_is_said() -> None:
    assert str(SentinodeError("found only")) == "found only"


def test_of_many_names_the_first_are_told_and_the_others_counted() -> None:
    assert first_of([]) == ""
    assert first_of(["a", "b"], 2) == "a, b"
    assert first_of(["a", "b", "c"], 2) == "a, b and 1 more"
