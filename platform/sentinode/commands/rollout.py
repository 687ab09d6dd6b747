"""``sentinode rollout``: a bundle or an image into the RayService of a cluster, proved there or taken back."""

from __future__ import annotations

import logging
import signal
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from rich.console import Console
from tyro.conf import Positional

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.registry import resolve
from sentinode.commands.actor import actor
from sentinode.config import Frozen
from sentinode.errors import ConfigError
from sentinode.rollout.cluster import RAY_SERVICE, Cluster
from sentinode.rollout.decide import Moment, Patience, decide
from sentinode.rollout.evidence import Limits
from sentinode.rollout.forget import forget
from sentinode.rollout.gateway import Gateway
from sentinode.rollout.plan import Pace, plan
from sentinode.rollout.proof import Golden
from sentinode.rollout.record import Wish, history_of, record_of
from sentinode.rollout.runner import Rollout
from sentinode.rollout.serve_config import ServeConfig, check_image, difference, spec_of
from sentinode.rollout.status import ServiceStatus
from sentinode.rollout.watch import Settings
from sentinode.storage import StoreUrl, open_store

log = logging.getLogger(__name__)


class RolloutCommand(Frozen):
    """start: roll out, and prove it or take it back; the same command goes on where an interrupted one stopped. status:
    how the service stands. history: past rollouts. abort: restore what was before the unfinished one. forget: end the
    unfinished one, and leave all as it is.

    Credentials come from KUBECONFIG or the pod's service account, the endpoint's key from SENTINODE_API_KEY.
    """

    action: Positional[Literal["start", "status", "history", "abort", "forget"]] = "start"
    """What to do."""
    bundle: str | None = None
    """start: digest of the bundle, or an alias of the registry, which is resolved once."""
    image: str | None = None
    """start: image of all Ray containers, by digest: registry/name@sha256:... A new cluster takes over."""
    gateway: str | None = None
    """start and abort: URL of the endpoint as clients reach it."""
    registry: StoreUrl | None = None
    """URL of the registry; by default the one that the endpoint uses."""
    service: str = "sentinode"
    """Name of the RayService."""
    namespace: str | None = None
    """Its namespace; by default that of the context."""
    context: str | None = None
    """Context of the kubeconfig; by default the current one."""
    by: str | None = None
    """Who rolls out, for the history; by default SENTINODE_ACTOR."""
    pace: Pace = Pace()
    """Shadow and canary steps."""
    limits: Limits = Limits()
    """From where on it is taken back."""
    patience: Patience = Patience()
    """How long a step may take."""
    force: str | None = Field(default=None, min_length=1, max_length=500)
    """abort and forget: the reason, for the history, to do so although somebody else changed the RayService."""
    lease_s: int = Field(default=30, ge=3, le=600)
    """For how long an unrenewed lease holds off others, in seconds."""
    evidence_s: float = Field(default=1800.0, ge=0.0)
    """How long a watched step waits for enough patches, in seconds."""

    @model_validator(mode="after")
    def _has_what_the_action_needs(self) -> Self:
        if self.action == "start" and self.bundle is None and self.image is None:
            raise ValueError("start needs --bundle, --image or both")
        if self.action in ("start", "abort") and self.gateway is None:
            raise ValueError(f"{self.action} needs --gateway, the endpoint's URL")
        if self.action == "forget" and self.force is None:
            raise ValueError("forget needs --force REASON, for the history")
        if self.image is not None:
            try:
                check_image(self.image)
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return self


FLAGS = RolloutCommand


def run(config: RolloutCommand) -> int:
    """Do the action. Exit code 1 where a rollout was taken back."""
    cluster = Cluster.connect(config.namespace, config.context)
    if config.action in ("status", "history"):
        return _show(config, cluster)
    if config.action == "forget":
        reason = f"forgotten by force: {config.force}"
        record = forget(cluster, config.service, actor(config.by), reason, config.lease_s)
        log.info("rollout %s is over; the RayService stays as it is", record.id)
        return 0
    # A pod is ended by SIGTERM: like Ctrl-C, it leaves the rollout where it stands, to be gone on with.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = Settings(
        config.pace, config.patience, config.limits, actor(config.by), config.lease_s, config.evidence_s
    )
    with tempfile.TemporaryDirectory(prefix="sentinode-rollout-") as folder:
        service = cluster.read(RAY_SERVICE, config.service)
        registry = config.registry or ServeConfig(service["spec"].get("serveConfigV2", "")).registry
        store = open_store(registry)

        @cache
        def golden(digest: str) -> Golden:
            found = open_bundle(store, digest, Path(folder)).golden
            return found.images_BHWC, found.probabilities_B

        rollout = Rollout(cluster, config.service, Gateway(config.gateway or ""), golden, settings)
        if config.action == "abort":
            reason = f"aborted by force: {config.force}" if config.force else "aborted by hand"
            restored = rollout.abort(reason, force=config.force is not None)
            log.info("restored what was before rollout %s", restored.id)
            return 0
        kept = rollout.run(_wish(config, registry))
    if kept is not None:
        log.info("rollout %s is kept (research use only)", kept.id)
    return 0


def dry_run(config: RolloutCommand) -> int:
    """Print what each step of ``start`` would change. The API server checks every specification and keeps none."""
    cluster = Cluster.connect(config.namespace, config.context)
    service = cluster.read(RAY_SERVICE, config.service)
    registry = config.registry or ServeConfig(service["spec"].get("serveConfigV2", "")).registry
    console = Console(highlight=False, soft_wrap=True)
    before = service["spec"]
    steps = plan(before, _wish(config, registry), config.pace)
    if not steps:
        console.print("nothing to do: all is as wished")
    for number, step in enumerate(steps, 1):
        after = spec_of(before, step)
        cluster.replace(RAY_SERVICE, {**service, "spec": after}, dry_run=True)
        console.print(f"step {number} of {len(steps)}: {step.name}", style="bold")
        console.print(difference(before, after) + "\n", markup=False)
        before = after
    return 0


def _wish(config: RolloutCommand, registry: str) -> Wish:
    bundle = resolve(open_store(registry), config.bundle) if config.bundle else None
    return Wish(bundle=bundle, image=config.image)


def _show(config: RolloutCommand, cluster: Cluster) -> int:
    console = Console(highlight=False, soft_wrap=True)
    service = cluster.read(RAY_SERVICE, config.service)
    if config.action == "history":
        for entry in history_of(service):
            target = entry.wish.model_dump_json(exclude_none=True)
            when = entry.ended_at.isoformat(timespec="seconds")
            console.print(
                f"{when}  {entry.id}  {entry.outcome}  by {entry.by or '-'}  {target}", markup=False
            )
            console.print(f"    {entry.reason}", markup=False)
        return 0
    moment = Moment(service["metadata"]["generation"])
    decision = decide(ServiceStatus.of(service), moment, config.patience)
    console.print(f"bundle   {ServeConfig(service['spec'].get('serveConfigV2', '')).bundle}")
    console.print(f"service  {type(decision).__name__.lower()}: {decision.reason}", markup=False)
    record = record_of(service)
    if record is None:
        console.print("rollout  none under way")
    else:
        state = "restoring what was" if record.restoring else f"step {record.step + 1} of {len(record.steps)}"
        console.print(
            f"rollout  {record.id} by {record.by or '-'}: {state} ({record.current.name})", markup=False
        )
        console.print(f"wish     {record.wish.model_dump_json(exclude_none=True)}", markup=False)
    return 0
