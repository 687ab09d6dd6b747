"""A rollout carried out: step by step, each proved, and taken back when one fails.

The specification and the memory of the rollout change in one write that the API server refuses when somebody else was
faster. So a rollout may be killed anywhere: run again, it goes on from the step that stands in the RayService.
"""

from __future__ import annotations

import copy
import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from sentinode.errors import BundleError, ConfigError, StoreError
from sentinode.rollout.change import change
from sentinode.rollout.cluster import RAY_SERVICE, Cluster, Object
from sentinode.rollout.decide import Decision, Moment, Promote, RollBack, decide, is_unhealthy
from sentinode.rollout.gateway import Gateway, GatewayError
from sentinode.rollout.healthy import GLANCE_S, healthy
from sentinode.rollout.incremental import check_gateway
from sentinode.rollout.lease import HeldLease
from sentinode.rollout.outcome import (
    OVERTAKEN,
    UNRESTORED,
    OvertakenError,
    RolledBackError,
    StepFailedError,
    UnrestoredError,
)
from sentinode.rollout.plan import plan, present
from sentinode.rollout.pods import explained
from sentinode.rollout.proof import Golden, Proof
from sentinode.rollout.record import Outcome, RolloutRecord, Wish, finish, record_of, under_way, write_record
from sentinode.rollout.serve_config import ServeConfig, images, spec_of
from sentinode.rollout.status import ServiceStatus
from sentinode.rollout.watch import Settings

log = logging.getLogger(__name__)


class Rollout:
    """Of the RayService ``name``. ``golden`` gives a bundle's golden images and probabilities by digest."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        gateway: Gateway,
        golden: Callable[[str], Golden],
        settings: Settings,
    ) -> None:
        self._cluster = cluster
        self._name = name
        self._proof = Proof(gateway, golden, settings)
        self._settings = settings
        self._lease: HeldLease
        self._generation = 0

    def run(self, wish: Wish) -> RolloutRecord | None:
        """To the end: the record of what is kept; None where nothing had to change.

        Raises RolloutError where it was rolled back, with the reason; RolloutBusyError beside another rollout;
        ConfigError where another one stands unfinished.
        """
        with self._held():
            service = self._cluster.read(RAY_SERVICE, self._name)
            record = record_of(service)
            if record is None:
                record = self._begin(service, wish)
                if record is None:
                    return None
            elif record.wish != wish:
                raise ConfigError(
                    f"another rollout stands unfinished: {record.wish.model_dump_json(exclude_none=True)}",
                    "the same bundle and image, which goes on",
                    "or `sentinode rollout abort`, which restores what was",
                )
            else:
                log.info("going on with rollout %s at step %s", record.id, record.current.name)
            if record.restoring:
                self._restore(record)
            return self._forward(record)

    def abort(self, reason: str, force: bool = False) -> RolloutRecord:
        """Restore what was before the rollout under way; with ``force`` also over what somebody else has changed since.

        Raises ConfigError where there is none, OvertakenError where somebody else changed the RayService.
        """
        with self._held():
            service = self._cluster.read(RAY_SERVICE, self._name)
            record = under_way(service)
            try:
                if force or not record.restoring:
                    record = self._turn_back(record, reason, service if force else None)
                self._restore(record)
            except RolledBackError:
                return record
        raise AssertionError("restoring always ends in an error")

    def _held(self) -> HeldLease:
        name = f"sentinode-rollout-{self._name}"
        holder = f"{self._settings.by or 'somebody'} ({uuid.uuid4().hex[:8]})"
        self._lease = HeldLease(self._cluster, name, holder, self._settings.lease_s)
        return self._lease

    def _begin(self, service: Object, wish: Wish) -> RolloutRecord | None:
        steps = plan(service["spec"], wish, self._settings.pace)
        if any(step.new_cluster for step in steps):
            check_gateway(self._cluster, service)
        if steps:
            # Somebody may have changed it meanwhile, by hand: what is written is planned from what was read last.
            service = healthy(self._cluster, service, self._settings.patience)
            steps = plan(service["spec"], wish, self._settings.pace)
        if not steps:
            log.info("nothing to do: all is as wished")
            return None
        status = ServiceStatus.of(service)
        before = present(service["spec"])
        self._proof.prepare(before, steps)
        record = RolloutRecord(
            id=uuid.uuid4().hex[:12],
            by=self._settings.by,
            started_at=datetime.now(UTC),
            wish=wish,
            before=before,
            steps=steps,
            leaves=status.active.ray_cluster_name if steps[0].new_cluster else None,
        )
        log.info("rollout %s: %s", record.id, ", ".join(step.name for step in steps))
        self._write(service, record)
        return record

    def _forward(self, record: RolloutRecord) -> RolloutRecord:
        while True:
            try:
                self._prove(record)
            except (StepFailedError, GatewayError) as error:
                why = f"{error.found}; expected: {error.expected}" if error.expected else error.found
                self._restore(self._turn_back(record, why))
            if record.step + 1 == len(record.steps):
                break
            service = self._own(record)
            status = ServiceStatus.of(service)
            following = record.steps[record.step + 1]
            leaves = status.active.ray_cluster_name if following.new_cluster else None
            record = record.model_copy(update={"step": record.step + 1, "leaves": leaves})
            log.info("step %s", following.name)
            self._write(service, record)
        self._finish(record.model_copy(update={"reason": "all steps proved"}), "kept", self._own(record))
        return record

    def _prove(self, record: RolloutRecord) -> None:
        decision = self._settle(record)
        if isinstance(decision, RollBack):
            raise StepFailedError(decision.reason)
        old = ServeConfig(record.before.config).bundle
        self._proof.step(record.current, old, lambda: self._own(record))

    def _settle(self, record: RolloutRecord, restoring: bool = False) -> Decision:
        started_s = time.monotonic()
        unhealthy_since_s: float | None = None
        said = ""
        while True:
            service = self._own(record)
            status, now_s = ServiceStatus.of(service), time.monotonic()
            sick = any(
                is_unhealthy(application)
                for cluster in (status.active, status.pending)
                for application in cluster.application_statuses.values()
            )
            unhealthy_since_s = (unhealthy_since_s or now_s) if sick else None
            waited_s, sick_s = now_s - started_s, now_s - (unhealthy_since_s or now_s)
            leaves = None if restoring else record.leaves
            moment = Moment(service["metadata"]["generation"], waited_s, sick_s, leaves)
            decision = explained(decide(status, moment, self._settings.patience), status, self._cluster)
            # What was broken is shown until KubeRay has put the old specification in force again.
            hopeless = moment.waited_s > self._settings.patience.step_s
            if isinstance(decision, Promote) or (
                isinstance(decision, RollBack) and (hopeless or not restoring)
            ):
                return decision
            if decision.reason != said:
                said = decision.reason
                log.info("%s: %s", record.current.name, said)
            self._cluster.wait_for_change(RAY_SERVICE, service, GLANCE_S)

    def _turn_back(self, record: RolloutRecord, reason: str, over: Object | None = None) -> RolloutRecord:
        log.warning("rolling back: %s", reason)
        back = record.model_copy(update={"restoring": True, "reason": reason[:2000]})
        self._write(over or self._own(record), back)
        return back

    def _restore(self, record: RolloutRecord) -> None:
        """Raises RolledBackError when what was before answers again, UnrestoredError when it does not come back."""
        decision = self._settle(record, restoring=True)
        try:
            if not isinstance(decision, Promote):
                raise StepFailedError(f"is not healthy: {decision.reason}")
            doubt = self._proof.restored(record.before, lambda: self._own(record))
        except (StepFailedError, BundleError, StoreError) as error:
            raise UnrestoredError(
                f"{record.reason}; the old specification stands again, but {error.found}",
                "a RayService that serves as before",
                UNRESTORED,
            ) from error
        reason = f"{record.reason}; {doubt}" if doubt else record.reason
        told = record.model_copy(update={"reason": reason[:2000]})
        self._finish(told, "rolled back", self._own(record))
        raise RolledBackError(
            f"rolled back: {reason}", remedy=f"bundle and image are as before rollout {record.id}"
        )

    def _own(self, record: RolloutRecord) -> Object:
        """The RayService now. Raises RolloutError where this rollout no longer stands in it as it was left."""
        self._lease.check()
        service = self._cluster.read(RAY_SERVICE, self._name)
        spec, step = service["spec"], record.current
        if record_of(service) != record or spec.get("serveConfigV2") != step.config:
            raise OvertakenError(
                f"somebody else changed the RayService {self._name} during the rollout",
                f"the specification of step {step.name}",
                OVERTAKEN,
            )
        if images(spec) != step.images:
            raise OvertakenError(
                f"somebody else changed the images of the RayService {self._name}", remedy=OVERTAKEN
            )
        return service

    def _write(self, service: Object, record: RolloutRecord) -> None:
        self._lease.check()
        changed = copy.deepcopy(service)
        changed["spec"] = spec_of(changed["spec"], record.current)
        write_record(changed, record)
        change(self._cluster, service, changed)

    def _finish(self, record: RolloutRecord, outcome: Outcome, service: Object) -> None:
        self._lease.check()
        changed = copy.deepcopy(service)
        finish(changed, record, outcome)
        change(self._cluster, service, changed)
