"""CustomResourceDefinitions as the DOUBLE of the API server reads them: schemas, and the rules it cannot evaluate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

log = logging.getLogger(__name__)
_KEPT = ("type", "items", "required", "enum", "minimum", "maximum", "minItems", "additionalProperties")


@cache
def structures_of(crds: Path) -> dict[str, Any]:
    """The structural schemas (``openAPIV3Schema``) of the stored versions, by plural."""
    # Parsed by libyaml: in Python, a file of this size takes half a minute on a busy machine.
    trees = (yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in sorted(crds.glob("*.yaml")))
    return {
        crd["spec"]["names"]["plural"]: version["schema"]["openAPIV3Schema"]
        for crd in trees
        for version in crd["spec"]["versions"]
        if version["storage"]
    }


@cache
def schemas_of(crds: Path) -> dict[str, Any]:
    """JSON Schemas of the stored versions, by plural."""
    return {plural: _json_schema(structure) for plural, structure in structures_of(crds).items()}


@cache
def rules_not_enforced(crds: Path) -> tuple[str, ...]:
    """``PLURAL.PATH: RULE`` of each ``x-kubernetes-validations``: CEL, which nothing here evaluates. Warns once."""
    found = tuple(
        f"{plural}{path}: {rule}"
        for plural, structure in structures_of(crds).items()
        for path, rule in _rules(structure, "")
    )
    if found:
        log.warning(
            "the double of the API server does NOT enforce %d CEL rules:\n%s", len(found), "\n".join(found)
        )
    return found


def _rules(node: Any, path: str) -> Iterator[tuple[str, str]]:
    for entry in node.get("x-kubernetes-validations", ()):
        yield path, entry["rule"]
    for name, child in node.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}")
    for more, sign in (("items", "[*]"), ("additionalProperties", ".*")):
        if isinstance(node.get(more), dict):
            yield from _rules(node[more], path + sign)


def _json_schema(node: Any) -> Any:
    """A structural schema of a CRD as JSON Schema in which unknown fields are errors."""
    if isinstance(node, list):
        return [_json_schema(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            kept[key] = {name: _json_schema(one) for name, one in value.items()}
        elif key in _KEPT:
            kept[key] = _json_schema(value)
    if "properties" in kept and not node.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    return kept
