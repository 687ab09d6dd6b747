"""A job of a Ray cluster is followed over connections that break, and nothing of its log comes twice."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from aiohttp import web

from sentinode.cli import run_step
from sentinode.commands import submit_follow

LOG = "epoch 1 of 2\nepoch 2 of 2\n"


class Head:
    """A DOUBLE of a head's dashboard, whose connections break as a port-forward's do."""

    def __init__(self) -> None:
        self.url = ""
        self.breaks = 2
        """How many connections to the log end in its middle, each five letters on."""
        self.answers: Callable[[], bool] = lambda: True
        """Whether it says anything else."""
        self.takes = True
        self.tails = 0

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/api/version", _version)
        app.router.add_get("/api/packages/{protocol}/{name}", _package)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get("/api/jobs/{job}/logs/tail", self._tail)
        app.router.add_get("/api/jobs/{job}", self._info)
        return app

    async def _submit(self, request: web.Request) -> web.Response:
        if not self.takes:
            _cut(request)
        return web.json_response({"job_id": "x", "submission_id": "first"})

    async def _tail(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.tails += 1
        end = 5 * self.tails if self.tails <= self.breaks else len(LOG)
        for start in range(0, end, 7):
            await socket.send_str(LOG[start : min(start + 7, end)])
        if self.tails <= self.breaks:
            await asyncio.sleep(0.1)
            _cut(request)
        return socket

    async def _info(self, request: web.Request) -> web.Response:
        if not self.answers():
            _cut(request)
        status = "RUNNING" if self.tails <= self.breaks else "SUCCEEDED"
        return web.json_response(
            {"type": "SUBMISSION", "status": status, "entrypoint": "", "submission_id": "first"}
        )


async def _version(_: web.Request) -> web.Response:
    version = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x", "session_name": "s"}
    return web.json_response(version)


async def _package(_: web.Request) -> web.Response:
    return web.json_response({})


def _cut(request: web.Request) -> None:
    assert isinstance(request.transport, asyncio.Transport)
    request.transport.abort()


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    made, loop, up = Head(), asyncio.new_event_loop(), threading.Event()
    monkeypatch.setattr(submit_follow, "_POLL_S", 0.05)
    monkeypatch.setattr(submit_follow, "_AGAIN_S", 0.05)

    async def serve() -> None:
        runner = web.AppRunner(made.app())
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        up.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await runner.cleanup()

    task = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,), daemon=True)
    thread.start()
    assert up.wait(30)
    yield made
    loop.call_soon_threadsafe(task.cancel)
    thread.join(30)
    loop.close()


@pytest.fixture
def submit(head: Head, tmp_path: Path) -> Callable[[], int]:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "train.py").touch()
    return lambda: run_step("submit", ["train", "--address", head.url, "--working-dir", str(tmp_path)])


def test_a_log_that_breaks_off_is_taken_up_again(
    head: Head, submit: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit() == 0
    shown = capsys.readouterr()
    assert shown.out == LOG
    assert head.tails == 3
    assert "the connection to job first broke and is taken up again" in shown.err
    assert "job first is done" in shown.err


def test_a_job_out_of_sight_is_not_a_failed_one(
    head: Head, submit: Callable[[], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit_follow, "_PATIENCE_S", 0.3)
    head.breaks, head.answers = 1000, lambda: head.tails < 2
    assert submit() == submit_follow.STILL_RUNNING
    told = capsys.readouterr().err
    assert f"it may go on; follow it by: ray job logs --follow --address {head.url} first" in told
    assert "Traceback" not in told


def test_a_connection_that_breaks_while_the_job_is_handed_over(
    head: Head, submit: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    head.takes = False
    assert submit() == 1
    told = capsys.readouterr().err
    assert "broke while the job was handed over" in told
    assert f"ray job list --address {head.url}" in told
    assert "Traceback" not in told
