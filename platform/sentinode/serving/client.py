"""A small synchronous client of the endpoint, on the standard library's HTTP."""

from __future__ import annotations

import http.client
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self
from urllib.parse import SplitResult, quote, urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from sentinode.errors import ConfigError, RequestError, SentinodeError
from sentinode.schema import PATCH_PX
from sentinode.serving.protocol import Prediction, Predictions, Refusal

_PASSING: Final = frozenset({0, 429, 502, 503, 504})
"""No answer, too much for the key, or none from a replica: asking again helps, and asking twice changes nothing."""
_ATTEMPTS: Final = 6
_RETRY_AFTER_S: Final = 0.2


class Client:
    """Asks the endpoint at ``url`` (http or https); safe to use from several threads.

    ``timeout_s`` bounds each wait for the server. An endpoint that is busy (503), that finds this too much for the key
    (429), or whose replica died while it answered, is asked again, at most five times, after the time that it names.
    ``predict_many`` uses ``connections`` connections at once. ``model`` is a name or digest in place of the endpoint's
    default, ``mpp_um_px`` the microns per pixel of the patches: with those of another scale than the model's, the
    endpoint abstains.

    Raises ConfigError where ``url`` or ``api_key`` cannot be one.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        connections: int = 16,
        *,
        model: str = "",
        mpp_um_px: float | None = None,
    ) -> None:
        self._parts = _endpoint(url)
        self._path = (
            self._parts.path.rstrip("/") + "/v1/predict" + (f"?model={quote(model)}" if model else "")
        )
        self._timeout_s = timeout_s
        self._headers = {} if mpp_um_px is None else {"X-MPP-UM-PX": str(mpp_um_px)}
        if api_key:
            self._headers["Authorization"] = f"Bearer {_sendable(api_key)}"
        self._most_waiting = 4 * connections
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="sentinode-client")

    def predict(self, image: bytes, slide: str = "") -> Prediction:
        """Score one JPEG, PNG or TIFF of 96x96 pixels, of the slide named ``slide``: a canary answers for whole slides.

        Raises RequestError with the endpoint's reason where it refuses the image (4xx) and SentinodeError
        where the endpoint fails or does not answer.
        """
        return Prediction.model_validate_json(self._ask(image, _of(slide)))

    def predict_pixels(self, images_BHWC: NDArray[np.uint8], slide: str = "") -> Predictions:
        """Score a batch of pixels, uint8 [B, 96, 96, 3], RGB, in one request: the fastest way for many patches.

        Raises as ``predict``, and ConfigError for another shape or dtype.
        """
        if images_BHWC.dtype != np.uint8 or images_BHWC.shape[1:] != (PATCH_PX, PATCH_PX, 3):
            raise ConfigError(
                f"patches are {images_BHWC.dtype} {list(images_BHWC.shape)}",
                f"uint8 [B, {PATCH_PX}, {PATCH_PX}, 3]",
            )
        shape = ",".join(map(str, images_BHWC.shape))
        body = self._ask(images_BHWC.tobytes(), {"X-Sentinode-Shape": shape, **_of(slide)})
        return Predictions.model_validate_json(body)

    def _ask(self, image: bytes, headers: dict[str, str]) -> bytes:
        """The body of the reply 200; raises as ``predict``."""
        for attempt in range(1, _ATTEMPTS + 1):
            status, retry_after_s, body = self._post(image, headers)
            if status == 200:
                return body
            if status not in _PASSING or attempt == _ATTEMPTS:
                break
            time.sleep(retry_after_s)
        if status == 0:
            raise self._no_answer(body.decode(errors="replace"))
        refusal = _refusal(status, body)
        if 400 <= status < 500:
            raise RequestError(refusal.reason, refusal.expected, refusal.remedy, status=status)
        raise SentinodeError(
            f"the endpoint answered {status}: {refusal.reason}", "an answer", "see the replica's log"
        )

    def predict_many(self, images: Iterable[bytes], slide: str = "") -> Iterator[Prediction]:
        """Score many images at once; the predictions come in the images' order. Few are taken ahead of the answers.

        The first failure is raised, as by ``predict``, and says which image it was, counted from 1.
        """
        waiting: deque[Future[Prediction]] = deque()
        try:
            for number, image in enumerate(images, 1):
                waiting.append(self._pool.submit(self._predict_one_of_many, number, image, slide))
                if len(waiting) >= self._most_waiting:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _predict_one_of_many(self, number: int, image: bytes, slide: str) -> Prediction:
        try:
            return self.predict(image, slide)
        except RequestError as error:
            raise RequestError(
                f"image {number}: {error.found}", error.expected, error.remedy, status=error.status
            ) from error

    def close(self) -> None:
        """Forget what has not been asked yet and close all connections."""
        self._pool.shutdown(cancel_futures=True)
        while self._open:
            self._open.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            https = self._parts.scheme == "https"
            kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
            connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout_s)
            self._local.connection = connection
            self._open.append(connection)
        return connection

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, float, bytes]:
        """Status, seconds to wait before asking again, and body of the reply; 0 and why where the connection broke."""
        connection = self._connection()
        try:
            connection.request("POST", self._path, body, {**self._headers, **headers})
            response = connection.getresponse()
            retry_after = response.headers.get("Retry-After", "")
            retry_after_s = float(retry_after) if retry_after.isdecimal() else _RETRY_AFTER_S
            return response.status, retry_after_s, response.read()
        except TimeoutError as error:
            connection.close()
            raise self._no_answer(str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return 0, _RETRY_AFTER_S, str(error).encode()

    def _no_answer(self, why: str) -> SentinodeError:
        return SentinodeError(
            f"no answer from {self._parts.scheme}://{self._parts.netloc} ({why})",
            f"an endpoint that answers within {self._timeout_s:g} s",
            "check the address, and /healthz there",
        )


def _endpoint(url: str) -> SplitResult:
    expected = "http://host:port or https://host:port"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no endpoint ({error})", expected) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"{url!r} is no endpoint", expected)
    return parts


def _sendable(api_key: str) -> str:
    """The key without the white space around it, such as the end of the line that it was read from."""
    key = api_key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError("the API key holds characters that no key has", "what `sentinode keys` printed")
    return key


def _of(slide: str) -> dict[str, str]:
    return {"X-Sentinode-Slide": quote(slide)} if slide else {}


def _refusal(status: int, body: bytes) -> Refusal:
    try:
        return Refusal.model_validate_json(body)
    except ValidationError:
        return Refusal(status=status, reason=body.decode(errors="replace")[:200])
