"""gc keeps what an alias names, named lately or rolls back to, and never takes a bundle from under a promotion."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from serving_parts import Parts, make_card, sealed_registry

from sentinode.bundle import collect as collecting
from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.collect import collect, list_bundles, removable
from sentinode.bundle.pins import HOLD, Hold, mark, pinned, unmark
from sentinode.bundle.registry import look, resolve, roll_back, set_alias
from sentinode.errors import BundleError, ManifestError
from sentinode.storage import Store

NOW = datetime.now(UTC)
AGE = timedelta(days=30)


def aged(store: Store, days: float = 365) -> None:
    """Make every file of the registry look old."""
    at = (NOW - timedelta(days=days)).timestamp()
    for path in Path(store.url).rglob("*"):
        if path.is_file():
            os.utime(path, (at, at))


@pytest.fixture
def four(tmp_path: Path) -> tuple[Store, Parts, list[str]]:
    store, first, parts = sealed_registry(tmp_path)
    digests = [first, *(parts.seal(store, make_card(licence=text)) for text in ("CC0", "MIT", "ISC"))]
    return store, parts, digests


def test_what_aliases_named_within_the_age_is_kept(four: tuple[Store, Parts, list[str]]) -> None:
    store, _, (a, b, c, d) = four
    for digest, days in ((a, 300), (b, 200), (c, 100), (d, 10)):
        set_alias(store, "production", digest, NOW - timedelta(days=days))
    aged(store)
    assert [bundle.digest for bundle in removable(store, AGE, NOW)] == sorted([a, b])
    assert removable(store, timedelta(days=201), NOW) == ()
    removed = collect(store, AGE, NOW)
    assert {bundle.digest for bundle in removed} == {a, b}
    assert all(bundle.size_bytes > 1000 for bundle in removed)
    assert {bundle.digest for bundle in list_bundles(store)} == {c, d}
    assert list(store.list("collecting/")) == []


def test_what_a_rollback_needs_is_kept_however_old(four: tuple[Store, Parts, list[str]]) -> None:
    store, _, (a, b, c, d) = four
    for digest in (a, b, c):
        set_alias(store, "production", digest, NOW - timedelta(days=300))
    set_alias(store, "candidate", d, NOW - timedelta(days=300))
    aged(store)
    assert {bundle.digest for bundle in collect(store, AGE, NOW)} == {a}
    assert roll_back(store, look(store, "production")).bundle == b


def test_what_an_alias_has_just_left_is_kept_whatever_age_is_asked_for(
    four: tuple[Store, Parts, list[str]],
) -> None:
    store, _, (a, b, c, d) = four
    for digest, minutes in ((d, 500), (a, 90), (b, 20)):
        set_alias(store, "production", digest, NOW - timedelta(minutes=minutes))
    roll_back(store, look(store, "production"))  # to a; the next one would lead to d
    aged(store)
    told = {bundle.digest for bundle in removable(store, timedelta(0), NOW)}
    assert told == {c}, "b was left just now"
    assert {bundle.digest for bundle in collect(store, timedelta(0), NOW)} == told


def test_what_was_just_sealed_is_kept_until_its_alias_moves(four: tuple[Store, Parts, list[str]]) -> None:
    store, _, digests = four
    assert collect(store, timedelta(0), NOW) == ()
    aged(store, days=0.5)
    assert {bundle.digest for bundle in removable(store, timedelta(0), NOW)} == set(digests)
    assert removable(store, AGE, NOW) == ()


def test_a_seal_that_never_ended_is_removed_when_old(four: tuple[Store, Parts, list[str]]) -> None:
    store, _, (a, *rest) = four
    store.delete(f"bundles/{a}/card.json")
    for i, digest in enumerate(rest):
        set_alias(store, f"alias{i}", digest)
    aged(store)
    (removed,) = collect(store, AGE, NOW)
    assert (removed.digest, removed.sealed) == (a, False)


def test_a_pinned_bundle_is_kept_and_an_old_pin_forgotten(four: tuple[Store, Parts, list[str]]) -> None:
    store, _, (a, *_) = four
    aged(store)
    with pinned(store, a):
        assert a not in {bundle.digest for bundle in collect(store, AGE, NOW)}
        assert {bundle.digest for bundle in collect(store, AGE, NOW + HOLD * 2)} == {a}


def test_nothing_is_removed_where_an_alias_cannot_be_read(four: tuple[Store, Parts, list[str]]) -> None:
    store, *_ = four
    aged(store)
    store.put("aliases/production.json", b"{")
    with pytest.raises(ManifestError, match="not JSON"):
        collect(store, AGE, NOW)
    assert len(list_bundles(store)) == 4


def test_a_bundle_under_removal_is_neither_promoted_nor_sealed(four: tuple[Store, Parts, list[str]]) -> None:
    store, parts, (a, *_) = four
    assert mark(store, a, NOW)
    assert not mark(store, a, NOW)
    for use in (lambda: set_alias(store, "production", a), lambda: parts.seal(store)):
        with pytest.raises(BundleError, match="is being removed"):
            use()
    assert mark(store, a, NOW + HOLD * 2), "the mark of a collector that was killed is taken over"
    unmark(store, a)
    assert set_alias(store, "production", a).bundle == a


def test_the_mark_of_a_killed_collector_is_forgotten(four: tuple[Store, Parts, list[str]]) -> None:
    store, parts, (a, *rest) = four
    for i, digest in enumerate(rest):
        set_alias(store, f"alias{i}", digest)
    killed = Hold(until=NOW - timedelta(minutes=1)).to_json()
    store.put(f"collecting/{a}.json", killed)
    assert set_alias(store, "production", a).bundle == a
    assert parts.seal(store) == a
    store.put(f"collecting/{'f' * 64}.json", killed)
    assert mark(store, "e" * 64, NOW)
    assert collect(store, AGE, NOW) == ()
    left = {info.key for info in store.list("collecting/")}
    assert left == {f"collecting/{digest}.json" for digest in (a, "e" * 64)}, "those that may be in use stay"


@pytest.mark.parametrize("moment", ["before the mark", "after the mark"])
def test_a_promotion_during_collection_wins_or_is_told(
    four: tuple[Store, Parts, list[str]], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store, _, (a, *rest) = four
    for i, digest in enumerate(rest):
        set_alias(store, f"alias{i}", digest)
    aged(store)
    told: list[str] = []

    def promote() -> None:
        try:
            set_alias(store, "production", a)
        except BundleError as error:
            told.append(error.found)

    def marking(*arguments: object) -> bool:
        if moment == "before the mark":
            promote()
        marked = mark(*arguments)  # type: ignore[arg-type]
        if moment == "after the mark":
            promote()
        return marked

    monkeypatch.setattr(collecting, "mark", marking)
    removed = collect(store, AGE, NOW)
    if moment == "before the mark":
        assert removed == ()
        assert resolve(store, "production") == a
    else:
        assert [bundle.digest for bundle in removed] == [a]
        assert "is being removed" in told[0]


def test_collection_and_promotion_at_random_never_leave_an_alias_without_bundle(
    four: tuple[Store, Parts, list[str]], tmp_path: Path
) -> None:
    store, parts, digests = four
    cards = [make_card(), *(make_card(licence=text) for text in ("CC0", "MIT", "ISC"))]
    aged(store)
    over = threading.Event()

    def keep_collecting() -> None:
        while not over.is_set():
            collect(store, timedelta(0), NOW + timedelta(hours=12))

    collector = threading.Thread(target=keep_collecting)
    collector.start()
    moved = 0
    try:
        for turn in range(200):
            name, number = f"alias{turn % 3}", turn % 4
            with suppress(BundleError):
                parts.seal(store, cards[number])
                set_alias(store, name, digests[number])
                assert open_bundle(store, resolve(store, name), tmp_path / "cache").digest == digests[number]
                moved += 1
            if moved == 30:
                break
    finally:
        over.set()
        collector.join()
    assert moved == 30
    for i in range(3):
        open_bundle(store, resolve(store, f"alias{i}"), tmp_path / "cache")
