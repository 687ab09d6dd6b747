"""Paths of fields, as ``metadata.managedFields`` writes them (FieldsV1), by the structural schema of a CRD.

A path is a tuple of ``f:NAME`` (a field, or the key of a map), ``k:{"name":"x"}`` (an item of a list of type ``map``,
by its ``x-kubernetes-list-map-keys``) and ``v:"x"`` (an item of a list of type ``set``). Lists without a type and
what is ``atomic`` are one field as a whole. Without a schema (pods, leases), maps are granular and lists atomic.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from kube_double.refusals import Object, RefusedError

Path = tuple[str, ...]
T = TypeVar("T")
_METADATA: Object = {
    "properties": {
        "labels": {"additionalProperties": {}},
        "annotations": {"additionalProperties": {}},
        "finalizers": {"x-kubernetes-list-type": "set"},
        "ownerReferences": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"]},
    }
}


def with_metadata(structure: Object) -> Object:
    """The schema with that of ObjectMeta, which a CRD leaves out."""
    return {**structure, "properties": {**structure.get("properties", {}), "metadata": _METADATA}}


def fields(schema: Object, value: Any, path: Path = ()) -> dict[Path, Any]:
    """Each field with its value; None for an item of a list or map, which is a field beside its own fields."""
    parts = parts_of(schema, value)
    if parts is None:
        return {path: value}
    found: dict[Path, Any] = {}
    for element, (child, part) in parts.items():
        here = (*path, element)
        if element[2:] not in schema.get("properties", {}) or part == {}:
            found[here] = None
        found |= fields(child, part, here)
    return found


def parts_of(schema: Object, value: Any) -> dict[str, tuple[Object, Any]] | None:
    """Schema and value by path element; None where the value is one field as a whole. Raises RefusedError 422."""
    if isinstance(value, dict) and schema.get("x-kubernetes-map-type") != "atomic":
        return {f"f:{name}": (_child(schema, f"f:{name}"), part) for name, part in value.items()}
    kind = schema.get("x-kubernetes-list-type", "atomic")
    if not isinstance(value, list) or kind == "atomic":
        return None
    items = schema.get("items", {})
    named = [
        (_key(schema, item) if kind == "map" else f"v:{_compact(item)}", (items, item)) for item in value
    ]
    if len(dict(named)) < len(named):
        raise RefusedError(422, "Invalid", f"duplicate entries in a list of type {kind}: {value!r:.200}")
    return dict(named)


def merged(schema: Object, live: Any, wanted: Any) -> Any:
    """``wanted`` over ``live``: structures field by field, what is atomic as a whole."""
    have, want = parts_of(schema, live), parts_of(schema, wanted)
    if have is None or want is None or type(live) is not type(wanted):
        return copy.deepcopy(wanted)
    both = {
        element: merged(child, have[element][1], part) if element in have else copy.deepcopy(part)
        for element, (child, part) in want.items()
    }
    return _built(live, {element: part for element, (_, part) in have.items()} | both)


def without(schema: Object, value: Any, paths: set[Path], path: Path = ()) -> Any:
    """``value`` without these fields and what is below them."""
    parts = parts_of(schema, value)
    if parts is None:
        return value
    kept = {
        element: without(child, part, paths, (*path, element))
        for element, (child, part) in parts.items()
        if (*path, element) not in paths
    }
    return _built(value, kept)


def with_parents(schema: Object, paths: Iterable[Path]) -> set[Path]:
    """The paths, and those of the declared fields that they stand in: a structure goes with the last of its fields."""
    found: set[Path] = set()
    for path in paths:
        node = schema
        found.add(path)
        for depth, element in enumerate(path, 1):
            if element.startswith("f:") and element[2:] in node.get("properties", {}):
                found.add(path[:depth])
            node = _child(node, element)
    return found


def to_fields_v1(paths: Iterable[Path]) -> Object:
    """As the nested object of ``fieldsV1``, where ``.`` is an item that has fields of its own."""
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _tidied(tree)


def from_fields_v1(tree: Mapping[str, Any], path: Path = ()) -> set[Path]:
    """The paths of ``fieldsV1``."""
    if not tree:
        return {path} if path else set()
    found: set[Path] = set()
    for element, below in tree.items():
        found |= {path} if element == "." else from_fields_v1(below, (*path, element))
    return found


def shown(path: Path) -> str:
    """As Kubernetes prints it: ``.spec.containers[name="a"].image``."""
    words = []
    for element in path:
        kind, rest = element[:2], element[2:]
        if kind == "k:":
            pairs = (f"{name}={_compact(value)}" for name, value in json.loads(rest).items())
            words.append(f"[{','.join(pairs)}]")
        else:
            words.append(f".{rest}" if kind == "f:" else f"[={rest}]")
    return "".join(words)


def _tidied(node: Object) -> Object:
    return {} if list(node) == ["."] else {element: _tidied(below) for element, below in node.items()}


def _child(schema: Object, element: str) -> Object:
    if not element.startswith("f:"):
        found = schema.get("items")
    else:
        found = schema.get("properties", {}).get(element[2:], schema.get("additionalProperties"))
    return found if isinstance(found, dict) else {}


def _key(schema: Object, item: Object) -> str:
    declared = schema.get("items", {}).get("properties", {})
    found = {}
    for name in sorted(schema["x-kubernetes-list-map-keys"]):
        value = item.get(name, declared.get(name, {}).get("default"))
        if value is None:
            raise RefusedError(
                422, "Invalid", f'an element of a list of type map omits its key field "{name}"'
            )
        found[name] = value
    return f"k:{_compact(found)}"


def _built(like: T, parts: dict[str, Any]) -> T:
    made: Any = list(parts.values()) if isinstance(like, list) else {e[2:]: p for e, p in parts.items()}
    result: T = made
    return result


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
