"""A body of pixels by way of a real uvicorn: what arrives, in how many looks, and what a client may do wrong."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from served_parts import served
from starlette.types import Receive, Scope, Send

from sentinode.errors import RequestError
from sentinode.serving.http_parts import ClientGoneError, read_into, refuse, send_json

SHAPE = (64, 96, 96, 3)


class Reads:
    """Reads pixels of ``SHAPE``, and answers with their sum."""

    def __init__(self, *, knows_uvicorn: bool) -> None:
        self.knows_uvicorn = knows_uvicorn
        self.read: list[np.ndarray] = []
        self.held_bytes = 0
        self.is_gone = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pixels_BHWC = np.empty(SHAPE, np.uint8)
        connection: Any = receive.__self__  # type: ignore[attr-defined]

        async def looked_at() -> Any:
            message = await receive()
            self.held_bytes = max(self.held_bytes, len(message.get("body", b"")))
            return message

        try:
            await read_into(looked_at, pixels_BHWC, connection if self.knows_uvicorn else None)
        except RequestError as error:
            await refuse(send, error)
        except ClientGoneError:
            self.is_gone = True
        else:
            self.read.append(pixels_BHWC)
            await send_json(send, b"%d" % pixels_BHWC.sum(dtype=np.int64))


@pytest.fixture(params=[True, False], ids=["uvicorn's", "any server's"])
def reads(request: pytest.FixtureRequest) -> Reads:
    return Reads(knows_uvicorn=request.param)


@pytest.fixture
def url(reads: Reads) -> Iterator[str]:
    with served(reads) as url:
        yield url


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, SHAPE, np.uint8)


def test_pixels_arrive_as_they_were_sent_request_after_request(
    reads: Reads, url: str, pixels: np.ndarray
) -> None:
    with httpx.Client() as client:
        for shift in range(3):
            sent = pixels + np.uint8(shift)
            assert client.post(url, content=sent.tobytes()).json() == sent.sum(dtype=np.int64)
            assert np.array_equal(reads.read[-1], sent)


def test_uvicorn_holds_nothing_of_them(reads: Reads, url: str, pixels: np.ndarray) -> None:
    httpx.post(url, content=pixels.tobytes())
    assert (reads.held_bytes == 0) == reads.knows_uvicorn


@pytest.mark.parametrize(("change", "status"), [(-1, 400), (1, 413)])
def test_body_of_another_size_is_refused_and_the_next_is_read(
    reads: Reads, url: str, pixels: np.ndarray, change: int, status: int
) -> None:
    body = pixels.tobytes()
    wrong = body[:change] if change < 0 else body + b"x" * change
    with httpx.Client() as client:
        assert client.post(url, content=wrong).status_code == status
        assert client.post(url, content=body).status_code == 200


def test_client_that_leaves_midway_is_noticed(reads: Reads, url: str, pixels: np.ndarray) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % pixels.nbytes)
        connection.sendall(pixels.tobytes()[:300_000])
    # Answered after the one that left was seen to.
    assert httpx.post(url, content=pixels.tobytes()).status_code == 200
    assert reads.is_gone
    assert len(reads.read) == 1
