"""infra/terraform/fill_overlay.py: what Terraform prints, in every manifest that names it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ACCOUNT, REGION, BUCKET = "123456789012", "eu-west-1", "sentinode-clinic-data-7f"
REGISTRY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/sentinode-clinic"
DIGESTS = {name: f"sha256:{digit * 64}" for name, digit in (("train", "1"), ("serve", "2"), ("valkey", "3"))}


def outputs() -> dict[str, Any]:
    """As `terraform output -json` prints them; the names are those of outputs.tf, storage.tf and identity.tf."""
    prefixes = ("sources", "data", "runs", "registry", "slides", "scores")
    values = {
        "cluster": "sentinode-clinic",
        "settings": {"AWS_REGION": REGION}
        | {f"SENTINODE_{p.upper()}": f"s3://{BUCKET}/{p}" for p in prefixes},
        "images": {name: f"{REGISTRY}/{name}" for name in DIGESTS},
        "roles": {
            n: f"arn:aws:iam::{ACCOUNT}:role/sentinode-clinic-{n}" for n in ("batch", "endpoint", "secrets")
        },
    }
    return {name: {"sensitive": False, "value": value} for name, value in values.items()}


@pytest.fixture
def k8s(tmp_path: Path, repository: Path) -> Path:
    return Path(shutil.copytree(repository / "k8s", tmp_path / "k8s"))


def fill(
    repository: Path, k8s: Path, printed: dict[str, Any], *more: str
) -> subprocess.CompletedProcess[str]:
    script = repository / "infra" / "terraform" / "fill_overlay.py"
    command = [sys.executable, str(script), "--k8s", str(k8s), *more]
    return subprocess.run(command, input=json.dumps(printed), capture_output=True, text=True, check=False)


def test_the_names_are_those_that_terraform_prints(repository: Path) -> None:
    made = "".join(path.read_text() for path in (repository / "infra" / "terraform").glob("*.tf"))
    for name in ("settings", "images", "roles"):
        assert f'output "{name}"' in made
    assert 'toset(["train", "serve", "valkey"])' in made
    assert 'for name in ["batch", "endpoint", "secrets"]' in made


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_everything_that_is_the_clusters_own_is_filled(repository: Path, k8s: Path) -> None:
    pairs = [f"{name}={digest}" for name, digest in DIGESTS.items()]
    assert fill(repository, k8s, outputs(), "--host", "verdicts.clinic.example", *pairs).returncode == 0
    build = ["kubectl", "kustomize", str(k8s / "overlays/production")]
    jobs = ["kubectl", "kustomize", str(k8s / "overlays/production/jobs")]
    text = "".join(
        subprocess.run(c, capture_output=True, text=True, check=True).stdout for c in (build, jobs)
    )
    for stale in (
        "sentinode-data",
        "eu-central-1",
        "arn:aws:iam::000000000000",
        "000000000000.dkr",
        "sentinode.example.org",
    ):
        assert stale not in text
    assert set(re.findall(r"image: (\S+)", text)) == {
        f"{REGISTRY}/{name}@{DIGESTS[name]}" for name in DIGESTS
    }
    for found in (
        f"s3://{BUCKET}/registry",
        "role/sentinode-clinic-batch",
        "hostname: verdicts.clinic.example",
    ):
        assert found in text


def test_given_again_only_what_is_given_changes(repository: Path, k8s: Path) -> None:
    assert fill(repository, k8s, outputs(), *[f"{n}={d}" for n, d in DIGESTS.items()]).returncode == 0
    before = {path: path.read_text() for path in k8s.rglob("*.yaml")}
    newer = f"sha256:{'9' * 64}"
    assert fill(repository, k8s, outputs(), f"serve={newer}").returncode == 0
    changed = {path.name: path.read_text() for path in before if path.read_text() != before[path]}
    assert list(changed) == ["kustomization.yaml"]
    assert changed["kustomization.yaml"].count(newer) == 1
    assert DIGESTS["train"] in changed["kustomization.yaml"]


@pytest.mark.parametrize(
    ("printed", "pair", "said"),
    [
        ({}, "serve=sha256:" + "1" * 64, "no output settings, images, roles"),
        (outputs(), "serve=latest", "sha256:<64 hex digits>"),
        (outputs(), "web=sha256:" + "1" * 64, "one of train, serve, valkey"),
    ],
)
def test_a_wrong_input_is_told_and_nothing_is_written(
    repository: Path, k8s: Path, printed: dict[str, Any], pair: str, said: str
) -> None:
    before = {path: path.read_text() for path in k8s.rglob("*.yaml")}
    result = fill(repository, k8s, printed, pair)
    assert result.returncode == 2
    assert said in result.stderr
    assert {path: path.read_text() for path in k8s.rglob("*.yaml")} == before


def test_claims_of_a_new_eks_cluster_name_their_class(repository: Path) -> None:
    """EKS has had no default StorageClass since Kubernetes 1.30."""
    redis = repository / "k8s" / "components" / "redis"
    assert "storageClassName: sentinode-gp3" in (redis / "redis.yaml").read_text()
    assert "name: sentinode-gp3" in (redis / "volumes.yaml").read_text()


@pytest.mark.parametrize("printed", ["", "no output", "[]", '{"settings": 1}'])
def test_what_terraform_did_not_print_is_told(repository: Path, k8s: Path, printed: str) -> None:
    script = repository / "infra" / "terraform" / "fill_overlay.py"
    command = [sys.executable, str(script), "--k8s", str(k8s)]
    done = subprocess.run(command, input=printed, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "`terraform output -json`" in done.stderr
    assert "Traceback" not in done.stderr
