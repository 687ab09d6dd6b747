"""An endpoint on this machine, for the demo and for tests: started, waited for, stopped."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import time
from types import TracebackType
from typing import Any, Final, Self

import ray
from ray import serve
from ray.serve.schema import LoggingConfig

from sentinode.errors import ConfigError, SentinodeError
from sentinode.serving.application import build
from sentinode.serving.args import ServeArgs

logger = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_APPLICATION: Final = "sentinode"


class LocalEndpoint:
    """Ray Serve on loopback for as long as the ``with`` block lasts; ``url`` is where it answers.

    Ray must run in this process already. ``port`` 0 takes a free one. Entering raises ConfigError where Ray does not run
    or Serve runs already, and SentinodeError with the replica's reason where the endpoint does not come up within
    ``timeout_s``.
    """

    def __init__(self, args: ServeArgs, port: int = 0, timeout_s: float = 120.0) -> None:
        self._args = args
        self._timeout_s = timeout_s
        self.port = port or _free_port()

    @property
    def url(self) -> str:
        """Base URL, e.g. ``http://127.0.0.1:8000``."""
        return f"http://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            raise ConfigError("Ray does not run in this process", "a Ray session", "call ray.init() first")
        quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
        # Serve's HTTP options are fixed when it starts: an instance that runs already would keep its own host and port.
        if serve.status().proxies:
            raise ConfigError(
                "Ray Serve runs already in this Ray cluster", "none", "run `serve shutdown` first"
            )
        try:
            serve.start(http_options={"host": _HOST, "port": self.port}, logging_config=quiet)
            serve.run(build(self._args.model_dump(mode="json")), name=_APPLICATION, logging_config=quiet)
            self._wait_until_healthy()
        except BaseException as error:
            reason = _deployment_message()
            serve.shutdown()
            if isinstance(error, (SentinodeError, KeyboardInterrupt)):
                raise
            raise SentinodeError(
                f"the endpoint did not start: {reason or error}", f"an answer at {self.url}/healthz"
            ) from error
        logger.info("endpoint at %s", self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        serve.shutdown()

    def _wait_until_healthy(self) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            answer = self._health()
            if answer is not None and answer.get("bundle") == self._args.bundle:
                return
            if time.monotonic() > deadline_s:
                raise SentinodeError(
                    f"{self.url}/healthz answered {answer} for {self._timeout_s:g} s",
                    f"bundle {self._args.bundle}",
                    "see the replica's log below /tmp/ray/session_latest/logs/serve",
                )
            time.sleep(0.05)

    def _health(self) -> dict[str, Any] | None:
        connection = http.client.HTTPConnection(_HOST, self.port, timeout=5.0)
        try:
            connection.request("GET", "/healthz")
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return answer if isinstance(answer, dict) else None


def _deployment_message() -> str:
    application = serve.status().applications.get(_APPLICATION)
    if application is None:
        return ""
    messages = [deployment.message for deployment in application.deployments.values()]
    return "\n".join(message for message in messages if message) or application.message


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind((_HOST, 0))
        port: int = listener.getsockname()[1]
        return port
