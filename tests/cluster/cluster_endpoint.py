"""The endpoint of a site: asked, rolled out, watched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from cluster_site import ROOT, Site

from sentinode.errors import SentinodeError
from sentinode.serving.client import Client

PATCH = (ROOT / "docs/pictures/tumour_patch.png").read_bytes()
SERVE = "sentinode-serve-svc"


def verdict(site: Site, url: str) -> str:
    """The bundle that gives a verdict on a patch."""
    with Client(url, site.environment["SENTINODE_API_KEY"]) as client:
        return client.predict(PATCH).bundle


def await_verdict(site: Site, timeout_s: float = 600.0) -> str:
    """The bundle that answers, as soon as one does."""
    deadline_s = time.monotonic() + timeout_s
    why = ""
    while time.monotonic() < deadline_s:
        try:
            with site.forward(SERVE, 8000) as url:
                return verdict(site, url)
        except (ConnectionError, SentinodeError) as error:
            why = str(error)
            time.sleep(2)
    raise AssertionError(f"no verdict within {timeout_s:g} s: {why}\n{site.state()}")


@contextmanager
def asked(site: Site) -> Iterator[list[str]]:
    """A client that asks for verdicts as long as the block lasts, through the pods that there are at its start: what
    failed."""
    failed: list[str] = []
    over = Event()

    def ask() -> None:
        while not over.wait(0.2):
            try:
                verdict(site, url)
            except SentinodeError as error:
                failed.append(str(error))

    with site.forward(SERVE, 8000) as url:
        thread = Thread(target=ask)
        thread.start()
        try:
            yield failed
        finally:
            over.set()
            thread.join(120)


@contextmanager
def registry(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The cluster's store within reach of this process and of the commands it starts."""
    with site.forward("store", 9000) as url:
        keys = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
        reach = {"AWS_ENDPOINT_URL": url, "AWS_REGION": "eu-central-1", **keys}
        for name, value in reach.items():
            monkeypatch.setenv(name, value)
            monkeypatch.setitem(site.environment, name, value)
        yield


def rolled_out(site: Site, *flags: str) -> tuple[int, str]:
    """Exit code and words of a rollout through the endpoint's own Service."""
    with site.forward(SERVE, 8000) as url:
        done = site.tried("sentinode", "rollout", "start", "--gateway", url, *flags, timeout_s=2400)
    return done.returncode, done.stderr + done.stdout


def await_interactive(site: Site) -> None:
    head = "ray.io/cluster=interactive,ray.io/node-type=head"
    deadline_s = time.monotonic() + 120
    while not site.pods(head) and time.monotonic() < deadline_s:
        time.sleep(1)
    site.kubectl("wait", "pod", "-l", head, "--for=condition=Ready", "--timeout=15m", timeout_s=930)


def active(site: Site) -> str:
    """The RayCluster that serves."""
    return str(site.get("rayservice", "sentinode")["status"]["activeServiceStatus"]["rayClusterName"])


def ready_workers(site: Site) -> dict[str, str]:
    """Container by name of the pods that answer."""
    pods = site.get("pods", "-l", f"ray.io/cluster={active(site)},ray.io/node-type=worker")["items"]
    states = {pod["metadata"]["name"]: pod["status"].get("containerStatuses") for pod in pods}
    return {name: found[0]["containerID"] for name, found in states.items() if found and found[0]["ready"]}
