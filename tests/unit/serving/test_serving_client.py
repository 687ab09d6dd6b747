"""The client against servers that are busy, broken, forgetful or silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sentinode.errors import ConfigError, RequestError, SentinodeError
from sentinode.serving.client import Client
from sentinode.serving.protocol import Prediction, Refusal, Timing

PREDICTION = Prediction(
    probability=0.25,
    raw_probability=0.25,
    prevalence_adjusted_probability=None,
    verdict="negative",
    abstained=False,
    flags=(),
    model="default",
    operating_point="balanced",
    threshold=0.5,
    bundle="e" * 64,
    timing_ms=Timing(wait=1, decode=1, gate=1, inference=1),
)
Behaviour = Callable[["Handler", int], None]


class Handler(BaseHTTPRequestHandler):
    """Answers as its server's behaviour says; the behaviour gets the number of the request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:  # type: ignore[attr-defined]
            self.server.asked += 1  # type: ignore[attr-defined]
            number = self.server.asked  # type: ignore[attr-defined]
        self.server.behaviour(self, number)  # type: ignore[attr-defined]

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def server(behaviour: Behaviour) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        httpd.daemon_threads = True
        httpd.block_on_close = False
        httpd.__dict__.update(behaviour=behaviour, asked=0, lock=threading.Lock())
        threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
        yield httpd
        httpd.shutdown()


def url_of(httpd: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{httpd.server_port}"


def good(handler: Handler, _: int) -> None:
    handler.answer(200, PREDICTION.model_dump_json().encode())


def test_busy_endpoint_is_asked_again() -> None:
    def behaviour(handler: Handler, number: int) -> None:
        if number < 3:
            handler.answer(503, b"busy", Retry_After="0")
        else:
            good(handler, number)

    with server(behaviour) as httpd, Client(url_of(httpd)) as client:
        assert client.predict(b"image") == PREDICTION


def test_endpoint_that_stays_busy_is_given_up() -> None:
    with server(lambda handler, _: handler.answer(503, b"busy", Retry_After="0")) as httpd:
        with Client(url_of(httpd)) as client, pytest.raises(SentinodeError, match="503: busy"):
            client.predict(b"image")
        assert httpd.__dict__["asked"] == 6


def test_kept_connection_that_the_server_closed_is_opened_anew() -> None:
    def behaviour(handler: Handler, number: int) -> None:
        good(handler, number)
        handler.close_connection = True

    with server(behaviour) as httpd, Client(url_of(httpd), connections=2) as client:
        assert [client.predict(b"image") for _ in range(3)] == [PREDICTION] * 3
        assert list(client.predict_many([b"image"] * 20)) == [PREDICTION] * 20


def test_refusal_keeps_its_status_and_reason() -> None:
    refusal = Refusal(status=422, reason="the image is 1x1 pixels", expected="96x96")
    with server(lambda handler, _: handler.answer(422, refusal.model_dump_json().encode())) as httpd:
        with Client(url_of(httpd)) as client, pytest.raises(RequestError, match="1x1 pixels") as caught:
            client.predict(b"image")
        assert (caught.value.status, caught.value.expected) == (422, "96x96")


def test_failing_endpoint_is_an_error() -> None:
    with (
        server(lambda handler, _: handler.answer(500, b"Internal Server Error")) as httpd,
        Client(url_of(httpd)) as client,
        pytest.raises(SentinodeError, match="500: Internal"),
    ):
        list(client.predict_many([b"image"]))


def test_silent_endpoint_is_not_waited_for_longer_than_asked() -> None:
    with (
        server(lambda _handler, _number: time.sleep(5)) as httpd,
        Client(url_of(httpd), timeout_s=0.2) as client,
    ):
        started_s = time.monotonic()
        with pytest.raises(SentinodeError, match="timed out"):
            client.predict(b"image")
        assert time.monotonic() - started_s < 2


def test_absent_endpoint_is_an_error() -> None:
    with server(good) as httpd:
        url = url_of(httpd)
    with Client(url) as client, pytest.raises(SentinodeError, match="no answer from"):
        client.predict(b"image")


@pytest.mark.parametrize("key", ["k1", "k1\n"], ids=["as it is", "with the line end of its file"])
def test_key_is_sent(key: str) -> None:
    seen: list[str | None] = []

    def behaviour(handler: Handler, number: int) -> None:
        seen.append(handler.headers["Authorization"])
        good(handler, number)

    with server(behaviour) as httpd, Client(url_of(httpd), api_key=key) as client:
        client.predict(b"image")
    assert seen == ["Bearer k1"]


def test_no_error_shows_a_key() -> None:
    for key in ("secret\nkey", "secret key", "secret-\u00e9"):
        with pytest.raises(ConfigError, match="characters that no key has") as caught:
            Client("http://host", api_key=key)
        assert "secret" not in str(caught.value)


def test_model_scale_and_slide_are_told() -> None:
    seen: list[tuple[str, str | None, str | None]] = []

    def behaviour(handler: Handler, number: int) -> None:
        headers = handler.headers
        seen.append((handler.path, headers["X-MPP-UM-PX"], headers["X-Sentinode-Slide"]))
        good(handler, number)

    with server(behaviour) as httpd, Client(url_of(httpd), model="other", mpp_um_px=0.5) as client:
        client.predict(b"image", slide="node 1")
        list(client.predict_many([b"image"], slide="node 2"))
    path = "/v1/predict?model=other"
    assert seen == [(path, "0.5", "node%201"), (path, "0.5", "node%202")]


def test_too_much_for_the_key_is_asked_again_later() -> None:
    def behaviour(handler: Handler, number: int) -> None:
        if number == 1:
            handler.answer(
                429, Refusal(status=429, reason="too much").model_dump_json().encode(), Retry_After="1"
            )
        else:
            good(handler, number)

    with server(behaviour) as httpd, Client(url_of(httpd)) as client:
        began = time.monotonic()
        assert client.predict(b"image") == PREDICTION
        assert time.monotonic() - began >= 1


def test_many_images_are_taken_as_answers_come_and_the_refused_one_is_named() -> None:
    taken = 0

    def images() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b"image"

    with server(good) as httpd, Client(url_of(httpd), connections=2) as client:
        assert next(client.predict_many(images())) == PREDICTION
        assert taken < 20

    def behaviour(handler: Handler, number: int) -> None:
        if number == 3:
            handler.answer(
                422, Refusal(status=422, reason="the image is 1x1 pixels").model_dump_json().encode()
            )
        else:
            good(handler, number)

    with server(behaviour) as httpd, Client(url_of(httpd), connections=1) as client:
        with pytest.raises(RequestError, match="image 3: the image is 1x1") as caught:
            list(client.predict_many([b"image"] * 50))
        assert caught.value.status == 422


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host", "http://", "http://host:99999", "http://host:0"]
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no endpoint"):
        Client(url)
