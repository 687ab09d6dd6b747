"""A small synchronous client of the endpoint, on the standard library's HTTP."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from sentinode.errors import ConfigError, RequestError, SentinodeError
from sentinode.schema import PATCH_PX
from sentinode.serving.protocol import Prediction, Predictions, Refusal

_PASSING: Final = frozenset({0, 502, 503, 504})
"""No answer, or none from a replica: asking again may help, and asking twice changes nothing."""
_ATTEMPTS: Final = 6
_RETRY_AFTER_S: Final = 0.2


class Client:
    """Asks the endpoint at ``url`` (http or https); safe to use from several threads.

    ``timeout_s`` bounds each wait for the server. An endpoint that is busy (503), or whose replica died while it
    answered, is asked again, at most five times, after the time that it names. ``predict_many`` uses ``connections``
    connections at once.
    """

    def __init__(
        self, url: str, api_key: str | None = None, timeout_s: float = 10.0, connections: int = 16
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url!r} is no endpoint", "http://host:port or https://host:port")
        self._parts = parts
        self._timeout_s = timeout_s
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        self._pool = ThreadPoolExecutor(connections, thread_name_prefix="sentinode-client")

    def predict(self, image: bytes) -> Prediction:
        """Score one JPEG, PNG or TIFF of 96x96 pixels.

        Raises RequestError with the endpoint's reason where it refuses the image (4xx) and SentinodeError
        where the endpoint fails or does not answer.
        """
        return Prediction.model_validate_json(self._ask(image, {}))

    def predict_pixels(self, images_BHWC: NDArray[np.uint8]) -> Predictions:
        """Score a batch of pixels, uint8 [B, 96, 96, 3], RGB, in one request: the fastest way for many patches.

        Raises as ``predict``, and ConfigError for another shape or dtype.
        """
        if images_BHWC.dtype != np.uint8 or images_BHWC.shape[1:] != (PATCH_PX, PATCH_PX, 3):
            raise ConfigError(
                f"patches are {images_BHWC.dtype} {list(images_BHWC.shape)}",
                f"uint8 [B, {PATCH_PX}, {PATCH_PX}, 3]",
            )
        shape = ",".join(map(str, images_BHWC.shape))
        body = self._ask(images_BHWC.tobytes(), {"X-Sentinode-Shape": shape})
        return Predictions.model_validate_json(body)

    def _ask(self, image: bytes, headers: dict[str, str]) -> bytes:
        """The body of the reply 200; raises as ``predict``."""
        for attempt in range(1, _ATTEMPTS + 1):
            status, retry_after_s, body = self._post("/v1/predict", image, headers)
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

    def predict_many(self, images: Iterable[bytes]) -> Iterator[Prediction]:
        """Score many images at once; the predictions come in the images' order.

        The first failure is raised, as by ``predict``.
        """
        return self._pool.map(self.predict, images)

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

    def _post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, float, bytes]:
        """Status, seconds to wait before asking again, and body of the reply; 0 and why where the connection broke."""
        connection = self._connection()
        try:
            connection.request(
                "POST", self._parts.path.rstrip("/") + path, body, {**self._headers, **headers}
            )
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


def _refusal(status: int, body: bytes) -> Refusal:
    try:
        return Refusal.model_validate_json(body)
    except ValidationError:
        return Refusal(status=status, reason=body.decode(errors="replace")[:200])
