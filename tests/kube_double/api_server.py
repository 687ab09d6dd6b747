"""A DOUBLE of a Kubernetes API server: real HTTP, in memory, as much of the protocol as rollouts use.

It holds to: bearer tokens (401), resource versions and conflicts (409), generations, the CRD schemas of
KubeRay (422; an unknown field is an error, as under ``fieldValidation=Strict``), the status subresource,
``dryRun=All``, watches with their time-outs, the rules of one Role (403), pods with logs that are followed, merge
patches, and server-side apply with ``managedFields`` (``apply.py`` says what of it is missing).
It knows no defaults, no other part of RBAC, and evaluates no CEL: ``rules_not_enforced`` lists the rules of the
CRDs that pass unseen, and so does a warning in the log.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

import jsonschema
import yaml

from kube_double.apply import Manager, applied, updated
from kube_double.protocol import TOKEN, Handler
from kube_double.refusals import Key, Object, RefusedError
from kube_double.schemas import rules_not_enforced, schemas_of, structures_of


class ApiServerDouble:
    """Serves while the ``with`` block lasts; ``crds`` is a folder of CustomResourceDefinitions, ``role`` what its one
    user may do (all, where there is none)."""

    def __init__(self, crds: Path, role: Object | None = None) -> None:
        self.role = role
        self.used: set[tuple[str, str, str]] = set()
        """(API group, resource, verb) of each request, as RBAC sees it."""
        self.logs: dict[str, PodLog] = {}
        self.changed = threading.Condition()
        self.before_replace: Callable[[Key], None] = lambda key: None
        """Called just before an object is replaced: what others do in the moment between reading and writing."""
        self.objects: dict[Key, Object] = {}
        self.version = 100
        self.schemas, self.structures = schemas_of(crds), structures_of(crds)
        self.rules_not_enforced = rules_not_enforced(crds)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.block_on_close = False
        self.http.__dict__["double"] = self

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.shutdown()
        self.http.server_close()

    def kubeconfig(self, path: Path, token: str = TOKEN) -> Path:
        """A kubeconfig for it, with the namespace ``sentinode``."""
        context = {"cluster": "double", "user": "double", "namespace": "sentinode"}
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "double",
            "clusters": [
                {"name": "double", "cluster": {"server": f"http://127.0.0.1:{self.http.server_port}"}}
            ],
            "users": [{"name": "double", "user": {"token": token}}],
            "contexts": [{"name": "double", "context": context}],
        }
        path.write_text(yaml.safe_dump(tree))
        return path

    def get(self, plural: str, name: str) -> Object:
        """A copy of what is kept."""
        with self.changed:
            return copy.deepcopy(self.objects["sentinode", plural, name])

    def put(
        self,
        key: Key,
        body: Object,
        status_only: bool = False,
        dry_run: bool = False,
        manager: str = "somebody",
    ) -> Object:
        """Keep ``body``. Raises RefusedError 409 where its resource version is not the present one, 422 off schema."""
        with self.changed:
            old, new = self.objects.get(key), copy.deepcopy(body)
            self._check_version(old, new)
            if old and status_only:
                new = {**old, "metadata": dict(old["metadata"]), "status": new.get("status", {})}
            elif old and "status" in old:
                new["status"] = old["status"]
            who = Manager(manager, subresource="status" if status_only else "")
            return self._keep(key, updated(self.structures.get(key[1], {}), old, new, who), dry_run)

    def apply(self, key: Key, body: Object, manager: Manager, force: bool, dry_run: bool = False) -> Object:
        """Server-side apply; one that changes nothing makes no version. Raises as ``put`` and ``applied`` do."""
        with self.changed:
            old = self.objects.get(key)
            self._check_version(old, body)
            new = applied(self.structures.get(key[1], {}), old, body, manager, force)
            if old:
                # Not of the object, but about the version that was meant.
                new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            return copy.deepcopy(old) if old and new == old else self._keep(key, new, dry_run)

    def _check_version(self, old: Object | None, new: Object) -> None:
        given = new["metadata"].get("resourceVersion")
        if old and given and given != old["metadata"]["resourceVersion"]:
            raise RefusedError(409, "Conflict", "the object has been modified")

    def _keep(self, key: Key, new: Object, dry_run: bool) -> Object:
        old = self.objects.get(key)
        self._check(key[1], new)
        self.version += 1
        same = old is not None and old.get("spec") == new.get("spec")
        generation = old["metadata"]["generation"] if old else 0
        new["metadata"] |= {
            "namespace": key[0],
            "generation": generation + (not same),
            "uid": old["metadata"]["uid"] if old else str(uuid.uuid4()),
            "resourceVersion": str(self.version),
        }
        if not dry_run:
            self.objects[key] = new
            self.changed.notify_all()
        return copy.deepcopy(new)

    def authorise(self, group: str, resource: str, verb: str) -> None:
        """Raises RefusedError 403 where no rule of the role says so."""
        self.used.add((group, resource, verb))
        rules = self.role["rules"] if self.role else ()
        fits = any(
            group in r["apiGroups"] and resource in r["resources"] and verb in r["verbs"] for r in rules
        )
        if self.role and not fits:
            raise RefusedError(403, "Forbidden", f'{resource}.{group} is forbidden: cannot "{verb}"')

    def _check(self, plural: str, new: Object) -> None:
        if plural in self.schemas:
            validator = jsonschema.Draft202012Validator(self.schemas[plural])
            faults = [f"{fault.json_path}: {fault.message[:200]}" for fault in validator.iter_errors(new)]
            if faults:
                raise RefusedError(422, "Invalid", "; ".join(faults[:3]))


class PodLog:
    """What the container of a pod prints; whoever follows it waits until it ends."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.over = False
