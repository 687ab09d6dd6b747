"""Hosts on one machine, and a link that can be cut.

A host is a process tree in namespaces of its own: network (an address on a bridge), host name, process ids, and one
folder that the other hosts do not see. Nothing of it stands in the machine's own network, and the kernel removes all
of it with the processes, which die with the process that has made them: a killed test leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
from load_parts import ROOT

PROGRAMS = ("ip", "nsenter", "setpriv", "unshare")
NETWORK = "198.18.0"
"""Addresses for tests of networks (RFC 2544), which no real host has."""
CLONE_NEWNET = 0x40000000

_BOOT = """
set -e
mount --bind "$1" "$2"
mount --bind "$1/hosts" /etc/hosts
echo "$3" > /proc/sys/kernel/hostname
echo up
exec sleep infinity
"""


def why_not() -> str:
    """Why this machine can hold no hosts; empty where it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: run .ci/install-iproute2"
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "true"], capture_output=True
    )
    return f"this machine allows no namespaces: {tried.stderr.decode().strip()}" if tried.returncode else ""


class Host:
    """One host of a network; ``folder`` is what it alone sees, at the same path on each."""

    def __init__(self, name: str, address: str, process: subprocess.Popen[bytes], base: Path) -> None:
        self.name, self.address = name, address
        self.outside = base / name
        """Its folder, as this process sees it."""
        self._folder = base / "host"
        (self.pid,) = (child.pid for child in psutil.Process(process.pid).children())
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Run a command on this host; what it says goes to ``log`` in its folder."""
        variables = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        places = dict.fromkeys(("TMPDIR", "RAY_TMPDIR", "HOME"), str(self._folder))
        cache = {"SENTINODE_CACHE": str(self._folder / "cache")}
        entered = ["nsenter", f"--target={self.pid}", "--all", f"--wd={ROOT}", *command]
        with (self.outside / "log").open("ab") as log:
            process = subprocess.Popen(
                entered,
                env={**variables, **places, **cache, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        return process

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets that this thread, and threads that it starts, open within the ``with`` are this host's."""
        with Path("/proc/thread-self/ns/net").open() as own, Path(f"/proc/{self.pid}/ns/net").open() as other:
            _set_network(other.fileno())
            try:
                yield
            finally:
                _set_network(own.fileno())

    @property
    def log(self) -> str:
        return (self.outside / "log").read_text(errors="replace")


class Network:
    """A bridge within a namespace of its own, and hosts on it, while the ``with`` block lasts."""

    def __enter__(self) -> Self:
        self._running = contextlib.ExitStack()
        # Short: the path of a socket may have 107 bytes, and Ray's own part has 80.
        self._base = Path(self._running.enter_context(tempfile.TemporaryDirectory(prefix="sn-")))
        (self._base / "host").mkdir()
        self.hosts: dict[str, Host] = {}
        try:
            self._switch = self._boot("switch", "")
            self._ip(self._switch, "link add name br0 type bridge", "link set dev br0 up")
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()
        for host in self.hosts.values():
            for process in host.started:
                process.wait(30)

    def add(self, name: str) -> Host:
        """A new host with the next free address."""
        host = self._boot(name, f"{NETWORK}.{len(self.hosts) + 1}")
        self.hosts[name] = host
        self._ip(
            self._switch,
            f"link add name {name} type veth peer name eth0 netns {host.pid}",
            f"link set dev {name} master br0 up",
        )
        # The route leads nowhere; programs that look for their own address ask for the one to the outside.
        self._ip(
            host,
            "link set dev lo up",
            f"addr add {host.address}/24 dev eth0",
            "link set dev eth0 up",
            f"route add default via {NETWORK}.254",
        )
        return host

    def unplug(self, host: Host) -> None:
        """Cut the host off: no packet passes, no connection is told."""
        self._ip(self._switch, f"link set dev {host.name} down")

    def plug(self, host: Host) -> None:
        """Undo ``unplug``."""
        self._ip(self._switch, f"link set dev {host.name} up")

    def _boot(self, name: str, address: str) -> Host:
        folder = self._base / name
        folder.mkdir()
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n" if address else "")
        apart = ["unshare", "--net", "--mount", "--uts", "--pid", "--mount-proc", "--fork", "--kill-child"]
        boot = ["sh", "-c", _BOOT, "sh", str(folder), str(self._base / "host"), name]
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *apart, *boot],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        self._running.callback(process.wait, 30)
        self._running.callback(process.stdout.close)
        self._running.callback(process.kill)
        assert process.stdout.readline() == b"up\n", f"host {name} did not come up"
        return Host(name, address, process, self._base)

    @staticmethod
    def _ip(host: Host, *lines: str) -> None:
        subprocess.run(
            ["nsenter", f"--target={host.pid}", "--net", "ip", "-batch", "-"],
            input="\n".join(lines).encode(),
            check=True,
        )


def program(name: str) -> str:
    """Path of a program of this environment."""
    return str(Path(sys.executable).with_name(name))


def _set_network(descriptor: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
