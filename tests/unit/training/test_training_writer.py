"""The background writer: order, replacement, patience, errors."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from sentinode.errors import StoreAccessError, StoreError
from sentinode.training import writer
from sentinode.training.writer import BackgroundWriter


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "RETRY_EVERY_S", 0.01)


def failing(times: int, done: list[str], error: type[StoreError] = StoreError) -> Callable[[], None]:
    left = [times]

    def job() -> None:
        if left[0]:
            left[0] -= 1
            raise error("the store is away")
        done.append("written")

    return job


def test_a_waiting_job_is_replaced_by_a_newer_one_of_its_kind() -> None:
    done: list[str] = []
    busy, go = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        go.wait(5)
        done.append("first")

    with BackgroundWriter(1.0) as background:
        background.submit("a", hold)
        assert busy.wait(5)
        background.submit("a", lambda: done.append("second"))
        background.submit("b", lambda: done.append("other"))
        background.submit("a", lambda: done.append("third"))
        go.set()
    assert sorted(done) == ["first", "other", "third"]


def test_a_store_that_comes_back_loses_nothing() -> None:
    done: list[str] = []
    with BackgroundWriter(5.0) as background:
        background.submit("a", failing(4, done))
    assert done == ["written"]


def test_a_newer_job_takes_the_place_of_one_that_is_tried_again() -> None:
    done: list[str] = []
    with BackgroundWriter(5.0) as background:
        background.submit("a", failing(10**9, done))
        background.submit("a", failing(1, done))
    assert done == ["written"]


def test_after_the_patience_the_error_is_raised_in_the_training() -> None:
    def train() -> None:
        with BackgroundWriter(0.05) as background:
            background.submit("a", failing(10**9, []))
            with pytest.raises(StoreError, match="away"):
                background.flush()
            background.submit("b", failing(0, []))

    with pytest.raises(StoreError, match="away"):
        train()


def test_refused_credentials_are_not_tried_again() -> None:
    with pytest.raises(StoreAccessError), BackgroundWriter(60.0) as background:
        background.submit("a", failing(10**9, [], StoreAccessError))


def test_what_is_written_at_leisure_may_fail() -> None:
    done: list[str] = []
    with BackgroundWriter(60.0) as background:
        background.submit("a", failing(1, done), at_leisure=True)
        background.flush()
        background.submit("b", lambda: done.append("b"))
    assert done == ["b"]


def test_an_error_of_the_training_is_not_hidden_by_one_of_the_store() -> None:
    def train() -> None:
        with BackgroundWriter(0.0) as background:
            background.submit("a", failing(10**9, []))
            raise ValueError("loss")

    with pytest.raises(ValueError, match="loss"):
        train()
