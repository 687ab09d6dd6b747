"""Ray, for as long as it is needed: a cluster that is there already, or a local one that is stopped again."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import sentinode
from sentinode.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    import psutil

FORWARDED = ("AWS_", "WANDB_", "SENTINODE_")
"""Prefixes of the environment variables that workers of a Ray started here get."""
FORWARDED_TO_OTHERS = (
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"),
    *("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY"),
)
"""What workers of a joined cluster get: places, never keys. Ray shows a runtime environment to everybody who may see
its dashboard, so credentials come from the nodes' own environment or role.
"""
LOCAL_VARIABLE = "SENTINODE_LOCAL_RAY"
"""Set in the workers of a Ray started by their driver."""
CONNECT_TIMEOUT_S = 5.0
START_TRIES = 3

_started_here = False

log = logging.getLogger(__name__)


@contextmanager
def ray_session(address: str | None = None, num_cpus: int | None = None) -> Iterator[None]:
    """Ray is up within the ``with``: joined at ``address`` or ``RAY_ADDRESS``, else started here with
    ``num_cpus``.

    ``address``: ``host:port``, ``auto`` or ``local`` (start one whatever RAY_ADDRESS says). A session within
    another uses the outer one. What was started here is stopped on the way out; a joined cluster is left
    running.
    Raises MissingDependencyError without Ray and ConfigError where no cluster answers or none can be started.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingDependencyError(
            "Ray is not installed", remedy="pip install 'sentinode[train]'"
        ) from error
    if ray.is_initialized():
        yield
        return
    address = _asked(address)
    # Workers' own log lines stay in Ray's log folder; what concerns the user is reported by the driver.
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    global _started_here
    _started_here = address == "local"
    if _started_here:
        _start(num_cpus or os.cpu_count() or 1, quiet)
    else:
        _join(address, quiet)
    try:
        yield
    finally:
        ray.shutdown()


def starts_here(address: str | None) -> bool:
    """Whether ``ray_session`` would start a Ray here for ``address``, and so all work is done on this machine."""
    return _asked(address) == "local"


def _asked(address: str | None) -> str:
    return address or os.environ.get("RAY_ADDRESS") or "local"


def started_here() -> bool:
    """Whether the present session's Ray was started by this process, or by the driver of this worker, and so ends
    with it.
    """
    return _started_here or LOCAL_VARIABLE in os.environ


def _start(cpus: int, quiet: dict[str, int | bool]) -> None:
    """A raylet gives its agents 15 s to come up, which cannot be set, and aborts: a busy machine gets another try."""
    import psutil
    import ray

    environment = _worker_environment(local=True)
    others = set(psutil.Process().children())
    for tries_left in reversed(range(START_TRIES)):
        try:
            ray.init(
                address="local", num_cpus=cpus, include_dashboard=False, runtime_env=environment, **quiet
            )
        except Exception as error:
            # A bare Exception is what Ray raises where its processes come up too late.
            ray.shutdown()
            _stop_remains(others)
            if not tries_left:
                raise ConfigError(
                    f"Ray did not start on this machine ({str(error).splitlines()[0]})",
                    "a machine that is not overloaded, with some GB of free memory and disk",
                    "try again when other work has ended, or join a running cluster by its address",
                ) from error
            log.warning("Ray did not come up on this busy machine: trying once more")
        else:
            log.info("started a local Ray with %d CPUs", cpus)
            return


def _stop_remains(others: set[psutil.Process]) -> None:
    """A start that failed leaves processes behind, which would slow the next one; ``others`` are not Ray's."""
    import psutil

    for child in set(psutil.Process().children()) - others:
        with suppress(psutil.NoSuchProcess):
            if any("/ray/" in part for part in child.cmdline()):
                child.kill()
                child.wait(CONNECT_TIMEOUT_S)


def _join(address: str, quiet: dict[str, int | bool]) -> None:
    import ray

    _check_answers(address)
    # A submitted job brings its runtime environment along, and Ray refuses a second one that names the same
    # variables.
    runtime_env = None if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else _worker_environment(local=False)
    try:
        ray.init(address=address, runtime_env=runtime_env, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, str(error).splitlines()[0]) from error
    log.info("joined the Ray cluster at %s", address)


def _check_answers(address: str) -> None:
    """Knock first: Ray itself tries a dead address for half a minute and then kills the process."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host or "127.0.0.1", int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, why: str) -> ConfigError:
    return ConfigError(
        f"no Ray cluster answers at {address} ({why})",
        "the address of a running cluster",
        "start one by `ray start --head`, or leave address and RAY_ADDRESS out to use this machine alone; where one "
        "runs, it may want a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN unless ~/.ray/auth_token holds it",
    )


def _worker_environment(*, local: bool) -> dict[str, dict[str, str]]:
    """Runtime environment of the workers: storage settings, and here the source root, which need not be
    installed.
    """
    variables = {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(FORWARDED) if local else name in FORWARDED_TO_OTHERS)
    }
    if local:
        variables[LOCAL_VARIABLE] = "1"
        root = str(Path(sentinode.__file__).parents[1])
        inherited = os.environ.get("PYTHONPATH", "")
        variables["PYTHONPATH"] = f"{root}{os.pathsep}{inherited}" if inherited else root
    return {"env_vars": variables}
