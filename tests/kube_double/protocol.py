"""HTTP as the DOUBLE of the API server speaks it: paths, verbs, queries, watches, logs and refusals."""

from __future__ import annotations

import copy
import json
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import yaml

from kube_double.apply import Manager
from kube_double.refusals import Key, Object, RefusedError

if TYPE_CHECKING:
    from kube_double.api_server import ApiServerDouble

TOKEN = "token-of-the-double"
APPLY, MERGE_PATCH = "application/apply-patch+yaml", "application/merge-patch+json"


class Handler(BaseHTTPRequestHandler):
    """One connection; ``server.double`` is whose objects are served."""

    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        self.double: ApiServerDouble = self.server.__dict__["double"]
        parts, length = urlsplit(self.path), int(self.headers.get("content-length") or 0)
        data = self.rfile.read(length)
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
            # JSON is YAML, which is what an apply may be written in.
            body = yaml.load(data, yaml.CSafeLoader) if self.command == "PATCH" else json.loads(data or "{}")
            self._answer(*self._act(namespace, plural, rest, body))
        except RefusedError as error:
            self._answer(error.code, error.status)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _verb(self, rest: list[str], watched: bool) -> str:
        if self.command == "GET":
            return "watch" if watched else "get" if rest else "list"
        return {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[self.command]

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
        double, status_only = self.double, rest[1:] == ["status"]
        key = (namespace, plural, rest[0] if rest else body.get("metadata", {}).get("name", ""))
        with double.changed:
            if self.command == "POST":
                if key in double.objects:
                    raise RefusedError(409, "AlreadyExists", f"{plural} {key[2]} already exists")
                return 201, double.put(key, body, dry_run=self._dry_run, manager=self._manager)
            if self.command == "PATCH" and self.headers.get("content-type") == APPLY:
                return self._apply(key, body, status_only)
            if key not in double.objects:
                raise RefusedError(404, "NotFound", f"{plural} {key[2]} not found")
            if self.command in ("PUT", "PATCH"):
                double.before_replace(key)
                if self.command == "PATCH":
                    body = self._patched(double.objects[key], body)
                if not body["metadata"].get("resourceVersion"):
                    raise RefusedError(422, "Invalid", "metadata.resourceVersion must be specified")
                return 200, double.put(key, body, status_only, self._dry_run, self._manager)
            if self.command == "DELETE":
                del double.objects[key]
                return 200, {"kind": "Status", "status": "Success"}
            return 200, copy.deepcopy(double.objects[key])

    @property
    def _dry_run(self) -> bool:
        return self.query.get("dryRun") == "All"

    @property
    def _manager(self) -> str:
        """Who writes, where it is not said: the program, as it names itself."""
        return self.query.get("fieldManager") or self.headers.get("user-agent", "unknown").split("/")[0]

    def _apply(self, key: Key, body: Object, status_only: bool) -> tuple[int, Object]:
        if not self.query.get("fieldManager"):
            words = "fieldManager: Required value: is required for apply patch"
            raise RefusedError(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: {words}')
        if not body.get("apiVersion") or not body.get("kind"):
            raise RefusedError(400, "BadRequest", "apiVersion and kind must be set in what is applied")
        if body.setdefault("metadata", {}).setdefault("name", key[2]) != key[2]:
            raise RefusedError(400, "BadRequest", "the name in what is applied is not that of the URL")
        self.double.before_replace(key)
        new = key not in self.double.objects
        if new and status_only:
            raise RefusedError(404, "NotFound", f"{key[1]} {key[2]} not found")
        if new:
            self.double.authorise(_place(urlsplit(self.path).path)[0], key[1], "create")
        manager = Manager(self._manager, "Apply", "status" if status_only else "")
        force = self.query.get("force", "").lower() == "true"
        return 201 if new else 200, self.double.apply(key, body, manager, force, self._dry_run)

    def _patched(self, live: Object, patch: Object) -> Object:
        """By a merge patch, the only other kind that custom resources and this double have in common."""
        kind = self.headers.get("content-type")
        if kind != MERGE_PATCH:
            raise RefusedError(
                415, "UnsupportedMediaType", f"a patch is {APPLY} or {MERGE_PATCH}, not {kind}"
            )
        if "force" in self.query:
            words = "force: Forbidden: may not be specified for non-apply patch"
            raise RefusedError(422, "Invalid", f'PatchOptions.meta.k8s.io "" is invalid: {words}')
        patched: Object = _merge_patched(live, patch)
        return patched

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


def _merge_patched(live: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    kept = dict(live) if isinstance(live, dict) else {}
    for name, value in patch.items():
        if value is None:
            kept.pop(name, None)
        else:
            kept[name] = _merge_patched(kept.get(name), value)
    return kept
