"""Aliases point to bundles that exist, move by compare-and-swap, and roll back."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError
from serving_parts import make_card, sealed_registry

from sentinode.bundle.registry import (
    Why,
    list_aliases,
    look,
    move_alias,
    read_alias,
    resolve,
    roll_back,
    set_alias,
)
from sentinode.errors import BundleError, PreconditionFailedError


def test_alias_keeps_its_history(tmp_path: Path) -> None:
    store, first, parts = sealed_registry(tmp_path)
    second = parts.seal(store, make_card(licence="CC0"))
    day = datetime(2024, 5, 1, tzinfo=UTC)
    set_alias(store, "candidate", first, day)
    set_alias(store, "candidate", second, why=Why(by="ci", reason="better", forced=True))
    set_alias(store, "candidate", second)
    alias = read_alias(store, "candidate")
    assert [(move.moved_from, move.bundle) for move in alias.history] == [(None, first), (first, second)]
    assert alias.history[0].moved_at == day
    assert (alias.history[0].by, alias.history[0].forced) == ("", False)
    last = alias.history[1]
    assert (last.by, last.reason, last.forced, last.kind) == ("ci", "better", True, "promotion")
    assert resolve(store, "candidate") == second
    assert resolve(store, first) == first
    assert [alias.name for alias in list_aliases(store)] == ["candidate"]


def test_alias_of_earlier_releases_is_read(tmp_path: Path) -> None:
    store, first, _ = sealed_registry(tmp_path)
    history = [{"bundle": first, "moved_at": "2024-05-01T00:00:00Z"}]
    store.put(
        "aliases/old.json", json.dumps({"schema_version": 1, "name": "old", "history": history}).encode()
    )
    assert read_alias(store, "old").history[0].by == ""


def test_alias_of_a_bundle_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    store, first, _ = sealed_registry(tmp_path)
    set_alias(store, "candidate", first)
    with pytest.raises(BundleError, match="there is no bundle"):
        set_alias(store, "candidate", "b" * 64)
    with pytest.raises(BundleError, match="there is no alias production") as caught:
        resolve(store, "production")
    assert "candidate" in caught.value.expected
    assert list(store.list("pins/")) == []


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b"])
def test_what_is_no_alias_name_is_refused(tmp_path: Path, name: str) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    with pytest.raises(BundleError, match="neither a digest nor an alias"):
        set_alias(store, name, digest)


def test_text_that_would_move_a_cursor_does_not_enter_the_history() -> None:
    with pytest.raises(ValidationError, match="pattern"):
        Why(reason="fine\x1b[2Jnothing to see")


def test_whoever_decided_on_an_older_state_is_told_so(tmp_path: Path) -> None:
    store, first, parts = sealed_registry(tmp_path)
    second, third = (parts.seal(store, make_card(licence=text)) for text in ("CC0", "MIT"))
    set_alias(store, "production", first)
    seen = look(store, "production")
    set_alias(store, "production", second)
    with pytest.raises(PreconditionFailedError, match=f"somebody else meanwhile, to {second}"):
        move_alias(store, seen, third)
    assert resolve(store, "production") == second
    fresh = look(store, "candidate")
    set_alias(store, "candidate", first)
    with pytest.raises(PreconditionFailedError, match="somebody else"):
        move_alias(store, fresh, third)


def test_of_many_movers_at_once_none_is_lost(tmp_path: Path) -> None:
    store, first, parts = sealed_registry(tmp_path)
    digests = [parts.seal(store, make_card(licence=f"licence {i}")) for i in range(6)]
    set_alias(store, "production", first)

    def move(digest: str) -> str | None:
        try:
            set_alias(store, "production", digest)
        except PreconditionFailedError:
            return None
        return digest

    with ThreadPoolExecutor(6) as pool:
        won = [digest for digest in pool.map(move, digests) if digest]
    assert won
    assert {m.bundle for m in read_alias(store, "production").history} == {first, *won}


def test_rollbacks_lead_back_promotion_by_promotion(tmp_path: Path) -> None:
    store, a, parts = sealed_registry(tmp_path)
    b, c = (parts.seal(store, make_card(licence=text)) for text in ("CC0", "MIT"))
    with pytest.raises(BundleError, match="no alias production"):
        roll_back(store, look(store, "production"))
    for digest in (a, b, c):
        set_alias(store, "production", digest)
    assert roll_back(store, look(store, "production"), Why(reason="slow")).bundle == b
    assert roll_back(store, look(store, "production")).bundle == a
    with pytest.raises(BundleError, match="never named another"):
        roll_back(store, look(store, "production"))
    set_alias(store, "production", c)
    alias = roll_back(store, look(store, "production"))
    assert alias.bundle == a
    assert [m.kind for m in alias.history] == ["promotion"] * 3 + ["rollback"] * 2 + ["promotion", "rollback"]
    assert alias.history[3].reason == "slow"
