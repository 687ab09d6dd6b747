"""One rollout at a time: a Lease (``coordination.k8s.io/v1``) that its holder renews.

As in client-go's leader election, clocks of different machines are never compared: a lease is over when nobody was
*seen* renewing it for its duration. So a rollout that was killed is taken over after that time, and a second one beside
a living one is refused as soon as the first renews.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from sentinode.errors import ClusterConflictError, ClusterError, RolloutBusyError
from sentinode.rollout.cluster import LEASE, Cluster, MissingObjectError, Object

log = logging.getLogger(__name__)


class HeldLease:
    """Held while the ``with`` block lasts. ``holder`` is one line that names this process.

    Entering raises RolloutBusyError where somebody else holds it. ``check()`` raises it when the lease was lost.
    """

    def __init__(self, cluster: Cluster, name: str, holder: str, duration_s: int = 30) -> None:
        self._cluster = cluster
        self._name = name
        self._holder = holder
        self._duration_s = duration_s
        self._over = threading.Event()
        self._lost = ""
        self._renewed_s = 0.0
        self._lease: Object = {}
        self._thread = threading.Thread(target=self._keep, name="sentinode-lease", daemon=True)

    def __enter__(self) -> Self:
        self._lease = self._take()
        self._renewed_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if not self._lost:
            try:
                self._cluster.replace(LEASE, self._with(self._lease, holder=""))
            except ClusterError as failure:
                log.warning("the lease %s was not given back, it runs out by itself: %s", self._name, failure)

    def check(self) -> None:
        """Raises RolloutBusyError where this process may no longer act."""
        if not self._lost and time.monotonic() - self._renewed_s > self._duration_s:
            self._lost = "it could not be renewed in time"
        if self._lost:
            raise RolloutBusyError(
                f"the lease {self._name} was lost: {self._lost}",
                "a rollout that holds its lease to the end",
                "see `sentinode rollout status`; run the rollout again to go on",
            )

    def _take(self) -> Object:
        try:
            found = self._cluster.read(LEASE, self._name)
        except MissingObjectError:
            return self._put(self._cluster.create, {"metadata": {"name": self._name}})
        if found.get("spec", {}).get("holderIdentity"):
            found = self._outlive(found)
        return self._put(self._cluster.replace, found)

    def _outlive(self, found: Object) -> Object:
        """Wait until the lease has not been renewed for its duration; the lease as it is then."""
        spec = found["spec"]
        duration_s = int(spec.get("leaseDurationSeconds") or self._duration_s)
        log.info("%s holds the rollout; is it alive? (at most %d s)", spec["holderIdentity"], duration_s)
        deadline_s = time.monotonic() + duration_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            self._cluster.wait_for_change(LEASE, found, min(left_s, 5.0))
            now = self._cluster.read(LEASE, self._name)
            if not now.get("spec", {}).get("holderIdentity"):
                return now
            if now["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                raise _busy(self._name, now["spec"]["holderIdentity"])
        log.warning("%s did not renew its lease: taking over", spec["holderIdentity"])
        return found

    def _put(self, write: Any, lease: Object) -> Object:
        try:
            written: Object = write(LEASE, self._with(lease, self._holder))
            return written
        except ClusterConflictError as error:
            raise _busy(self._name, "somebody who was faster") from error

    def _keep(self) -> None:
        while not self._over.wait(self._duration_s / 3):
            try:
                self._lease = self._cluster.replace(LEASE, self._with(self._lease, self._holder))
                self._renewed_s = time.monotonic()
            except (ClusterConflictError, MissingObjectError) as error:
                self._lost = str(error.found)
                return
            except ClusterError as error:
                log.warning("the lease %s could not be renewed: %s", self._name, error)

    def _with(self, lease: Object, holder: str) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": self._duration_s,
            "acquireTime": lease.get("spec", {}).get("acquireTime") or now,
            "renewTime": now,
        }
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": lease["metadata"],
            "spec": spec,
        }


def _busy(name: str, holder: str) -> RolloutBusyError:
    return RolloutBusyError(
        f"another rollout is under way: {holder} holds the lease {name}",
        "one rollout of a service at a time",
        "wait for it, or stop it; `sentinode rollout status` shows how far it is",
    )
