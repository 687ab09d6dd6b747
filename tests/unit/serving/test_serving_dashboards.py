"""Dashboard and alerts ask for what the endpoint really exports: every metric, and every label."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from serving_parts import encode, random_patches, sealed_registry
from starlette.testclient import TestClient

from sentinode.bundle.bundle import open_bundle
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import create_app
from sentinode.serving.auth import ApiKeys
from sentinode.serving.engine import Engine

FOLDER = Path(__file__).resolve().parents[3] / "infra" / "dashboards"
NOT_METRICS = re.compile(
    r"^(sum|max|min|by|rate|increase|absent|histogram_quantile|label_values|le|on|and|or|without|count)$"
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Name of each time series that a real endpoint exports, and its labels."""
    folder = tmp_path_factory.mktemp("dashboards")
    store, digest, _ = sealed_registry(folder)
    engine = Engine(open_bundle(store, digest, folder / "cache"))
    app = create_app(engine, ServeArgs(registry="unused", bundle=digest), ApiKeys())
    with TestClient(app) as client:
        assert client.post("/v1/predict", content=encode(random_patches(1)[0], "PNG")).status_code == 200
        text = client.get("/metrics").text
    series: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series.setdefault(sample.name, set()).update(sample.labels)
    return series


def expressions() -> Iterator[tuple[str, str]]:
    """Where it stands, and the PromQL."""
    board = json.loads((FOLDER / "endpoint.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["query"]["query"]
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def bare(expression: str) -> str:
    """Without strings, ranges and Grafana's variables, so that only names are left."""
    return re.sub(r'"[^"]*"|\[[^\]]*\]|\$\w+', " ", expression)


@pytest.mark.parametrize(("where", "expression"), list(expressions()), ids=lambda text: text[:40])
def test_every_metric_and_label_of_a_query_exists(
    exported: dict[str, set[str]], where: str, expression: str
) -> None:
    labels_only = re.compile(r"\{([^}]*)\}|\bby\s*\(([^)]*)\)|, (\w+)\)$")
    asked_labels = {
        name
        for groups in labels_only.findall(bare(expression))
        for name in re.findall(r"[a-z_]+", " ".join(groups))
    }
    names = set(re.findall(r"[a-z_]\w*", labels_only.sub(" ", bare(expression))))
    metrics = {name for name in names if not NOT_METRICS.match(name)}
    assert metrics, where
    assert metrics <= set(exported), f"{where} asks for what is not exported"
    for metric in metrics:
        assert asked_labels - {"le"} <= exported[metric], f"{where}: {metric} lacks a label"
    assert expression.count("(") == expression.count(")")


def test_everything_exported_is_shown(exported: dict[str, set[str]]) -> None:
    shown = " ".join(expression for _, expression in expressions())
    families = {re.sub(r"_(total|sum|count|bucket|created)$", "", name) for name in exported}
    assert {family for family in families if family.startswith("sentinode_") and family not in shown} == set()


def test_rules_are_complete_and_the_board_has_no_overlaps() -> None:
    rules = [
        rule
        for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "description"}
    board = json.loads((FOLDER / "endpoint.json").read_text())
    assert "Research use only" in board["description"]
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
