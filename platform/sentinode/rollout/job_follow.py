"""A RayJob followed to its end: its state in the log, the output of its driver as it comes, its exit code."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final

from sentinode.errors import ClusterError
from sentinode.rollout.cluster import RAY_JOB, Cluster, MissingObjectError, Object

log = logging.getLogger(__name__)
_GLANCE_S: Final = 5.0
_EXIT_CODE: Final = re.compile(r"exit code (\d{1,3})\b")
_OVER: Final = ("Complete", "Failed", "ValidationFailed")
_STARTED: Final = ("Running", "Succeeded", "Failed")


class Output:
    """What the job's submitters print, each line once: a log that is cut off is read again, behind what is known."""

    def __init__(self, cluster: Cluster, job: str, write: Callable[[str], object]) -> None:
        self._cluster = cluster
        self._job = job
        self._write = write
        self._known: dict[str, int] = {}
        self._read: set[str] = set()

    def catch_up(self) -> None:
        """Write what is there and, of a submitter that runs, what comes, until it ends."""
        for pod in self._cluster.pods(f"job-name={self._job}"):
            uid, phase = pod["metadata"]["uid"], pod.get("status", {}).get("phase")
            if uid in self._read or phase not in _STARTED:
                continue
            try:
                self._copy(pod, uid)
            except ClusterError as error:
                log.warning("the log of %s was cut off, it is read again: %s", self._job, error.found)
            else:
                if phase != "Running":
                    self._read.add(uid)

    def _copy(self, pod: Object, uid: str) -> None:
        container = pod["spec"]["containers"][0]["name"]
        for number, line in enumerate(self._cluster.log_lines(pod["metadata"]["name"], container), 1):
            if number > self._known.get(uid, 0):
                self._known[uid] = number
                self._write(line)


def follow(cluster: Cluster, name: str, write: Callable[[str], object]) -> int:
    """Until the RayJob is over: 0 where it succeeded, else the exit code of its driver, as far as Ray tells it, else 1.

    ``write`` gets each line of output. Raises ClusterError where the job is gone, or the API server away for long.
    """
    output, said = Output(cluster, name, write), ""
    while True:
        try:
            job = cluster.read(RAY_JOB, name)
        except MissingObjectError as error:
            raise ClusterError(f"the job {name} was deleted while it was followed") from error
        status = job.get("status") or {}
        phase = status.get("jobDeploymentStatus") or "New"
        words = phase + (f", {status['jobStatus']}" if status.get("jobStatus") else "")
        if words != said:
            said = words
            log.info("job %s: %s%s", name, words, _where(status) if phase == "Initializing" else "")
        output.catch_up()
        if phase in _OVER:
            return _verdict(name, status)
        cluster.wait_for_change(RAY_JOB, job, _GLANCE_S)


def _where(status: Object) -> str:
    """What to look at while nodes start."""
    cluster = status.get("rayClusterName")
    return f" (kubectl get pods -l ray.io/cluster={cluster} shows its nodes)" if cluster else ""


def _verdict(name: str, status: Object) -> int:
    if status.get("jobStatus") == "SUCCEEDED":
        log.info("job %s is done", name)
        return 0
    message = str(status.get("message") or "")
    why = [str(status.get("reason") or ""), (message.strip().splitlines() or [""])[0][:300]]
    ended = status.get("jobStatus") or status.get("jobDeploymentStatus")
    log.error("job %s ended as %s: %s", name, ended, ": ".join(filter(None, why)) or "no reason given")
    found = _EXIT_CODE.search(message)
    return int(found[1]) % 256 or 1 if found else 1
