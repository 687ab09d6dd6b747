"""``sentinode submit``: a step as a job on a Ray cluster, its log and its exit code here."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field
from rich.console import Console

from sentinode.commands.submit_follow import STILL_RUNNING, first_line, follow
from sentinode.config import Frozen
from sentinode.errors import ClusterError, ConfigError
from sentinode.provenance import UNKNOWN_COMMIT, code_commit
from sentinode.rollout.job_settings import JobSettings

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

log = logging.getLogger(__name__)

Step = Literal["ingest", "train", "tune", "evaluate", "promote", "score", "rollout"]
LOCAL_DASHBOARD: Final = "http://127.0.0.1:8265"
_POLL_S: Final = 1.0
_PATIENCE_S: Final = 180.0


class SubmitCommand(Frozen):
    """Run a step as a Ray job: `sentinode submit train --recipe seed-cnn ... --address http://head:8265`.

    The step's own flags go on to it as they are. With token authentication, RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or
    RAY_AUTH_TOKEN_PATH) are taken from the environment. The exit code is the job's; 130: it may go on, unwatched.

    With --kubernetes, the step gets a cluster of its own, as a RayJob: `sentinode submit train ... --kubernetes`;
    $SENTINODE_DATA and the like are the cluster's settings.
    """

    step: Step
    """Which of jobs/*.py."""
    arguments: tuple[str, ...] = ()
    """The step's own flags."""
    address: str = Field(default_factory=lambda: os.environ.get("RAY_API_SERVER_ADDRESS", LOCAL_DASHBOARD))
    """Of the cluster's dashboard; RAY_API_SERVER_ADDRESS, else this machine's."""
    working_dir: Path = Path()
    """Checkout that is sent along (at most 100 MiB; .gitignore and .rayignore say what is left out)."""
    job_name: str | None = None
    """Of the job; a new one by default. A name is used once. Also --name, except where the step has a flag of this
    name, as promote has.
    """
    detach: bool = False
    """End when the job is submitted, without following it."""
    stop_on_interrupt: bool = False
    """Ctrl-C stops the job; by default it only stops following."""
    kubernetes: bool = False
    """As a RayJob of KubeRay, by the kubeconfig; --address and --working-dir do not count then."""
    job: JobSettings = JobSettings()
    """With --kubernetes: what the RayJob gets."""

    @property
    def entrypoint(self) -> str:
        """What the cluster runs, each argument quoted for the shell that starts it."""
        return shlex.join(["python", f"jobs/{self.step}.py", *self.arguments])


FLAGS = SubmitCommand


def defaults(arguments: Sequence[str]) -> tuple[SubmitCommand | None, list[str]]:
    """Tell this command's flags from the step's: those that are not ours are the step's."""
    ours = argparse.ArgumentParser("sentinode submit", add_help=False, allow_abbrev=False)
    nested = (f"--job.{name.replace('_', '-')}" for name in JobSettings.model_fields)
    for flag in ("--address", "--working-dir", *nested):
        ours.add_argument(flag)
    ours.add_argument("--job-name", *([] if "promote" in arguments[:1] else ["--name"]))
    for flag in ("--detach", "--stop-on-interrupt", "--kubernetes", "--dry-run"):
        ours.add_argument(flag, action="store_true")
    if not arguments or arguments[0].startswith("-"):
        return None, list(arguments)
    known, theirs = ours.parse_known_args(list(arguments[1:]))
    rest = ["--step", arguments[0]]
    for flag, value in vars(known).items():
        if value:
            rest += [f"--{flag.replace('_', '-')}", *([] if value is True else [value])]
    return SubmitCommand.model_construct(**_settings(), arguments=tuple(theirs)), rest


def _settings() -> dict[str, Any]:
    fields = SubmitCommand.model_fields.items()
    return {
        name: field.get_default(call_default_factory=True)
        for name, field in fields
        if name not in ("step", "arguments")
    }


def run(config: SubmitCommand) -> int:
    """Submit and follow; the job's own exit code, or 130 where it is not watched to its end."""
    if config.kubernetes:
        from sentinode.commands import submit_kubernetes

        made = submit_kubernetes.make(config.step, config.arguments, config.job_name, config.job)
        return submit_kubernetes.run(*made, config.detach, config.stop_on_interrupt)
    if not (config.working_dir / "jobs" / f"{config.step}.py").is_file():
        raise ConfigError(
            f"{config.working_dir.resolve()} holds no jobs/{config.step}.py",
            "a checkout of Sentinode",
            "go into the checkout, or name it by --working-dir",
        )
    client = _connect(config.address)
    job = _submit(client, config)
    log.info("job %s: %s", job, config.entrypoint)
    if config.detach:
        log.info("follow it by: ray job logs --follow --address %s %s", config.address, job)
        return 0
    try:
        return follow(client, job)
    except KeyboardInterrupt:
        if config.stop_on_interrupt:
            client.stop_job(job)
            log.info("job %s is being stopped", job)
        else:
            log.info("job %s goes on; stop it by: ray job stop --address %s %s", job, config.address, job)
        return STILL_RUNNING


def dry_run(config: SubmitCommand) -> int:
    """Print what would be submitted: the RayJob as YAML, or the command for the Ray cluster."""
    if config.kubernetes:
        from sentinode.commands import submit_kubernetes

        return submit_kubernetes.show(
            *submit_kubernetes.make(config.step, config.arguments, config.job_name, config.job)
        )
    Console().print_json(json.dumps(config.model_dump(mode="json")))
    return 0


def job_environment(working_dir: Path) -> dict[str, str]:
    """Variables of the job: where the package lies in ``working_dir``, and its commit, for git is left behind here."""
    variables = {"PYTHONPATH": "platform", "SENTINODE_LOG": "json"}
    commit = code_commit(working_dir / "platform" / "sentinode")
    return variables if commit == UNKNOWN_COMMIT else variables | {"SENTINODE_COMMIT": commit}


def _submit(client: JobSubmissionClient, config: SubmitCommand) -> str:
    from requests import RequestException

    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            job: str = client.submit_job(
                entrypoint=config.entrypoint,
                submission_id=config.job_name,
                runtime_env={
                    "working_dir": str(config.working_dir),
                    "env_vars": job_environment(config.working_dir),
                },
            )
            return job
        except RequestException as error:
            raise ClusterError(
                f"the connection to {config.address} broke while the job was handed over: {first_line(error)}",
                "an answer of the dashboard",
                f"see by `ray job list --address {config.address}` whether it runs; if not, give the command again",
            ) from error
        except (RuntimeError, ValueError) as error:
            # A head that has just started has no agent yet.
            if "try again later" in str(error) and time.monotonic() < until_s:
                time.sleep(_POLL_S)
                continue
            raise ClusterError(
                f"the cluster at {config.address} did not take the job: {first_line(error)}",
                "a new name and at most 100 MiB of files",
                "name what is to be left out in .gitignore or .rayignore",
            ) from error


def _connect(address: str) -> JobSubmissionClient:
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RayError, RuntimeError, ValueError) as error:
        text = first_line(error)
        remedy = "check the address, and that the dashboard's port can be reached"
        if any(word in str(error) for word in ("401", "403", "oken")):
            remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token"
        raise ClusterError(
            f"no Ray cluster answers at {address}: {text}", "the address of a dashboard", remedy
        ) from error
