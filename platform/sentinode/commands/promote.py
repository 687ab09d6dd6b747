"""``sentinode promote``: an evaluated run becomes a sealed bundle, and an alias moves to it if the gates let it."""

from __future__ import annotations

import logging
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.gate import decide
from sentinode.bundle.gate_data import data_facts
from sentinode.bundle.gate_facts import Decision, GatePolicy
from sentinode.bundle.gate_measure import measure
from sentinode.bundle.onnx_model import OnnxModel
from sentinode.bundle.pins import pinned
from sentinode.bundle.registry import Line, SeenAlias, Why, look, move_alias, resolve
from sentinode.bundle.score import score_split
from sentinode.bundle.verify import open_verified
from sentinode.commands.actor import actor
from sentinode.commands.predictions_input import read_lesion_sizes
from sentinode.commands.promote_data import data_of, present_data
from sentinode.commands.promote_seal import seal_run
from sentinode.config import Frozen
from sentinode.errors import PromotionError
from sentinode.schema import Split
from sentinode.storage import Store, StoreUrl, open_store

log = logging.getLogger(__name__)


class PromoteCommand(Frozen):
    """Seal an evaluated run as an immutable bundle, or take a sealed one, and move an alias to it if every gate lets
    it: data that can be compared on, AUROC and sensitivity against the bundle that the alias names, calibration,
    latency, golden patches, licences.
    """

    run: StoreUrl | None = None
    """URL of an evaluated run."""
    bundle: str | None = None
    """In place of a run: digest or alias of a bundle of the registry, e.g. candidate."""
    registry: StoreUrl
    """URL of the registry: s3://bucket/prefix or a folder."""
    alias: str | None = "candidate"
    """Alias to move to the bundle; none seals and moves nothing."""
    name: str | None = None
    """Name on the card; by default model family and data set."""
    licence: str = "Apache-2.0"
    """Licence of the weights, as the card states it."""
    start_licence: str | None = None
    """Licence of the weights that training started from; by default what timm says of its own."""
    int8: bool = False
    """Put an int8 graph into the bundle as well; its loss of AUROC on validation is measured and stated on the card."""
    int8_max_loss: float = Field(default=0.005, ge=0, lt=1)
    """AUROC that int8 may lose on validation; with more, nothing is sealed."""
    data: StoreUrl | None = None
    """URL of the data set on whose validation split bundles are compared; by default the one in the run's record."""
    current_data: StoreUrl | None = None
    """URL of the data set that the present bundle was trained on; by default the one in its run's record."""
    lesion_sizes: StoreUrl | None = None
    """Size of the largest lesion by slide, as further strata: a table slide,size, or Camelyon16's reference.csv."""
    gate: GatePolicy = GatePolicy()
    """What the bundle must reach."""
    force: Line | None = None
    """Move the alias though gates fail, for this reason; the alias's history keeps it."""
    by: Line | None = None
    """Who promotes, for the alias's history; by default SENTINODE_ACTOR, else nobody is named."""

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if (self.run is None) == (self.bundle is None):
            raise ValueError("give either run or bundle")
        if self.bundle is not None and self.alias is None:
            raise ValueError("a sealed bundle without an alias leaves nothing to do: give alias")
        if self.bundle is not None and self.int8:
            raise ValueError("a sealed bundle cannot be changed: int8 goes with run")
        if self.force is not None and not self.force.strip():
            raise ValueError("force takes the reason, in words")
        return self


FLAGS = PromoteCommand


def run(config: PromoteCommand) -> int:
    """Seal, decide, move, and say the digest."""
    digest = promote(config)
    log.info("bundle %s in %s", digest, config.registry)
    if config.alias:
        log.info("alias %s names it", config.alias)
    return 0


def promote(config: PromoteCommand) -> str:
    """Seal and promote; returns the bundle's digest.

    Raises PromotionError naming each gate that failed (the bundle stays sealed, the alias where it was),
    PreconditionFailedError where somebody else moved the alias meanwhile, ConfigError where the run has not finished or
    was not evaluated, BundleError where a bundle is damaged.
    """
    registry = open_store(config.registry)
    if config.run is not None:
        digest = seal_run(
            config.run,
            registry,
            name=config.name,
            licence=config.licence,
            licence_at_start=config.start_licence,
            int8_max_loss=config.int8_max_loss if config.int8 else None,
        )
    else:
        digest = resolve(registry, config.bundle or "")
    if config.alias is None:
        return digest
    # Looked at before anything is measured: a move by somebody else in between makes this one fail.
    seen = look(registry, config.alias)
    if seen.bundle == digest:
        return digest
    with pinned(registry, digest):
        decision = _judge(config, registry, seen, digest)
        record = decision.digest()
        registry.put(f"decisions/{record}.json", decision.canonical_json())
        for caution in decision.facts.cautions:
            log.warning("%s", caution)
        for gate in decision.gates:
            if gate.passed:
                log.info("gate passed, %s", gate)
        if not decision.passed and decision.forced is None:
            raise _refused(config, decision, record)
        for gate in decision.failed:
            log.warning("gate failed and was overruled, %s", gate)
        why = Why(
            by=actor(config.by),
            reason=config.force or "",
            forced=decision.forced is not None,
            decision=record,
        )
        move_alias(registry, seen, digest, why)
    return digest


def _judge(config: PromoteCommand, registry: Store, seen: SeenAlias, digest: str) -> Decision:
    """Measure both bundles on the candidate's validation split, and decide."""
    with tempfile.TemporaryDirectory(prefix="sentinode-promote-") as folder:
        # Whether the candidate's golden patches are reproduced is a gate, told beside the others.
        bundles = [open_bundle(registry, digest, Path(folder))]
        if seen.bundle is not None:
            bundles.append(open_verified(registry, seen.bundle, Path(folder)))
        compared_on = data_of(bundles[0], config.data, config.run)
        trained_on = present_data(bundles[1], config.current_data, compared_on) if len(bundles) > 1 else None
        found = data_facts(compared_on, trained_on)
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        models = [(bundle, OnnxModel(bundle.onnx_path, threads)) for bundle in bundles]
        scored = list(
            zip(
                bundles,
                score_split(models, compared_on.manifest, compared_on.store, Split.VALID),
                strict=True,
            )
        )
        sizes = None if config.lesion_sizes is None else read_lesion_sizes(config.lesion_sizes)
        current = scored[1] if len(scored) > 1 else None
        facts = measure(seen.name, scored[0], current, config.gate, found, sizes)
    gates = decide(facts, config.gate)
    passed = all(gate.passed for gate in gates)
    return Decision(
        facts=facts,
        policy=config.gate,
        gates=gates,
        passed=passed,
        forced=None if passed else config.force,
        decided_at=datetime.now(UTC),
    )


def _refused(config: PromoteCommand, decision: Decision, record: str) -> PromotionError:
    failed = decision.failed
    lines = "".join(f"\n    {gate}" for gate in failed)
    return PromotionError(
        f"{len(failed)} of {len(decision.gates)} gates keep alias {config.alias} from bundle "
        f"{decision.facts.candidate}:{lines}",
        "that every gate passes",
        "the bundle is sealed and the alias was not moved; train or export a better one, or overrule the gates with "
        f"--force REASON, which the alias's history keeps (all facts: {config.registry}/decisions/{record}.json)",
    )
