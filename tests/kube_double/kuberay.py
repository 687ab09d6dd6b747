"""A DOUBLE of KubeRay's operator: it plays the status transitions of a RayService over the double of the API server.

Traffic (``user_config``, else that of ``args``) goes to a REAL endpoint of ours when it changes, as Ray Serve would
call ``reconfigure``. Another image makes a pending cluster, which takes over when it is ready. As in KubeRay 1.7
(``shouldPrepareNewCluster``), a specification is compared with the pending cluster alone while there is one: going back
to the old image makes a third cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import yaml

from kube_double.api_server import ApiServerDouble
from kube_double.controller import OPERATOR, ControllerDouble
from kube_double.refusals import Object
from sentinode.serving.args import ServeArgs

KEY = ("sentinode", "rayservices", "sentinode")
STAMP = "2026-11-26T18:00:00Z"


class KubeRayDouble(ControllerDouble):
    """``reconfigure`` gets each new user_config; ``fails`` says why a specification cannot be deployed."""

    def __init__(
        self, api: ApiServerDouble, reconfigure: Callable[[Object], None], fails: Callable[[Object], str]
    ) -> None:
        super().__init__(api)
        self._reconfigure, self._fails = reconfigure, fails
        self._image, self._active = "", ""
        self._pending_image, self._pending = "", ""
        self._clusters = 0
        self._traffic: Object = {}

    def pending(self) -> Object | None:
        """The service, where its specification has not been observed."""
        found = self._api.objects.get(KEY)
        seen = (found or {}).get("status", {}).get("observedGeneration")
        if found is None or seen == found["metadata"]["generation"]:
            return None
        return self._api.get(*KEY[1:])

    def reconcile(self, service: Object, /) -> None:
        """Play the operator's next step."""
        spec = service["spec"]
        head = spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]
        image, failure = head["containers"][0]["image"], self._fails(spec)
        if image != (self._pending_image or self._image):
            self._clusters += 1
            self._pending_image, self._pending = image, f"cluster-{self._clusters}"
        if self._pending:
            apps = _apps("DEPLOY_FAILED", failure) if failure else _apps("DEPLOYING")
            self._status(service, pending=(self._pending, apps))
            if failure:
                return
            self._image, self._active = self._pending_image, self._pending
            self._pending_image = self._pending = ""
        elif failure:
            self._status(service, active=_apps("DEPLOY_FAILED", failure))
            return
        traffic = _traffic(yaml.safe_load(spec["serveConfigV2"])["applications"][0])
        if traffic != self._traffic:
            self._traffic = traffic
            self._reconfigure(traffic)
        self._status(service, active=_apps("RUNNING"))

    def _status(
        self, service: Object, active: Object | None = None, pending: tuple[str, Object] | None = None
    ) -> None:
        status: dict[str, Any] = {
            "observedGeneration": service["metadata"]["generation"],
            "numServeEndpoints": 2,
            "conditions": [_condition("Ready", "True"), _condition("UpgradeInProgress", str(bool(pending)))],
            "activeServiceStatus": {"rayClusterName": self._active},
        }
        if active:
            status["activeServiceStatus"]["applicationStatuses"] = active
        if pending:
            name, apps = pending
            status["pendingServiceStatus"] = {"rayClusterName": name, "applicationStatuses": apps}
        now = self._api.get(*KEY[1:])
        self._api.put(
            KEY, {**now, "metadata": {"name": KEY[2]}, "status": status}, status_only=True, manager=OPERATOR
        )


def _traffic(application: Object) -> Object:
    for deployment in application.get("deployments", []):
        return dict(deployment["user_config"])
    return ServeArgs.parse(application["args"]).first_traffic.model_dump(mode="json")


def _apps(status: str, message: str = "") -> Object:
    deployment = {"status": "HEALTHY" if status == "RUNNING" else "UPDATING"}
    return {
        "sentinode": {
            "status": status,
            "message": message,
            "serveDeploymentStatuses": {"predict": deployment},
        }
    }


def _condition(kind: str, status: str) -> Object:
    words = {"reason": "Played", "message": "", "lastTransitionTime": STAMP}
    return {"type": kind, "status": status, **words}
