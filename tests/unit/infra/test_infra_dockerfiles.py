"""What the Dockerfiles promise, as far as it can be read: base, stages, user, health check, bill of materials."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

FILES = ("serve", "train", "store")


def lines_of(repository: Path, name: str) -> list[str]:
    text = (repository / "infra" / "docker" / f"{name}.Dockerfile").read_text()
    return [line for line in text.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize("name", FILES)
def test_two_stages_from_a_base_that_is_given(repository: Path, name: str) -> None:
    lines = lines_of(repository, name)
    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM ${PYTHON} AS packages",
        "FROM ${PYTHON}",
    ]
    assert "ARG PYTHON" in lines, "no default: whoever builds says what is built upon"
    last = lines[lines.index("FROM ${PYTHON}") :]
    assert not any(" pip " in line for line in last), "packages are installed in the first stage alone"
    assert [line for line in last if line.startswith("USER")] == ["USER 1000:1000"]
    assert any(line.startswith("HEALTHCHECK") for line in last)


@pytest.mark.parametrize(
    ("name", "extras"),
    [("serve", {"serve", "traces"}), ("train", {"train", "serve", "traces", "slides", "cluster"})],
)
def test_what_each_image_can_do(repository: Path, name: str, extras: set[str]) -> None:
    """Rollouts run in the cluster from `train`; `serve` has neither PyTorch nor a client of Kubernetes."""
    (install,) = [line for line in lines_of(repository, name) if "pip install" in line]
    assert set(install.partition(".[")[2].partition("]")[0].split(",")) == extras
    assert "-c constraints.txt" in install


@pytest.mark.parametrize("base", ["python:3.11", "python:latest", "docker.io/library/python"])
def test_a_base_that_floats_is_refused(repository: Path, base: str) -> None:
    done = subprocess.run(
        [repository / "infra" / "docker" / "build", "serve", base],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "name it by digest" in done.stderr


def test_the_bill_of_materials(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CycloneDX 1.5, the same in each build."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    spec = importlib.util.spec_from_file_location("sbom", repository / "infra" / "docker" / "sbom.py")
    assert spec is not None
    assert spec.loader is not None
    sbom = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sbom)
    bill = sbom.bill()
    assert json.dumps(bill) == json.dumps(sbom.bill())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    found = {part["name"]: part for part in bill["components"]}
    assert found["pydantic"]["purl"] == f"pkg:pypi/pydantic@{found['pydantic']['version']}"


def test_what_is_called_by_its_name_can_be_run(repository: Path) -> None:
    """Git keeps the bit; without it `.ci/run` only says that buildah could not be installed."""
    staged = subprocess.run(
        ["git", "-C", str(repository), "ls-files", "--stage", ".ci", "infra/docker"],
        capture_output=True,
        text=True,
        check=True,
    )
    files = [(line[:6], repository / line.split("\t")[1]) for line in staged.stdout.splitlines()]
    scripts = [(mode, path) for mode, path in files if path.read_bytes().startswith(b"#!")]
    assert {"install-buildah", "build", "sentinode-drain"} <= {path.name for _, path in scripts}
    assert [path.name for mode, path in scripts if mode != "100755"] == []
