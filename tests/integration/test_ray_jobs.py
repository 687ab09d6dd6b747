"""`ray job submit` with token authentication against a running `ray start --head`: ingest, then train."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

RAY = Path(sys.executable).parent / "ray"


@dataclass(frozen=True)
class Head:
    """A running head node and the environment that may talk to it."""

    address: str
    environment: dict[str, str]

    def submit(self, folder: Path, *entry: str, token: bool = True) -> subprocess.CompletedProcess[str]:
        environment = dict(self.environment)
        if not token:
            del environment["RAY_AUTH_TOKEN"]
        command = [
            str(RAY),
            "job",
            "submit",
            "--address",
            self.address,
            "--working-dir",
            str(folder),
            "--",
            *entry,
        ]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # it refuses us without a token, so it is up
    except OSError:
        return False


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    dashboard, gcs = free_port(), free_port()
    environment = os.environ | {
        "HOME": str(home),
        "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "WANDB_MODE": "offline",
        "SENTINODE_CACHE": str(home / "cache"),
        "SENTINODE_LOG": "plain",
    }
    environment.pop("RAY_ADDRESS", None)
    command = [
        str(RAY),
        "start",
        "--head",
        "--block",
        f"--port={gcs}",
        "--num-cpus=3",
        "--disable-usage-stats",
    ]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--node-ip-address=127.0.0.1"]
    # The usual port may be another Ray's on this machine; without its agent a node takes no job.
    command += [f"--dashboard-agent-listen-port={free_port()}"]
    log = (home / "head.log").open("w")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 90
        while not answers(f"{address}/api/version"):
            assert process.poll() is None, (home / "head.log").read_text()[-3000:]
            assert time.monotonic() < deadline, "ray start --head did not answer within 90 s"
            time.sleep(0.5)
        yield Head(address, environment)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def test_without_the_token_a_job_is_refused(head: Head, repository: Path) -> None:
    done = head.submit(repository, "python", "-c", "print('ran')", token=False)
    assert done.returncode != 0
    assert "ran" not in done.stdout


def test_ingest_and_train_as_jobs(head: Head, repository: Path, tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "runs" / "first"
    ingest = ("--source", "synthetic", "--synthetic.patches", "600", "--dataset", "jobs", "--out", str(data))
    done = head.submit(repository, "python", "jobs/ingest.py", *ingest)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (data / "manifest.json").is_file()
    train = ("--recipe", "seed-cnn", "--data", str(data), "--run", str(run), "--train.epochs", "1")
    done = head.submit(repository, "python", "jobs/train.py", *train)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (run / "run.json").is_file()
    assert (run / "weights" / "best.safetensors").is_file()


def test_a_users_mistake_fails_the_job_without_a_traceback(
    head: Head, repository: Path, tmp_path: Path
) -> None:
    done = head.submit(
        repository, "python", "jobs/train.py", "--recipe", "seed-cnn", "--data", str(tmp_path / "no")
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stdout


def test_sentinode_submit(head: Head, repository: Path, tmp_path: Path) -> None:
    command = [
        str(RAY.parent / "sentinode"),
        "submit",
        "ingest",
        "--source",
        "synthetic",
        "--synthetic.patches",
        "300",
    ]
    command += ["--dataset", "tissue", "--out", str(tmp_path / "data"), "--address", head.address]
    command += ["--working-dir", str(repository)]

    def submit(*more: str, **changes: str) -> subprocess.CompletedProcess[str]:
        environment = head.environment | {"PYTHONPATH": str(repository / "platform")} | changes
        return subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=400)

    done = submit()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "data" / "manifest.json").is_file()
    assert "300" in done.stdout, "the job's log is shown"
    failed = submit("--on-conflict", "nonsense")
    assert failed.returncode not in (0, 130)
    assert "FAILED" in failed.stdout + failed.stderr
    refused = submit(RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode == 1
    assert "RAY_AUTH_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr
    nowhere = submit("--address", "http://127.0.0.1:9")
    assert nowhere.returncode == 1
    assert "127.0.0.1:9" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr
