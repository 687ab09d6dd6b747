"""Server-side apply, as far as the DOUBLE of the API server has it: managers of fields, conflicts, force, pruning.

It follows "Server-Side Apply" of the Kubernetes documentation
(https://kubernetes.io/docs/reference/using-api/server-side-apply/) and, where that is silent, the updater of
sigs.k8s.io/structured-merge-diff: an apply says all that its manager wants, a field with another value that somebody
else manages is a conflict (409), ``force`` takes it, the same value is shared, and what a manager no longer applies
goes unless somebody else manages it. Each other write is an Update, which takes what it changes.

What it has not: defaults (so an item is equal to itself more often than in Kubernetes), several versions of a kind,
schemas of kinds that are no CRDs, nulls, resetting managedFields by an Update, the order of merged lists (here: the
live one's, new items last), and the moving of client-side apply's ``last-applied-configuration``.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import UTC, datetime

from kube_double.field_sets import (
    Path,
    fields,
    from_fields_v1,
    merged,
    shown,
    to_fields_v1,
    with_metadata,
    with_parents,
    without,
)
from kube_double.refusals import Object, RefusedError

_OF_THE_SERVER = (
    "creationTimestamp",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
)
_UNMANAGED: set[Path] = {("f:apiVersion",), ("f:kind",), ("f:metadata",)} | {
    ("f:metadata", f"f:{name}") for name in _OF_THE_SERVER
}
"""What nobody manages."""


@dataclass(frozen=True)
class Manager:
    """Who writes; the same name is somebody else when it updates and when it applies, and in a subresource."""

    name: str
    operation: str = "Update"
    subresource: str = ""

    @classmethod
    def of(cls, entry: Object) -> Manager:
        """The manager of an entry of ``managedFields``."""
        return cls(entry["manager"], entry["operation"], entry.get("subresource", ""))


def updated(structure: Object, live: Object | None, new: Object, manager: Manager) -> Object:
    """``new`` with ``managedFields``: what it changes in ``live`` belongs to ``manager``, to nobody else any more."""
    schema = with_metadata(structure)
    owners = _owners(live)
    changed, removed = _changes(schema, live or {}, new)
    kept = {other: paths - changed - removed for other, paths in owners.items()}
    kept[manager] = (owners.get(manager, set()) - removed) | changed
    return _told(new, live, kept)


def applied(structure: Object, live: Object | None, wanted: Object, manager: Manager, force: bool) -> Object:
    """``live`` with what ``manager`` wants, and ``managedFields``.

    Raises RefusedError 400 for managedFields in ``wanted``, 409 with a cause for each field that others manage.
    """
    if wanted.get("metadata", {}).get("managedFields"):
        raise RefusedError(400, "BadRequest", "metadata.managedFields must be nil")
    schema = with_metadata(structure)
    wanted = _of_its_part(wanted, manager)
    owners = _owners(live)
    last, asked = owners.pop(manager, set()), set(fields(schema, wanted))
    theirs = set().union(*owners.values())
    dropped = with_parents(schema, last) - with_parents(schema, asked | theirs)
    new: Object = without(schema, merged(schema, live or {}, wanted), dropped)
    changed, removed = _changes(schema, live or {}, new)
    conflicts = {other: paths & changed for other, paths in owners.items() if paths & changed}
    if conflicts and not force:
        raise _conflict(conflicts, live or {})
    kept = {other: paths - changed - removed for other, paths in owners.items()}
    return _told(new, live, {**kept, manager: asked})


def _of_its_part(wanted: Object, manager: Manager) -> Object:
    """Without the status, or of the status alone."""
    names = ("apiVersion", "kind", "status") if manager.subresource == "status" else set(wanted) - {"status"}
    part = {name: wanted[name] for name in wanted if name in names}
    return part | {"metadata": {"name": wanted["metadata"]["name"]}} if manager.subresource else part


def _owners(live: Object | None) -> dict[Manager, set[Path]]:
    entries = (live or {}).get("metadata", {}).get("managedFields", ())
    return {Manager.of(entry): from_fields_v1(entry["fieldsV1"]) for entry in entries}


def _changes(schema: Object, old: Object, new: Object) -> tuple[set[Path], set[Path]]:
    """Paths that are new or have another value, and those that are gone."""
    before, after = fields(schema, old), fields(schema, new)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    return changed, before.keys() - after.keys()


def _told(new: Object, live: Object | None, owners: dict[Manager, set[Path]]) -> Object:
    """``new`` with an entry for each manager of anything; an entry that says what it said keeps its time."""
    before = {Manager.of(e): e for e in (live or {}).get("metadata", {}).get("managedFields", ())}
    entries = []
    for manager, paths in owners.items():
        tree = to_fields_v1(paths - _UNMANAGED)
        if not tree:
            continue
        entry = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": new.get("apiVersion", "v1"),
            "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "fieldsType": "FieldsV1",
            "fieldsV1": tree,
        } | ({"subresource": manager.subresource} if manager.subresource else {})
        old = before.get(manager, {})
        entries.append(old if old.get("fieldsV1") == tree else entry)
    told = copy.deepcopy(new)
    told["metadata"]["managedFields"] = entries
    return told


def _conflict(conflicts: dict[Manager, set[Path]], live: Object) -> RefusedError:
    """The Status of a conflict: one cause for each field and its manager."""
    times = {Manager.of(entry): entry["time"] for entry in live["metadata"]["managedFields"]}
    causes, lines = [], []
    for manager, paths in conflicts.items():
        who = f'conflict with "{manager.name}"'
        if manager.subresource:
            who += f' with subresource "{manager.subresource}"'
        if manager.operation == "Update":
            who += f" using {live.get('apiVersion', 'v1')} at {times[manager]}"
        for field in sorted(map(shown, paths)):
            causes.append({"reason": "FieldManagerConflict", "message": who, "field": field})
            lines.append(f"{who}: {field}")
    many = f"{len(lines)} conflict{'s' * (len(lines) > 1)}"
    return RefusedError(409, "Conflict", f"Apply failed with {many}: {'; '.join(lines)}", causes)
