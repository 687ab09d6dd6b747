"""Hosts with what stands on them: an object store, a Ray head, and Ray nodes of one CPU each."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path

import boto3
import yaml
from botocore.exceptions import EndpointConnectionError
from host_parts import Host, Network, program
from load_parts import ROOT, until


class Machines:
    """Hosts with what stands on them: an object store, a Ray head, and Ray nodes of one CPU each."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.store, self.head = network.add("store"), network.add("head")
        self.environment = {
            **dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), f"http://{self.store.address}:9000"),
            **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "hosts"),
            **dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "*",
            "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT / 'serve'}",
            "WANDB_MODE": "disabled",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        """What every process is told."""

    def start_store(self, bucket: str) -> None:
        """moto's server, with a bucket. ``environment`` must be this process's own as well."""
        self.store.start(program("moto_server"), "-H", "0.0.0.0", "-p", "9000", environment=self.environment)

        def made() -> bool:
            with self.store.entered(), contextlib.suppress(EndpointConnectionError):
                boto3.session.Session().client("s3").create_bucket(Bucket=bucket)
                return True
            return False

        until("the store answers", made)

    def start_head(self, extra: Mapping[str, str]) -> None:
        """Ray's head, which runs no workers; ``extra``: what it is told besides."""
        place = ["--head", "--port=6379", "--num-cpus=0", "--include-dashboard=true"]
        self._wait_for(self.head, self._start_ray(self.head, place, extra))

    def start_nodes(self, *hosts: Host, extra: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """A Ray node of one CPU on each host; ``extra``: what each is told besides, by its name."""
        place = [f"--address={self.head.address}:6379", "--num-cpus=1"]
        started = [self._start_ray(host, place, (extra or {}).get(host.name, {})) for host in hosts]
        for host, process in zip(hosts, started, strict=True):
            self._wait_for(host, process)

    def _start_ray(self, host: Host, place: list[str], extra: Mapping[str, str]) -> subprocess.Popen[bytes]:
        settings = [
            f"--node-ip-address={host.address}",
            "--object-store-memory=80000000",
            "--disable-usage-stats",
        ]
        return host.start(
            *(program("ray"), "start", "--block", *place, *settings),
            environment={**self.environment, **extra},
        )

    @staticmethod
    def _wait_for(host: Host, process: subprocess.Popen[bytes]) -> None:
        def is_up() -> bool:
            assert process.poll() is None, host.log
            return "Ray runtime started" in host.log

        until(f"Ray runs on {host.name}", is_up)


def health_checks(repository: Path) -> dict[str, str]:
    """What the head of every cluster is told in ``k8s``."""
    manifest = yaml.safe_load((repository / "k8s/base/cluster/raycluster.yaml").read_text())
    (container,) = manifest["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"] if "health_check" in one["name"]}
