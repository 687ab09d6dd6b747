"""A DOUBLE of KubeRay's RayJob controller: it plays the status transitions and the submitter's pod of each RayJob.

What is not played is the job: its entrypoint runs here, through the one shell that KubeRay's submitter is, with
``settings`` as the submitter's environment.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kube_double.api_server import ApiServerDouble, PodLog
from kube_double.controller import OPERATOR, ControllerDouble
from kube_double.refusals import Object

NAMESPACE = "sentinode"


class RayJobDouble(ControllerDouble):
    """``programs`` is the folder with ``sentinode`` in it."""

    def __init__(self, api: ApiServerDouble, programs: Path, settings: dict[str, str]) -> None:
        super().__init__(api)
        self._environment = {**os.environ, **settings, "PATH": f"{programs}:{os.environ['PATH']}"}

    def pending(self) -> Object | None:
        """A job without a status."""
        jobs = (job for key, job in self._api.objects.items() if key[1] == "rayjobs")
        return next((job for job in jobs if "status" not in job), None)

    def reconcile(self, found: Object, /) -> None:
        """Play it from its start to its end."""
        name = found["metadata"]["name"]
        spec = self._api.get("rayjobs", name)["spec"]
        self._status(name, {"jobDeploymentStatus": "Initializing", "rayClusterName": f"{name}-abcde"})
        self._status(name, {"jobDeploymentStatus": "Running", "jobStatus": "PENDING"})
        log = self._api.logs[f"{name}-pod"] = PodLog()
        self._pod(name, spec, "Running")
        self._status(name, {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"})
        # The kubelet's rule for arguments: a doubled dollar is one.
        command = spec["entrypoint"].replace("$$", "$")
        with subprocess.Popen(
            ["/bin/bash", "-ce", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=self._environment,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                self._print(log, line.rstrip("\n"))
                if ("sentinode", "rayjobs", name) not in self._api.objects:
                    process.terminate()
        with self._api.changed:
            log.over = True
        self._pod(name, spec, "Succeeded")
        if process.returncode == 0:
            self._status(name, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"})
            return
        message = f"Job entrypoint command failed with exit code {process.returncode}, last available logs:\n"
        over = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
        self._status(name, {**over, "message": message})

    def _print(self, log: PodLog, line: str) -> None:
        with self._api.changed:
            log.lines.append(line)
            self._api.changed.notify_all()

    def _pod(self, name: str, spec: Object, phase: str) -> None:
        body = {
            "metadata": {"name": f"{name}-pod", "labels": {"job-name": name}},
            "spec": spec["submitterPodTemplate"]["spec"],
        }
        with self._api.changed:
            pod = self._api.put((NAMESPACE, "pods", f"{name}-pod"), body)
            self._api.objects[NAMESPACE, "pods", f"{name}-pod"] = {**pod, "status": {"phase": phase}}

    def _status(self, name: str, status: Object) -> None:
        key = (NAMESPACE, "rayjobs", name)
        with self._api.changed:
            if key in self._api.objects:
                kept = self._api.objects[key].get("status", {})
                body = {**self._api.get(*key[1:]), "metadata": {"name": name}, "status": {**kept, **status}}
                self._api.put(key, body, status_only=True, manager=OPERATOR)
