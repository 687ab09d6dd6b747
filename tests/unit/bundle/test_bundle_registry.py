"""Aliases point to bundles that exist and move by compare-and-swap."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from serving_parts import make_card, sealed_registry

from sentinode.bundle.registry import read_alias, resolve, set_alias
from sentinode.errors import BundleError, PreconditionFailedError


def test_alias_keeps_its_history(tmp_path: Path) -> None:
    store, first, parts = sealed_registry(tmp_path)
    second = parts.seal(store, make_card(licence="CC0"))
    day = datetime(2024, 5, 1, tzinfo=UTC)
    set_alias(store, "candidate", first, day)
    set_alias(store, "candidate", second)
    set_alias(store, "candidate", second)
    alias = read_alias(store, "candidate")
    assert [move.bundle for move in alias.history] == [first, second]
    assert alias.history[0].moved_at == day
    assert resolve(store, "candidate") == second
    assert resolve(store, first) == first


def test_alias_of_a_bundle_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    store, _, _ = sealed_registry(tmp_path)
    with pytest.raises(BundleError, match="there is no bundle"):
        set_alias(store, "candidate", "b" * 64)
    with pytest.raises(BundleError, match="there is no alias candidate"):
        resolve(store, "candidate")


@pytest.mark.parametrize("name", ["../x", "", "A", "a/b"])
def test_what_is_no_alias_name_is_refused(tmp_path: Path, name: str) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    with pytest.raises(BundleError, match="neither a digest nor an alias"):
        set_alias(store, name, digest)


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
