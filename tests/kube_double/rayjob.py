"""A DOUBLE of KubeRay's RayJob controller: it plays the status transitions and the submitter's pod of each RayJob.

What is not played is the job: its entrypoint runs here, through the one shell that KubeRay's submitter is, with
``settings`` as the submitter's environment.
"""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from kube_double.api_server import ApiServerDouble, Object, PodLog

NAMESPACE = "sentinode"


class RayJobDouble:
    """``programs`` is the folder with ``sentinode`` in it."""

    def __init__(self, api: ApiServerDouble, programs: Path, settings: dict[str, str]) -> None:
        self._api = api
        self._environment = {**os.environ, **settings, "PATH": f"{programs}:{os.environ['PATH']}"}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.faults: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with self._api.changed:
            self._api.changed.notify_all()
        self._thread.join(60)
        assert not self.faults

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                with self._api.changed:
                    new = [
                        key[2]
                        for key, job in self._api.objects.items()
                        if key[1] == "rayjobs" and "status" not in job
                    ]
                    if not new:
                        self._api.changed.wait(0.5)
                        continue
                self._reconcile(new[0])
        except Exception as error:
            self.faults.append(error)
            raise

    def _reconcile(self, name: str) -> None:
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
                self._api.put(key, body, status_only=True)
