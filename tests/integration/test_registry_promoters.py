"""Sixteen promoters in processes of their own want one alias: in each round one wins and the others are told."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from registry_worker import contend, take_barrier
from serving_parts import make_card, make_parts

from sentinode.bundle.registry import read_alias, set_alias
from sentinode.storage import open_store

PROMOTERS = 16
ROUNDS = 3


@pytest.fixture(scope="module")
def promoters() -> Iterator[ProcessPoolExecutor]:
    """Sixteen processes that wait for each other."""
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(
            PROMOTERS, context, initializer=take_barrier, initargs=(manager.Barrier(PROMOTERS),)
        ) as pool,
    ):
        yield pool


@pytest.mark.parametrize(
    "server",
    [
        pytest.param(None, id="local"),
        pytest.param("embedded_store", id="moto"),
        pytest.param("ceph_gateway", marks=pytest.mark.ceph, id="ceph"),
    ],
)
def test_one_promoter_wins_each_round(
    server: str | None,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    promoters: ProcessPoolExecutor,
    tmp_path: Path,
) -> None:
    running = request.getfixturevalue(server) if server else None
    environment = dict(running.environment) if running else {}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    url = f"s3://{running.bucket}/{uuid4().hex}" if running else str(tmp_path / "registry")
    store, parts = open_store(url), make_parts(tmp_path / "parts")
    # Two sets of targets, used in turns: nobody finds the alias where he wants it.
    first, *digests = (parts.seal(store, make_card(licence=f"licence {i}")) for i in range(2 * PROMOTERS + 1))
    set_alias(store, "production", first)

    tasks = [promoters.submit(contend, environment, url, digests, who) for who in range(PROMOTERS)]
    outcomes = [task.result(timeout=300) for task in tasks]

    history = read_alias(store, "production").history
    assert len(history) == 1 + ROUNDS
    for turn in range(ROUNDS):
        told = [outcome[turn] for outcome in outcomes]
        (winner,) = (who for who, text in enumerate(told) if text == "moved")
        others = [text for text in told if text != "moved"]
        assert all(
            "PreconditionFailedError: alias production was moved by somebody else" in t for t in others
        )
        move = history[1 + turn]
        assert (move.by, move.moved_from) == (f"promoter {winner}, turn {turn}", history[turn].bundle)
    assert list(store.list("pins/")) == []
