"""``spec`` of a RayService as a rollout changes it: traffic in ``serveConfigV2``, images of Ray's containers."""

from __future__ import annotations

import copy
import difflib
from typing import Any, Final

import yaml

from sentinode.errors import ClusterError, ConfigError
from sentinode.rollout.cluster import Object
from sentinode.rollout.record import Step

IMPORT_PATH: Final = "app:build"
CANDIDATE: Final = "rollout-candidate"
"""Name of the model under which a new bundle is asked before it gets any traffic."""
_DEPLOYMENT: Final = "predict"


class ServeConfig:
    """The text of ``serveConfigV2`` of our endpoint. Raises ClusterError where it is another application's."""

    def __init__(self, text: str) -> None:
        try:
            self._tree: Any = yaml.safe_load(text)
            self._application = next(a for a in self._tree["applications"] if a["import_path"] == IMPORT_PATH)
            self.registry = str(self._application["args"]["registry"])
        except (yaml.YAMLError, TypeError, KeyError, StopIteration) as error:
            raise ClusterError(
                "serveConfigV2 of the RayService has no endpoint of Sentinode",
                f"an application with import_path {IMPORT_PATH} and args.registry, as in k8s/base/endpoint",
                "name the right RayService with --service",
            ) from error

    @property
    def traffic(self) -> dict[str, Any]:
        """Which bundle answers whom: the ``user_config``, else what ``args`` begin with."""
        args = self._application["args"]
        given = (self._deployment() or {}).get("user_config") or args.get("traffic")
        if given:
            return copy.deepcopy(dict(given))
        only = {key: args[key] for key in ("bundle", "operating_point", "prevalence") if key in args}
        return {"models": {"default": only}, "default": "default"}

    @property
    def bundle(self) -> str:
        """Digest of the bundle that answers by default."""
        traffic = self.traffic
        return str(traffic["models"][traffic["default"]]["bundle"])

    @property
    def canary(self) -> str:
        """Digest of the bundle that answers a share of what the default one is asked; empty where there is none."""
        traffic = self.traffic
        return str((traffic["models"][traffic["default"]].get("canary") or {}).get("bundle", ""))

    def with_traffic(self, traffic: dict[str, Any]) -> str:
        """The text with another ``user_config``, and nothing else changed: what Ray Serve swaps in place."""
        changed = ServeConfig(yaml.safe_dump(self._tree, sort_keys=False, width=110))
        deployment = changed._deployment()
        if deployment is None:
            deployment = {"name": _DEPLOYMENT}
            changed._application.setdefault("deployments", []).append(deployment)
        deployment["user_config"] = traffic
        return str(yaml.safe_dump(changed._tree, sort_keys=False, width=110))

    def _deployment(self) -> dict[str, Any] | None:
        found = self._application.get("deployments") or []
        return next((deployment for deployment in found if deployment.get("name") == _DEPLOYMENT), None)


def staged(traffic: dict[str, Any], bundle: str) -> dict[str, Any]:
    """``bundle`` is loaded and answers whoever asks for it by name."""
    changed = copy.deepcopy(traffic)
    main = changed["models"][changed["default"]]
    plain = {key: value for key, value in main.items() if key not in ("canary", "shadow")}
    changed["models"][CANDIDATE] = {**plain, "bundle": bundle}
    return changed


def shadowed(traffic: dict[str, Any], bundle: str) -> dict[str, Any]:
    """``bundle`` is asked as well, and its answers are only compared."""
    changed = staged(traffic, bundle)
    changed["models"][changed["default"]]["shadow"] = bundle
    return changed


def canaried(traffic: dict[str, Any], bundle: str, share: float) -> dict[str, Any]:
    """``bundle`` answers a share of the slides, and of the requests that name none."""
    changed = staged(traffic, bundle)
    changed["models"][changed["default"]]["canary"] = {"bundle": bundle, "share": share}
    return changed


def promoted(traffic: dict[str, Any], bundle: str) -> dict[str, Any]:
    """``bundle`` answers by default."""
    changed = copy.deepcopy(traffic)
    changed["models"].pop(CANDIDATE, None)
    main = changed["models"][changed["default"]]
    plain = {key: value for key, value in main.items() if key not in ("canary", "shadow")}
    changed["models"][changed["default"]] = {**plain, "bundle": bundle}
    return changed


def images(spec: Object) -> tuple[str, ...]:
    """The image of Ray's container, the first of its pod: head, then each worker group."""
    return tuple(str(container["image"]) for container in _ray_containers(spec))


def with_images(spec: Object, wanted: tuple[str, ...]) -> Object:
    """The specification with these images where ``images`` reads them. Raises ClusterError where groups are others."""
    changed = copy.deepcopy(spec)
    containers = _ray_containers(changed)
    if len(containers) != len(wanted):
        raise ClusterError(
            f"the RayService has {len(containers)} groups of pods now",
            f"{len(wanted)}, as when the rollout began",
            "`sentinode rollout forget --force REASON` ends the rollout and leaves all as it is",
        )
    for container, image in zip(containers, wanted, strict=True):
        container["image"] = image
    return changed


def spec_of(spec: Object, step: Step) -> Object:
    """``spec`` with what the step wants in it."""
    return {**with_images(spec, step.images), "serveConfigV2": step.config}


def check_image(image: str) -> str:
    """``image`` itself. Raises ConfigError where it is not pinned by digest."""
    name, _, digest = image.partition("@sha256:")
    if not name or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ConfigError(
            f"the image {image!r} is not named by its digest", "registry/name@sha256:<64 hex digits>"
        )
    return image


def difference(before: Object, after: Object) -> str:
    """What changes in the specification, as a unified diff of its YAML."""
    old, new = (_readable(spec).splitlines() for spec in (before, after))
    return "\n".join(difflib.unified_diff(old, new, "as it is", "as it would be", lineterm=""))


def _readable(spec: Object) -> str:
    shown = copy.deepcopy(spec)
    # The text within the YAML is shown as YAML as well: quoted, a change in it could not be read.
    shown["serveConfigV2"] = yaml.safe_load(shown.get("serveConfigV2") or "{}")
    return str(yaml.safe_dump(shown, sort_keys=True, width=110))


def _ray_containers(spec: Object) -> list[dict[str, Any]]:
    try:
        cluster = spec["rayClusterConfig"]
        groups = [cluster["headGroupSpec"], *(cluster.get("workerGroupSpecs") or [])]
        return [group["template"]["spec"]["containers"][0] for group in groups]
    except (KeyError, IndexError, TypeError) as error:
        raise ClusterError("the RayService has a group without a container") from error
