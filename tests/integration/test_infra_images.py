"""The images, really built and run, not as root, their root file system read-only: `serve` gives a verdict from a
sealed bundle, `train` trains.

Minutes long, and `train` takes 7 GB: SENTINODE_IMAGES=1 asks for it. As root, with buildah and debootstrap, on Debian's
own packages (`infra/docker/base`). SENTINODE_BUILD_ARGS are further arguments of `buildah build`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from serving_parts import sealed_registry

from sentinode.serving.client import Client

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "infra" / "docker"
IMAGE = "localhost/sentinode/{}:0.1.0"
LARGEST_BYTES = 1_000_000_000
ASKED = os.environ.get("SENTINODE_IMAGES") == "1"
TOOLS = bool(shutil.which("buildah") and shutil.which("debootstrap"))
pytestmark = [
    pytest.mark.skipif(not ASKED, reason="building an image takes minutes: SENTINODE_IMAGES=1 asks for it"),
    pytest.mark.skipif(os.geteuid() != 0, reason="building without a registry needs root"),
    pytest.mark.skipif(not TOOLS, reason="buildah or debootstrap is not installed"),
    pytest.mark.timeout(3600),
]


def buildah(*arguments: str) -> str:
    done = subprocess.run(["buildah", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with built("serve") as root:
        yield root


@contextmanager
def built(name: str) -> Iterator[Path]:
    """The image's root file system, mounted."""
    if not buildah("images", "--quiet", "--filter", "reference=localhost/python:3.11"):
        subprocess.run([DOCKER / "base"], check=True)
    more = shlex.split(os.environ.get("SENTINODE_BUILD_ARGS", ""))
    done = subprocess.run(
        [
            DOCKER / "build",
            name,
            "localhost/python:3.11",
            "--isolation",
            "chroot",
            "--network",
            "host",
            *more,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    container = buildah("from", IMAGE.format(name))
    yield Path(buildah("mount", container))
    buildah("rm", container)


def within(root: Path, command: str, registry: Path | None = None) -> list[str]:
    """A command in the image, as in a pod: in a mount namespace, the root read-only, not as root, and /tmp the one
    place to write, where ``registry`` stands. It says its user id first.
    """
    bind = f"mkdir {root}/tmp/registry && mount --bind {registry} {root}/tmp/registry" if registry else "true"
    script = f"""
        set -e
        mount --bind {root} {root} && mount -o remount,bind,ro {root}
        mount -t tmpfs tmpfs {root}/tmp && chmod 1777 {root}/tmp && {bind}
        mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev
        ! touch {root}/opt/written 2>/dev/null
        exec chroot --userspec=1000:1000 --groups= {root} /usr/bin/env -i HOME=/tmp PATH=/opt/venv/bin:/usr/bin:/bin \
            PYTHONPATH=/opt/sentinode/serve RAY_USAGE_STATS_ENABLED=0 /bin/sh -c 'cd /tmp; id -u; {command}'
    """
    return ["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", script]


def test_small_without_pytorch_and_with_its_bill(root: Path) -> None:
    (image,) = json.loads(buildah("images", "--json", IMAGE.format("serve")))
    described = json.loads(buildah("inspect", "--type", "image", IMAGE.format("serve")))["Docker"]
    assert described["config"]["User"] == "1000:1000"
    assert "/-/healthz" in " ".join(described["config"]["Healthcheck"]["Test"])
    packages = root / "opt/venv/lib/python3.11/site-packages"
    assert not {"torch", "kubernetes", "pip", "moto", "pytest"} & {path.name for path in packages.iterdir()}
    bill = json.loads((root / "opt/venv/sbom.cdx.json").read_text())
    assert {"ray", "onnxruntime", "sentinode"} <= {part["name"] for part in bill["components"]}
    bytes_ = sum(path.lstat().st_size for path in root.rglob("*") if not path.is_symlink() and path.is_file())
    assert bytes_ < LARGEST_BYTES, f"{bytes_ / 1e6:.0f} MB; buildah says {image['size']}"


def test_it_serves_a_verdict_from_a_read_only_root(root: Path, tmp_path: Path) -> None:
    _, digest, _ = sealed_registry(tmp_path)
    registry = tmp_path / "registry"
    for path in (tmp_path, *registry.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = f"exec sentinode serve --registry /tmp/registry --bundle {digest} --port {port}"
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            within(root, serve, registry), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            await_health(port, process, log)
            with Client(f"http://127.0.0.1:{port}") as client:
                reply = client.predict((ROOT / "docs/pictures/tumour_patch.png").read_bytes())
            assert reply.bundle == digest
            assert log.read_text().splitlines()[0] == "1000"
        finally:
            # The first process of the namespace goes, and with it all others.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


def test_train_trains_from_a_read_only_root() -> None:
    ingest = "sentinode ingest --source synthetic --synthetic.patches 600 --out data"
    train = "sentinode train --recipe seed-cnn --data data --run run --train.epochs 1 --scaling.num-workers 1"
    with built("train") as root:
        assert (root / "opt/venv/sbom.cdx.json").is_file()
        done = subprocess.run(
            within(root, f"{ingest} && {train} && cat run/metrics.jsonl"),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.splitlines()[0] == "1000"
    assert "valid_auroc" in done.stdout.splitlines()[-1]


def await_health(port: int, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 240.0) -> None:
    """What the health check of the image asks."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/healthz", timeout=4):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])
