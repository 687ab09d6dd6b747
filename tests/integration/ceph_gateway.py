"""Ceph's RADOS gateway for tests: one monitor, one manager, one memstore OSD and one gateway, all on loopback.

    with CephGateway(folder) as ceph:
        os.environ.update(ceph.environment)      # s3:// URLs now mean this gateway

The programs come from the packages that `.ci/install-ceph` installs. Run as a script it starts a gateway, prints the
variables to export, and serves until interrupted:

    PYTHONPATH=platform python tests/integration/ceph_gateway.py
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import boto3

PROGRAMS = ("ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin", "setpriv")
START_TIMEOUT_S = 60.0
ACCESS_KEY, SECRET_KEY = "sentinode-test", "sentinode-test-secret"

CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = v1:127.0.0.1:{monitor_port}
ms_bind_msgr2 = false
public_addr = 127.0.0.1
run_dir = {folder}
crash_dir = {folder}
keyring = {folder}/keyring
log_file = {folder}/$name.log
admin_socket =
mon_data = {folder}/mon
mgr_data = {folder}/mgr
osd_data = {folder}/osd
rgw_data = {folder}/rgw
mon_initial_members = a
mon_allow_pool_size_one = true
mon_data_avail_crit = 0
mon_data_avail_warn = 0
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
mgr_initial_modules =
mgr_disabled_modules = {manager_modules}
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_crush_chooseleaf_type = 0
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
rgw_frontends = beast endpoint=127.0.0.1:{gateway_port}
"""
"""A whole cluster for a few minutes: no copies, and short waits before a proposal of Paxos.

However full the disk is: by default a monitor ends, without a word, where less than 5 % of it is free.

Authentication stays on: without it, clients send commands before they know the cluster, and get "wrong fsid".
"""

KEYRING = """\
[mon.]
key = {key}
caps mon = "allow *"
[client.admin]
key = {key}
caps mon = "allow *"
caps mgr = "allow *"
caps osd = "allow *"
[osd.0]
key = {key}
caps mon = "allow profile osd"
caps mgr = "allow profile osd"
caps osd = "allow *"
[mgr.x]
key = {key}
caps mon = "allow profile mgr"
caps osd = "allow *"
"""


def missing_programs() -> list[str]:
    """The programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


class CephGateway:
    """A gateway with one user and one bucket, its data in memory, its logs below ``folder``."""

    def __init__(self, folder: Path, bucket: str = "ceph-tests") -> None:
        self.folder = folder
        self.bucket = bucket
        self.endpoint_url = f"http://127.0.0.1:{_free_port()}"
        self.start_s = 0.0
        self._running = ExitStack()
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """``s3://bucket``."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a process reaches the gateway."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_SESSION_TOKEN": "",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1,localhost",
        }

    def __enter__(self) -> Self:
        begin_s = time.monotonic()
        deadline_s = begin_s + START_TIMEOUT_S
        with ExitStack() as starting:
            self._configure()
            fsid = str(uuid4())
            self._run(
                "ceph-mon", "--mkfs", "-i", "a", "--monmap", str(self.folder / "monmap"), until_s=deadline_s
            )
            self._start(starting, "ceph-mon", "-i", "a")
            self._run("ceph", "osd", "new", fsid, "0", until_s=deadline_s)
            self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", fsid, until_s=deadline_s)
            self._start(starting, "ceph-osd", "-i", "0")
            self._start(starting, "ceph-mgr", "-i", "x")
            user = [
                "--uid=test",
                "--display-name=test",
                f"--access-key={ACCESS_KEY}",
                f"--secret-key={SECRET_KEY}",
            ]
            self._run("radosgw-admin", "user", "create", *user, until_s=deadline_s)
            gateway = self._start(starting, "radosgw", "-n", "client.admin")
            self._await_gateway(gateway, deadline_s)
            self._make_bucket()
            self._running = starting.pop_all()
        self.start_s = time.monotonic() - begin_s
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def _configure(self) -> None:
        for name in ("mon", "mgr", "osd", "rgw"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "keyring").write_text(KEYRING.format(key=_new_key()))
        modules = Path("/usr/share/ceph/mgr")
        fsid, monitor_port = str(uuid4()), _free_port()
        configuration = CONFIGURATION.format(
            fsid=fsid,
            folder=self.folder,
            monitor_port=monitor_port,
            gateway_port=self.endpoint_url.rpartition(":")[2],
            manager_modules=",".join(sorted(path.name for path in modules.iterdir() if path.is_dir())),
        )
        (self.folder / "ceph.conf").write_text(configuration)
        monitor = ["--addv", "a", f"[v1:127.0.0.1:{monitor_port}]"]
        self._run("monmaptool", "--create", "--fsid", fsid, *monitor, str(self.folder / "monmap"))

    def _run(self, *command: str, until_s: float | None = None) -> None:
        """Run a command to its end; RuntimeError with its words where it fails or takes too long."""
        timeout_s = START_TIMEOUT_S if until_s is None else max(until_s - time.monotonic(), 0.1)
        try:
            done = subprocess.run(
                command,
                env=self._daemon_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(
                f"{command} did not end in {timeout_s:.0f} s; {self._state()}; logs are in {self.folder}"
            ) from error
        if done.returncode:
            raise RuntimeError(f"{command} failed ({done.returncode}): {done.stderr.strip()}")

    def _start(self, stack: ExitStack, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a daemon that dies with this process at the latest."""
        log = stack.enter_context((self.folder / f"{program}.out").open("wb"))
        process = stack.enter_context(
            subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program, "-f", *arguments],
                env=self._daemon_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        )
        stack.callback(process.kill)
        self._daemons[program] = process
        return process

    def _state(self) -> str:
        """The daemons that have ended, with their exit codes."""
        ended = [
            f"{name} ({code})"
            for name, daemon in self._daemons.items()
            if (code := daemon.poll()) is not None
        ]
        return f"ended before: {', '.join(ended) or 'none'}"

    def _daemon_environment(self) -> dict[str, str]:
        return {**os.environ, "CEPH_CONF": str(self.folder / "ceph.conf")}

    def _await_gateway(self, gateway: subprocess.Popen[bytes], deadline_s: float) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline_s and gateway.poll() is None:
            try:
                opener.open(self.endpoint_url, timeout=5).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(
            f"the gateway did not answer within {START_TIMEOUT_S:.0f} s; {self._state()}; logs are in {self.folder}"
        )

    def _make_bucket(self) -> None:
        session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")
        session.client("s3", endpoint_url=self.endpoint_url).create_bucket(Bucket=self.bucket)


def _new_key() -> str:
    """A key as Ceph writes it: type 1 (AES), time of creation, length, 16 random bytes, in base64."""
    return base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, 16) + os.urandom(16)).decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, CephGateway(Path(folder)) as ceph:
        print(*(f"export {name}={value}" for name, value in ceph.environment.items()), sep="\n", flush=True)
        print(f"# started in {ceph.start_s:.1f} s", file=sys.stderr)
        with suppress(KeyboardInterrupt):
            time.sleep(86_400)
