"""`sentinode submit --kubernetes` over real HTTP: Kubernetes' client against a double of its API server, which lets
in only what the Role of the manifests allows, and a double of KubeRay that really runs the job's entrypoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import manifest_parts as manifests
import pytest
import yaml
from kube_double.api_server import ApiServerDouble
from kube_double.rayjob import NAMESPACE, RayJobDouble

from sentinode.cli import run_step
from sentinode.data.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT.parent / "shared" / "k8s" / "kuberay-crds"
pytestmark = pytest.mark.skipif(not CRDS.exists(), reason="the CRDs of KubeRay are not beside the checkout")
INGEST = ["ingest", "--source", "synthetic", "--synthetic.patches", "60", "--dataset", "tissue"]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServerDouble]:
    programs = tmp_path / "bin"
    programs.mkdir()
    code = "import sys; from sentinode.cli import main; main(sys.argv[1:])"
    (programs / "sentinode").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    (programs / "sentinode").chmod(0o755)
    settings = {"SENTINODE_DATA": str(tmp_path / "data"), "PYTHONPATH": str(ROOT / "platform")}
    (cluster,) = manifests.of_kind("overlays/local", "RayCluster")
    with ApiServerDouble(CRDS, manifests.of_kind("overlays/local", "Role")[0]) as server:
        server.put((NAMESPACE, "rayclusters", "interactive"), cluster)
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        with RayJobDouble(server, programs, settings):
            yield server


def test_a_job_is_made_followed_and_done(
    api: ApiServerDouble, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    job = [*INGEST, "--out", "$SENTINODE_DATA/it's", "--kubernetes", "--name", "first"]
    assert run_step("submit", job) == 0
    shown = capfd.readouterr()
    assert "job first: Running, RUNNING" in shown.err
    assert "job first is done" in shown.err
    assert len(shown.out.splitlines()) == len(api.logs["first-pod"].lines) > 0
    manifest = Manifest.from_json((tmp_path / "data" / "it's" / "manifest.json").read_bytes(), "manifest")
    assert manifest.dataset == "tissue"
    rights = manifests.rights("overlays/local", "rayjobs", "rayclusters", "pods", "pods/log")
    # Whether it has to wait for a change is chance; what is deleted is tested below.
    used = api.used | {("ray.io", "rayjobs", verb) for verb in ("watch", "delete")}
    assert used == rights, "the Role has what is used, and no more"
    assert run_step("submit", job) == 1
    assert "already exists" in capfd.readouterr().err


def test_the_exit_code_is_the_drivers(api: ApiServerDouble, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_step("submit", ["ingest", "--no-such-flag", "1", "--kubernetes", "--name", "wrong"]) == 2
    assert (
        "ended as FAILED: AppFailed: Job entrypoint command failed with exit code 2" in capfd.readouterr().err
    )


def test_dry_run_prints_yaml_and_makes_nothing(
    api: ApiServerDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    flags = ["--kubernetes", "--dry-run", "--job.ttl-s", "60", "--job.retries", "0"]
    assert run_step("submit", ["train", "--data", "$SENTINODE_DATA/x", *flags]) == 0
    job = yaml.safe_load(capfd.readouterr().out)
    assert job["spec"]["entrypoint"] == 'sentinode train --data "${SENTINODE_DATA}"/x'
    assert (job["spec"]["ttlSecondsAfterFinished"], job["spec"]["backoffLimit"]) == (60, 0)
    assert not [key for key in api.objects if key[1] == "rayjobs"]


@pytest.mark.parametrize("stop", [False, True])
def test_who_stops_watching_leaves_the_job_or_deletes_it(
    api: ApiServerDouble, tmp_path: Path, stop: bool
) -> None:
    """The signal comes while the log is followed, as Ctrl-C does."""
    slow = tmp_path / "bin" / "sentinode"
    slow.write_text(
        f"#!/bin/sh\necho begun; while ! [ -e {tmp_path}/go ]; do echo on; sleep 0.1; done; echo ended\n"
    )
    # A shell's background jobs, and what they start, ignore SIGINT.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from sentinode.cli import main; main(sys.argv[1:])"
    )
    more = ["--kubernetes", "--name", "slow", *(["--stop-on-interrupt"] if stop else [])]
    with subprocess.Popen(
        [sys.executable, "-c", code, "submit", "train", *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHONPATH": str(ROOT / "platform")},
    ) as watcher:  # fmt: skip
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "begun\n"
        watcher.send_signal(signal.SIGINT)
        said = watcher.communicate(timeout=60)[1]
    assert watcher.returncode == 130
    key = (NAMESPACE, "rayjobs", "slow")
    assert (key not in api.objects) == stop
    assert ("is deleted" if stop else "kubectl -n sentinode delete rayjob slow") in said
    (tmp_path / "go").touch()
    deadline_s = time.monotonic() + 60
    while not stop and api.get(*key[1:])["status"]["jobDeploymentStatus"] != "Complete":
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_without_the_cluster_to_copy_or_the_rights_it_is_told(
    api: ApiServerDouble, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_step("submit", ["train", "--kubernetes", "--job.cluster", "other"]) == 1
    assert "no RayCluster other in the namespace sentinode" in capfd.readouterr().err
    assert run_step("submit", ["rollout", "--kubernetes"]) != 0
    assert "run `sentinode rollout` itself" in capfd.readouterr().err
    api.role = {"rules": []}
    assert run_step("submit", ["train", "--kubernetes"]) == 1
    assert "not allowed" in capfd.readouterr().err
