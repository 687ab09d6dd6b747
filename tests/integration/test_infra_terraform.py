"""Terraform: its own checks, and that it names what the manifests name."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

TERRAFORM = shutil.which("terraform")


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "infra" / "terraform"


def text_of(folder: Path) -> str:
    return "\n".join(file.read_text() for file in sorted(folder.glob("*.tf")))


@pytest.mark.skipif(TERRAFORM is None, reason="terraform is not installed")
def test_format(folder: Path) -> None:
    ran = subprocess.run(["terraform", "fmt", "-check", "-diff"], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.skipif(TERRAFORM is None, reason="terraform is not installed")
def test_validate(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "terraform"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(".terraform*"))
    initialised = subprocess.run(
        ["terraform", "init", "-backend=false", "-input=false", "-no-color"],
        cwd=copy, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if initialised.returncode:
        pytest.skip(f"the providers cannot be had here: {initialised.stderr.strip()[:200]}")
    ran = subprocess.run(
        ["terraform", "validate", "-no-color"], cwd=copy, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("name", ["small", "production"])
def test_variable_files_set_what_is_declared(folder: Path, name: str) -> None:
    declared = set(re.findall(r'^variable "(\w+)"', (folder / "variables.tf").read_text(), re.MULTILINE))
    given = set(re.findall(r"^(\w+)\s*=", (folder / f"{name}.tfvars").read_text(), re.MULTILINE))
    assert {"environment", "node_groups"} <= given <= declared
    assert declared <= set(re.findall(r"var\.(\w+)", text_of(folder)))


def test_nothing_is_open_or_plain(folder: Path) -> None:
    text = text_of(folder)
    for switch in (
        "block_public_acls",
        "block_public_policy",
        "ignore_public_acls",
        "restrict_public_buckets",
    ):
        assert re.search(rf"{switch}\s*=\s*true", text)
    assert re.search(r'http_tokens\s*=\s*"required"', text)
    assert len(re.findall(r"enable_key_rotation\s*=\s*true", text)) == text.count('resource "aws_kms_key"')
    assert not re.search(r'"s3:\*"', text.replace('effect    = "Deny"\n    actions   = ["s3:*"]', "")), (
        "s3:* is allowed"
    )
    assert not re.search(r"(AKIA|aws_secret|password\s*=)", text)


def test_roles_are_for_the_accounts_of_the_manifests(folder: Path, repository: Path) -> None:
    documents = [
        document
        for file in (repository / "k8s").rglob("*.yaml")
        for document in yaml.safe_load_all(file.read_text())
        if document and document.get("kind") == "ServiceAccount"
    ]
    if not documents:
        pytest.skip("there are no manifests yet")
    there = {document["metadata"]["name"] for document in documents}
    identity = (folder / "identity.tf").read_text()
    ours = re.findall(r'namespace = "sentinode"\s+accounts\s+= \[([^\]]*)\]', identity)
    named = {account for accounts in ours for account in re.findall(r'"([^"]+)"', accounts)}
    assert named
    assert named <= there, "a role trusts a service account that no manifest makes"
