"""What the documents of operations name exists: commands, flags, sections that alerts lead to, the model's tables."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import manifest_parts as manifests
import pytest
import yaml
from pydantic import BaseModel

from sentinode.cli import COMMANDS

DOCUMENTS = ("runbook.md", "rollout.md", "kubernetes.md")


def commands(repository: Path, document: str) -> list[str]:
    """Every call of `sentinode` in an indented or quoted line of code."""
    text = (repository / "docs" / document).read_text()
    lines = [line.partition("   # ")[0] for line in text.splitlines() if line.startswith("    ")]
    quoted = re.findall(r"`(sentinode [^`]+)`", text)
    call = re.compile(r"(?<!-n )(?<!namespace )\bsentinode [a-z]+[^|;'&]*(?:'[^']*'[^|;&]*)*")
    return [found for line in (*lines, *quoted) for found in call.findall(line)]


def has(model: Any, path: list[str]) -> bool:
    """Whether a flag such as --pace.shares is a field of the model, or of one nested in it."""
    models = [m for m in (model, *get_args(model)) if isinstance(m, type) and issubclass(m, BaseModel)]
    for one in models:
        field = one.model_fields.get(path[0].replace("-", "_"))
        if field is not None:
            return len(path) == 1 or has(field.annotation, path[1:])
    return False


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_command_and_flag_exists(repository: Path, document: str) -> None:
    found = commands(repository, document)
    assert len(found) > 5
    for line in found:
        words = line.split()
        name = words[1]
        assert name in COMMANDS, line
        models = [import_module(f"sentinode.commands.{name}").FLAGS]
        if name == "submit":
            step = words[2]
            models.append(import_module(f"sentinode.commands.{step}").FLAGS)
        for flag in re.findall(r"--([a-z][a-z.0-9-]*)", line):
            if flag in ("dry-run", "recipe", "help"):
                continue
            known = any(has(model, flag.split(".")) for model in models)
            assert known or flag.startswith(("train.", "scaling.")), f"{document}: {line}: --{flag}"


def test_alerts_lead_to_sections_that_exist(repository: Path) -> None:
    sections = {
        re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-")
        for line in (repository / "docs" / "runbook.md").read_text().splitlines()
        if line.startswith("## ")
    }
    rules = (repository / "k8s" / "components" / "monitoring" / "monitoring.yaml").read_text()
    dashboards = (repository / "infra" / "dashboards" / "alerts.yaml").read_text()
    capacity = (repository / "docs" / "capacity.md").read_text()
    links = re.findall(r"runbook\.md#([a-z-]+)", rules + capacity)
    assert len(links) > 6
    assert set(links) <= sections
    groups = [group for document in yaml.safe_load_all(rules) if document["kind"] == "PrometheusRule"
              for group in document["spec"]["groups"]] + yaml.safe_load(dashboards)["groups"]  # fmt: skip
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    named = set(re.findall(r"`((?:Endpoint|Sentinode)[A-Z][A-Za-z]+)`", capacity))
    assert named
    assert named <= alerts


def test_jobs_and_pushes_can_be_given_again(repository: Path) -> None:
    """A RayJob that has ended still has its name, and a tag of the repositories cannot be moved."""
    text = (repository / "docs" / "kubernetes.md").read_text()
    starts = re.findall(r"(?m)^    start\(\) \{ (.*); \}$", text)
    assert len(starts) == 2
    for line in starts:
        first, _, then = line.partition("; ")
        assert first == "kubectl -n sentinode delete rayjob $1 --ignore-not-found"
        assert "kubectl create -l app.kubernetes.io/name=$1" in then
    storage = (repository / "infra" / "terraform" / "storage.tf").read_text()
    assert re.search(r'image_tag_mutability = "IMMUTABLE"', storage)
    (pushed,) = re.findall(r"docker://\$\(terraform output .*\):(\S+)", text)
    assert pushed == "$tag"
    assert re.search(r"(?m)^    tag=\$\(git rev-parse .*date ", text)


def test_budgets_that_hold_a_drain_are_named(repository: Path) -> None:
    """One pod of which one must stay is never evicted; that is meant, and who drains a node must know it."""
    (row,) = re.findall(
        r"(?m)^\| a node must be drained.*$", (repository / "docs" / "kubernetes.md").read_text()
    )
    workers = [manifests.name(m) for m in manifests.of_kind("overlays/production", "PodDisruptionBudget")]
    alone = {one.removeprefix("PodDisruptionBudget/") for one in workers} - {"endpoint-workers"}
    assert {"gcs-store", "interactive-head"} <= alone
    for name in alone:
        assert f"`{name}`" in row


def test_the_tables_of_capacity_are_the_models(repository: Path) -> None:
    spec = importlib.util.spec_from_file_location("capacity", repository / "benchmarks" / "capacity.py")
    assert spec is not None
    assert spec.loader is not None
    capacity = sys.modules["capacity"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(capacity)
    assert capacity.report() in (repository / "docs" / "capacity.md").read_text()
    half = capacity.Assumed(utilisation=0.075)
    node = capacity.NODES[1]
    whole = capacity.computed(node, "resnet18", 3, capacity.Assumed())
    assert capacity.computed(node, "resnet18", 3, half) == pytest.approx(whole / 2)
    assert capacity.scored(node, "pcam-small", capacity.Assumed())[1] == "decoding"
