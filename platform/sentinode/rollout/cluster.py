"""The Kubernetes API, as far as rollouts and jobs need it: objects are plain dictionaries, errors are ours."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import urllib3
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from sentinode.errors import ClusterConflictError, ClusterError

FIELD_MANAGER: Final = "sentinode-rollout"
_REQUEST_TIMEOUT_S: Final = 30.0
_SILENCE_S: Final = 600.0
_RETRIED: Final = (429, 500, 502, 503, 504)
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

T = TypeVar("T")
Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A namespaced resource."""

    group: str
    version: str
    kind: str
    plural: str

    @property
    def api_version(self) -> str:
        """``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}"


RAY_SERVICE: Final = Kind("ray.io", "v1", "RayService", "rayservices")
RAY_JOB: Final = Kind("ray.io", "v1", "RayJob", "rayjobs")
RAY_CLUSTER: Final = Kind("ray.io", "v1", "RayCluster", "rayclusters")
LEASE: Final = Kind("coordination.k8s.io", "v1", "Lease", "leases")


class Cluster:
    """One namespace of a Kubernetes cluster.

    Each call raises ClusterError where the API server cannot be reached or refuses, ClusterConflictError where the
    object was changed (or made) by somebody else meanwhile. Reading is repeated for ``patience_s`` while the API server
    is away; writing never is, for it may have arrived.
    """

    def __init__(self, api: client.ApiClient, namespace: str, patience_s: float = 60.0) -> None:
        self.namespace = namespace
        self._objects = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._patience_s = patience_s

    @classmethod
    def connect(cls, namespace: str | None = None, context: str | None = None) -> Cluster:
        """As ``kubectl`` does: KUBECONFIG, else ~/.kube/config, else the service account of the pod.

        ``namespace`` is by default that of the context or of the pod. Credentials come from there alone.
        """
        settings = client.Configuration()
        try:
            # The client would read the variable once, when it is imported.
            file = os.environ.get("KUBECONFIG") or None
            if file is None and context is None and _NAMESPACE_FILE.exists():
                config.load_incluster_config(client_configuration=settings)
                own = _NAMESPACE_FILE.read_text().strip()
            else:
                config.load_kube_config(file, context, settings)
                contexts, current = config.list_kube_config_contexts(file)
                chosen = next((c for c in contexts if c["name"] == context), current)
                own = chosen["context"].get("namespace") or "default"
        except (config.ConfigException, OSError, KeyError, TypeError) as error:
            raise ClusterError(
                f"no Kubernetes cluster is configured ({error})",
                "KUBECONFIG or ~/.kube/config with a context, or a pod with a service account",
                "try `kubectl config get-contexts`",
            ) from error
        settings.retries = False
        return cls(client.ApiClient(settings), namespace or own)

    def read(self, kind: Kind, name: str) -> Object:
        """The object. Raises MissingObjectError where there is none."""
        return self._patiently(
            f"{kind.kind} {self.namespace}/{name}",
            lambda: self._objects.get_namespaced_custom_object(
                *self._path(kind), name, _request_timeout=_REQUEST_TIMEOUT_S
            ),
        )

    def create(self, kind: Kind, body: Object, dry_run: bool = False) -> Object:
        """Make a new object; what the schema does not know is an error. With ``dry_run`` it is checked and not kept."""
        with _errors(f"{kind.kind} {self.namespace}/{body['metadata'].get('name', '')}"):
            made: Object = self._objects.create_namespaced_custom_object(
                *self._path(kind),
                body,
                dry_run="All" if dry_run else None,
                field_manager=FIELD_MANAGER,
                field_validation="Strict",
                _request_timeout=_REQUEST_TIMEOUT_S,
            )
            return made

    def replace(self, kind: Kind, body: Object, dry_run: bool = False) -> Object:
        """Put ``body`` in the place of what it was read from, which ``metadata.resourceVersion`` names.

        With ``dry_run`` the API server checks and completes it, and keeps nothing.
        """
        name = body["metadata"]["name"]
        with _errors(f"{kind.kind} {self.namespace}/{name}"):
            put: Object = self._objects.replace_namespaced_custom_object(
                *self._path(kind),
                name,
                body,
                dry_run="All" if dry_run else None,
                field_manager=FIELD_MANAGER,
                field_validation="Strict",
                _request_timeout=_REQUEST_TIMEOUT_S,
            )
            return put

    def delete(self, kind: Kind, name: str) -> None:
        """Delete it, and in the background what belongs to it."""
        with _errors(f"{kind.kind} {self.namespace}/{name}"):
            self._objects.delete_namespaced_custom_object(
                *self._path(kind), name, propagation_policy="Background", _request_timeout=_REQUEST_TIMEOUT_S
            )

    def wait_for_change(self, kind: Kind, seen: Object, timeout_s: float) -> None:
        """Return when the object is no longer as ``seen``, or after ``timeout_s``; read it again in any case."""
        started_s = time.monotonic()
        try:
            events = watch.Watch().stream(
                self._objects.list_namespaced_custom_object,
                *self._path(kind),
                field_selector=f"metadata.name={seen['metadata']['name']}",
                resource_version=seen["metadata"]["resourceVersion"],
                timeout_seconds=max(1, int(timeout_s)),
                _request_timeout=timeout_s + _REQUEST_TIMEOUT_S,
            )
            for event in events:
                if event["type"] != "BOOKMARK":
                    return
        except (ApiException, urllib3.exceptions.HTTPError, OSError, ValueError):
            # The version may have been forgotten (410), or the server gone: whoever reads again finds out.
            time.sleep(min(1.0, max(0.0, timeout_s - (time.monotonic() - started_s))))

    def pods(self, selector: str) -> list[Object]:
        """Pods by label selector."""
        found = self._patiently(
            f"pods {selector} in {self.namespace}",
            lambda: self._core.list_namespaced_pod(
                self.namespace,
                label_selector=selector,
                _preload_content=False,
                _request_timeout=_REQUEST_TIMEOUT_S,
            ),
        )
        items: list[Object] = json.loads(found.data)["items"]
        return items

    def log_lines(self, pod: str, container: str | None = None) -> Iterator[str]:
        """The log of a pod's container, line by line, until it ends; a silent one is cut off after a while."""
        with _errors(f"the log of pod {self.namespace}/{pod}"):
            answer = self._core.read_namespaced_pod_log(
                pod,
                self.namespace,
                container=container,
                follow=True,
                _preload_content=False,
                _request_timeout=(_REQUEST_TIMEOUT_S, _SILENCE_S),
            )
            rest = b""
            for chunk in answer.stream(decode_content=True):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from (line.decode("utf-8", "replace") for line in lines)
            if rest:
                yield rest.decode("utf-8", "replace")

    def _path(self, kind: Kind) -> tuple[str, str, str, str]:
        return kind.group, kind.version, self.namespace, kind.plural

    def _patiently(self, what: str, ask: Callable[[], T]) -> T:
        deadline_s = time.monotonic() + self._patience_s
        pause_s = 0.2
        while True:
            try:
                return ask()
            except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
                away = not isinstance(error, ApiException) or error.status in _RETRIED
                if not away or time.monotonic() + pause_s > deadline_s:
                    raise _told(what, error) from error
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 5.0)


class MissingObjectError(ClusterError):
    """The API server answers, and there is no such object."""


@contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _told(what, error) from error


def _told(what: str, error: Exception) -> ClusterError:
    """The error in our words. The body of a refusal is Kubernetes' ``Status``, whose message is meant to be read."""
    if not isinstance(error, ApiException):
        return ClusterError(
            f"the API server does not answer about {what} ({error})", remedy="try `kubectl cluster-info`"
        )
    said = _message(error)
    match error.status:
        case 401:
            return ClusterError(
                f"the API server does not accept the credentials ({said})", remedy="log in again"
            )
        case 403:
            return ClusterError(f"not allowed: {said}", "the role in docs/rollout.md", "ask for it")
        case 404:
            return MissingObjectError(
                f"there is no {what}", remedy="check name, namespace and context; is KubeRay installed?"
            )
        case 409:
            return ClusterConflictError(
                f"{what} was changed by somebody else ({said})", remedy="run it again"
            )
        case _:
            return ClusterError(f"{what}: the API server answered {error.status}: {said}")


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])[:1000]
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
