"""A DOUBLE of a Kubernetes API server: real HTTP, in memory, as much of the protocol as rollouts use.

It holds to: bearer tokens (401), resource versions and conflicts (409), generations, the CRD schemas of
KubeRay (422; an unknown field is an error, as under ``fieldValidation=Strict``), the status subresource,
``dryRun=All``, watches with their time-outs, the rules of one Role (403), pods with logs that are followed.
It knows no CEL rules, no other part of RBAC and no server-side apply.
"""

from __future__ import annotations

import copy
import json
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import jsonschema
import yaml

TOKEN = "token-of-the-double"
Key = tuple[str, str, str]
Object = dict[str, Any]


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
        self.schemas = schemas_of(crds)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
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

    def put(self, key: Key, body: Object, status_only: bool = False, dry_run: bool = False) -> Object:
        """Keep ``body``. Raises RefusedError 409 where its resource version is not the present one, 422 off schema."""
        with self.changed:
            old, new = self.objects.get(key), copy.deepcopy(body)
            given = new["metadata"].get("resourceVersion")
            if old and given and given != old["metadata"]["resourceVersion"]:
                raise RefusedError(409, "Conflict", "the object has been modified")
            if old and status_only:
                new = {**old, "metadata": dict(old["metadata"]), "status": new.get("status", {})}
            elif old and "status" in old:
                new["status"] = old["status"]
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


class RefusedError(Exception):
    """A reply other than success."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        self.double: ApiServerDouble = self.server.__dict__["double"]
        parts, length = urlsplit(self.path), int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            if self.headers.get("authorization") != f"Bearer {TOKEN}":
                raise RefusedError(401, "Unauthorized", "Unauthorized")
            group, namespace, plural, *rest = _place(parts.path)
            watched = self.query.get("watch", "").lower() == "true"
            self.double.authorise(group, "/".join([plural, *rest[1:]]), self._verb(rest, watched))
            if watched:
                self._watch(namespace, plural)
                return
            if rest[1:] == ["log"]:
                self._log(rest[0])
                return
            if self.command == "GET" and not rest:
                self._answer(200, {"items": self._listed(namespace, plural)})
                return
            self._answer(*self._act(namespace, plural, rest, body))
        except RefusedError as error:
            status = {"kind": "Status", "code": error.code, "reason": error.reason, "message": str(error)}
            self._answer(error.code, status)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _verb(self, rest: list[str], watched: bool) -> str:
        if self.command == "GET":
            return "watch" if watched else "get" if rest else "list"
        return {"POST": "create", "PUT": "update", "DELETE": "delete"}[self.command]

    def _listed(self, namespace: str, plural: str) -> list[Object]:
        wanted = dict(pair.split("=", 1) for pair in self.query.get("labelSelector", "").split(",") if pair)
        with self.double.changed:
            return [
                copy.deepcopy(found)
                for key, found in self.double.objects.items()
                if key[:2] == (namespace, plural)
                and wanted.items() <= found["metadata"].get("labels", {}).items()
            ]

    def _log(self, pod: str) -> None:
        self._start_stream("text/plain")
        given = 0
        with suppress(OSError):
            while True:
                with self.double.changed:
                    kept = self.double.logs[pod]
                    if given == len(kept.lines) and not kept.over:
                        self.double.changed.wait(1)
                        continue
                    new, over = kept.lines[given:], kept.over
                given += len(new)
                for line in new:
                    self._chunk(line.encode() + b"\n")
                if over:
                    break
            self.wfile.write(b"0\r\n\r\n")

    def _start_stream(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _act(self, namespace: str, plural: str, rest: list[str], body: Object) -> tuple[int, Object]:
        double = self.double
        key = (namespace, plural, rest[0] if rest else body.get("metadata", {}).get("name", ""))
        with double.changed:
            if self.command == "POST":
                if key in double.objects:
                    raise RefusedError(409, "AlreadyExists", f"{plural} {key[2]} already exists")
                return 201, double.put(key, body, dry_run=self.query.get("dryRun") == "All")
            if key not in double.objects:
                raise RefusedError(404, "NotFound", f"{plural} {key[2]} not found")
            if self.command == "PUT":
                double.before_replace(key)
                if not body["metadata"].get("resourceVersion"):
                    raise RefusedError(422, "Invalid", "metadata.resourceVersion must be specified")
                return 200, double.put(key, body, rest[1:] == ["status"], self.query.get("dryRun") == "All")
            if self.command == "DELETE":
                del double.objects[key]
                return 200, {"kind": "Status", "status": "Success"}
            return 200, copy.deepcopy(double.objects[key])

    def _watch(self, namespace: str, plural: str) -> None:
        key = (namespace, plural, self.query.get("fieldSelector", "").removeprefix("metadata.name="))
        seen = int(self.query.get("resourceVersion") or 0)
        deadline_s = time.monotonic() + float(self.query["timeoutSeconds"])
        self._start_stream("application/json")
        with suppress(OSError):
            while (left_s := deadline_s - time.monotonic()) > 0:
                with self.double.changed:
                    found = self.double.objects.get(key)
                    if found is None or int(found["metadata"]["resourceVersion"]) <= seen:
                        self.double.changed.wait(left_s)
                        continue
                    seen = int(found["metadata"]["resourceVersion"])
                    data = json.dumps({"type": "MODIFIED", "object": found}).encode() + b"\n"
                self._chunk(data)
            self.wfile.write(b"0\r\n\r\n")

    def _answer(self, code: int, value: Object) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _place(path: str) -> list[str]:
    """Group, namespace, plural and the rest of /apis/GROUP/VERSION/namespaces/... or /api/VERSION/namespaces/..."""
    parts = path.split("/")
    return [parts[2], *parts[5:]] if parts[1] == "apis" else ["", *parts[4:]]


@cache
def schemas_of(crds: Path) -> dict[str, Any]:
    """JSON Schemas of the stored versions, by plural."""
    # Parsed by libyaml: in Python, a file of this size takes half a minute on a busy machine.
    trees = (yaml.load(path.read_bytes(), yaml.CSafeLoader) for path in sorted(crds.glob("*.yaml")))
    return {
        crd["spec"]["names"]["plural"]: _json_schema(version["schema"]["openAPIV3Schema"])
        for crd in trees
        for version in crd["spec"]["versions"]
        if version["storage"]
    }


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
        elif key in (
            "type",
            "items",
            "required",
            "enum",
            "minimum",
            "maximum",
            "minItems",
            "additionalProperties",
        ):
            kept[key] = _json_schema(value)
    if "properties" in kept and not node.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    return kept
