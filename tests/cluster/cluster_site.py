"""A place on a cluster that somebody lends: a namespace of its own, and copies of the manifests and of the commands of
docs/kubernetes.md that name it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = os.environ.get("SENTINODE_CLUSTER", "")
IMAGES = os.environ.get("SENTINODE_CLUSTER_IMAGES", "localhost/sentinode")
BLOCKS = {
    "platform": "kubectl create namespace sentinode",
    "jobs": "start()",
    "promote": "HEAD=",
    "serve": "kubectl apply --server-side -k k8s/overlays/local/endpoint",
}
"""How the blocks of docs/kubernetes.md, section kind, begin that are run as they are printed."""
JOBS = "ray.io/originated-from-crd=RayJob"
"""Label of the clusters of jobs."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """Where the tests of a session are."""

    folder: Path
    """With ``k8s`` and ``docs``, as at the root of the repository; commands run here."""
    namespace: str
    environment: dict[str, str] = field(repr=False)
    """Of its commands; it may hold credentials."""

    @classmethod
    def make(cls, folder: Path) -> Site:
        """Nothing is written to the cluster yet."""
        site = cls(folder, f"sentinode-try-{secrets.token_hex(3)}", dict(os.environ))
        site.environment.update(
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", PYTHONPATH=str(ROOT / "platform")
        )
        kubeconfig = folder / "kubeconfig"
        view = ("config", "view", "--raw", "--minify", "--flatten", "--context", CONTEXT)
        kubeconfig.touch(0o600)
        told = site.tried("kubectl", *view)
        assert told.returncode == 0, f"SENTINODE_CLUSTER={CONTEXT}: {told.stderr}"
        kubeconfig.write_text(told.stdout)
        site.environment["KUBECONFIG"] = str(kubeconfig)
        site.kubectl("config", "set-context", "--current", "--namespace", site.namespace)
        shutil.copytree(ROOT / "k8s", folder / "k8s")
        (folder / "docs").symlink_to(ROOT / "docs")
        for path in (folder / "k8s").rglob("*.yaml"):
            text = path.read_text()
            changed = re.sub(r"(?m)^namespace: sentinode$", f"namespace: {site.namespace}", text)
            path.write_text(changed.replace("localhost/sentinode/", f"{IMAGES}/"))
        production = folder / "k8s/overlays/production/endpoint/kustomization.yaml"
        gateway = "  - ../../../components/gateway\n"
        # The component that no overlay has.
        production.write_text(
            production.read_text().replace(gateway, f"{gateway}  - ../../../components/gateway-grpc\n")
        )
        return site

    def tried(
        self, *command: str, given: str | None = None, timeout_s: float = 600.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command here, whatever comes of it."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def run(self, *command: str, given: str | None = None, timeout_s: float = 600.0) -> str:
        """The output of a command that must not fail."""
        done = self.tried(*command, given=given, timeout_s=timeout_s)
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, (
            f"exit code {done.returncode} of {' '.join(command)}\n{said}\n{self.state()}"
        )
        return done.stdout

    def kubectl(self, *arguments: str, given: str | None = None, timeout_s: float = 600.0) -> str:
        return self.run("kubectl", *arguments, given=given, timeout_s=timeout_s)

    def documented(self, name: str, timeout_s: float = 3600.0) -> str:
        """Run one of BLOCKS as it is printed, but in this namespace and on a free port; what it says."""
        return self._bash(block_of(BLOCKS[name]), timeout_s)

    def _bash(self, block: str, timeout_s: float) -> str:
        block = re.sub(r"(?<=namespace )sentinode\b|(?<=-n )sentinode\b", self.namespace, block)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        block = block.replace("-svc 8000", f"-svc {port}:8000").replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        script = f"set -eo pipefail\nexec 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{block}"
        return self.run("bash", "-c", script, timeout_s=timeout_s)

    def state(self) -> str:
        """Pods and last events, for whoever has to find out why."""
        pods = self.tried("kubectl", "get", "pods", "-o", "wide").stdout
        events = self.tried("kubectl", "get", "events", "--sort-by=.lastTimestamp").stdout
        return pods + "\n".join(events.splitlines()[-20:])

    def get(self, *what: str) -> Object:
        found: Object = json.loads(self.kubectl("get", *what, "-o", "json"))
        return found

    def pods(self, selector: str) -> list[str]:
        return self.kubectl("get", "pods", "-o", "name", "-l", selector).split()

    def built(self, part: str) -> list[Object]:
        """The manifests of ``k8s/overlays/<part>`` whose kinds this cluster has."""
        found = yaml.safe_load_all(self.kubectl("kustomize", f"k8s/overlays/{part}"))
        return [one for one in found if one["kind"] in self._kinds(one["apiVersion"])]

    def _kinds(self, version: str) -> set[str]:
        told = self.tried("kubectl", "get", "--raw", f"/{'apis' if '/' in version else 'api'}/{version}")
        return (
            {one["kind"] for one in json.loads(told.stdout)["resources"]} if told.returncode == 0 else set()
        )

    def job(self, name: str, timeout_s: float) -> str:
        """Run a job of the local overlay to its end, as documented; its output. Fails at once where the job does."""
        self._bash(f"{block_of(BLOCKS['jobs']).splitlines()[0]}\nstart {name}", 120)
        deadline_s = time.monotonic() + timeout_s
        while (state := self.get("rayjob", name).get("status", {}).get("jobStatus", "")) != "SUCCEEDED":
            ended = state in ("FAILED", "STOPPED") or time.monotonic() > deadline_s
            assert not ended, f"the job {name} is {state or 'not begun'}\n{self._log(name)}\n{self.state()}"
            time.sleep(3)
        # The next one needs its place.
        self.kubectl("wait", "--for=delete", "raycluster", "-l", JOBS, "--timeout=5m", timeout_s=330)
        return self._log(name)

    def _log(self, job: str) -> str:
        return self.tried("kubectl", "logs", "--tail=200", "-l", f"job-name={job}").stdout[-4000:]

    def on_head(self, command: str) -> str:
        """The output of a command on the head of the interactive cluster."""
        (head,) = self.pods("ray.io/cluster=interactive,ray.io/node-type=head")
        return self.kubectl("exec", head, "-c", "ray-head", "--", "bash", "-c", command, timeout_s=900)

    @contextmanager
    def forward(self, service: str, port: int) -> Iterator[str]:
        """The service on a port of this machine: its URL."""
        process = subprocess.Popen(
            ["kubectl", "port-forward", f"svc/{service}", f":{port}"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        try:
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            if found is None:
                raise ConnectionError(f"nothing answers behind {service}")
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.kill()
            process.communicate()


def block_of(first: str) -> str:
    """The indented block of the section on kind that begins so, without its indentation."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    section = text.partition("\n## kind\n")[2].partition("\n## ")[0]
    blocks = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?m)(?:^    .*\n)+", section)]
    found = [block for block in blocks if block.startswith(first)]
    assert len(found) == 1, (
        f"docs/kubernetes.md has {len(found)} blocks in its section on kind that begin: {first}"
    )
    return found[0]
