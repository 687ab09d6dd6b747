"""An endpoint on this machine, for the demo and for tests: started, waited for, stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import re
import socket
import time
from types import TracebackType
from typing import Any, Final, Self

import ray
from ray import serve
from ray.serve._private import constants
from ray.serve.schema import LoggingConfig

from sentinode.errors import ConfigError, SentinodeError
from sentinode.serving.application import build
from sentinode.serving.args import ServeArgs
from sentinode.serving.oip.grpc_service import grpc_options

logger = logging.getLogger(__name__)

_HOST: Final = "127.0.0.1"
_APPLICATION: Final = "sentinode"
_SHUTDOWN_TIMEOUT_S: Final = 30.0


class LocalEndpoint:
    """Ray Serve on loopback for as long as the ``with`` block lasts; ``url`` is where it answers.

    Ray must run in this process already. ``port`` 0 takes a free one; so does ``grpc_port``, and None is no gRPC.
    Serve's gRPC server listens on all interfaces: with it, keys are required. Raises ConfigError where a port is
    taken. Entering raises ConfigError where Ray does not run or Serve runs already, and SentinodeError with the
    replica's reason where the endpoint does not come up within ``timeout_s``.
    """

    def __init__(
        self, args: ServeArgs, port: int = 0, timeout_s: float = 120.0, grpc_port: int | None = None
    ) -> None:
        self._args = args
        self._timeout_s = timeout_s
        self.port = _free_port(port)
        self.grpc_port = None if grpc_port is None else _free_port(grpc_port, "")

    @property
    def bundle(self) -> str:
        """Digest of the bundle that answers by default."""
        traffic = self._args.first_traffic
        return traffic.models[traffic.default].bundle

    @property
    def url(self) -> str:
        """Base URL, e.g. ``http://127.0.0.1:8000``."""
        return f"http://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            raise ConfigError("Ray does not run in this process", "a Ray session", "call ray.init() first")
        # Serve's HTTP options are fixed when it starts: one that runs already keeps its own host and port.
        if serve.status().proxies:
            raise ConfigError("Ray Serve runs already in this Ray cluster", "none", "run `serve shutdown`")
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
        try:
            serve.start(
                http_options={"host": _HOST, "port": self.port},
                grpc_options=None if self.grpc_port is None else grpc_options(self.grpc_port),
                logging_config=quiet,
            )
            serve.run(build(self._args.model_dump(mode="json")), name=_APPLICATION, logging_config=quiet)
            self._wait_until_healthy()
        except RuntimeError as error:
            reason = _replica_error() or str(error)
            _shut_down()
            raise SentinodeError(f"the endpoint did not start: {reason}") from error
        except BaseException:
            _shut_down()
            raise
        logger.info("endpoint at %s", self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Shutting down kills the proxy, whatever it is in the middle of. A deleted application first answers what
        # is under way, through a proxy that is still there.
        with contextlib.suppress(RuntimeError, TimeoutError, ray.exceptions.RayError):
            serve.delete(_APPLICATION)
        _shut_down()

    def _wait_until_healthy(self) -> None:
        deadline_s = time.monotonic() + self._timeout_s
        while True:
            answer = self._health()
            if answer is not None and answer.get("bundle") == self.bundle:
                return
            if time.monotonic() > deadline_s:
                raise SentinodeError(
                    f"{self.url}/healthz answered {answer} for {self._timeout_s:g} s",
                    f"bundle {self.bundle}",
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


def _replica_error() -> str:
    """What the replica said when it failed, without the traceback around it."""
    application = serve.status().applications.get(_APPLICATION)
    messages = [deployment.message for deployment in application.deployments.values()] if application else []
    return "\n".join(re.split(r"sentinode\.errors\.\w+: ", message)[-1].strip() for message in messages)


def _shut_down() -> None:
    # serve.shutdown() alone waits on a call that dies with the controller, of which Ray then complains on the
    # terminal. So the controller is asked not to let us wait, and watched until it is gone.
    with contextlib.suppress(ValueError, ray.exceptions.RayActorError):
        controller = ray.get_actor(constants.SERVE_CONTROLLER_NAME, constants.SERVE_NAMESPACE)
        ray.get(controller.graceful_shutdown.remote(wait=False))
        deadline_s = time.monotonic() + _SHUTDOWN_TIMEOUT_S
        while time.monotonic() < deadline_s:
            ray.get_actor(constants.SERVE_CONTROLLER_NAME, constants.SERVE_NAMESPACE)
            time.sleep(0.1)
    serve.shutdown()


def _free_port(wanted: int = 0, host: str = _HOST) -> int:
    """``wanted``, or any where it is 0. Serve shares a port that another endpoint listens on, and the kernel then
    gives clients one or the other: such a port is refused. Raises ConfigError.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, wanted))
        except OSError as error:
            raise ConfigError(
                f"port {wanted} cannot be had ({error.strerror})",
                "a port that nobody listens on",
                "end what runs there, or give another --port (0 takes a free one)",
            ) from error
        port: int = listener.getsockname()[1]
        return port
