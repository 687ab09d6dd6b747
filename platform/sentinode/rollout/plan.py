"""The steps of a rollout, worked out beforehand: one thing changes at a time, and each state is one that can serve."""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field, field_validator

from sentinode.config import Frozen
from sentinode.rollout.cluster import Object
from sentinode.rollout.record import Step, Wish
from sentinode.rollout.serve_config import ServeConfig, canaried, images, promoted, shadowed, staged


class Pace(Frozen):
    """How traffic moves to a new bundle."""

    shadow_s: float = Field(default=0.0, ge=0.0)
    """How long the new bundle is asked as a shadow first, in seconds; 0: not at all."""
    shares: tuple[float, ...] = ()
    """Canary steps, as growing shares of the traffic: 0.05 0.25 0.5. None: at once, after the golden patches."""
    hold_s: float = Field(default=300.0, ge=0.0)
    """How long each canary step is watched, in seconds."""

    @field_validator("shares")
    @classmethod
    def _grow(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        if not all(low < high <= 1.0 for low, high in pairwise((0.0, *shares))):
            given = " ".join(f"{share:g}" for share in shares)
            raise ValueError(
                f"{given}: shares grow, from above 0 to 1 at most; a quarter of the traffic is 0.25"
            )
        return shares


def present(spec: Object) -> Step:
    """The specification as it is."""
    return Step(name="as before", config=spec.get("serveConfigV2", ""), images=images(spec))


def plan(spec: Object, wish: Wish, pace: Pace) -> tuple[Step, ...]:
    """Image first, with the bundle that serves already; then the bundle: asked by name, as shadow, as canary, by all.

    Empty where all is as wished already.
    """
    before = present(spec)
    config, bundle = ServeConfig(before.config), ServeConfig(before.config).bundle
    steps: list[Step] = []
    wanted = before.images
    if wish.image is not None and set(before.images) != {wish.image}:
        wanted = (wish.image,) * len(before.images)
        steps.append(
            Step(
                name="image",
                config=before.config,
                images=wanted,
                new_cluster=True,
                golden="default",
                bundle=bundle,
            )
        )
    if wish.bundle is None or wish.bundle == bundle:
        return tuple(steps)
    traffic, new = promoted(config.traffic, bundle), wish.bundle

    def step(name: str, changed: dict[str, object], **more: object) -> None:
        fields = {"name": name, "config": config.with_traffic(changed), "images": wanted, "bundle": new}
        steps.append(Step.model_validate({**fields, **more}))

    step("stage", staged(traffic, new), golden="candidate")
    if pace.shadow_s:
        step("shadow", shadowed(traffic, new), hold_s=pace.shadow_s)
    for share in pace.shares:
        step(f"canary {100 * share:g}%", canaried(traffic, new, share), hold_s=pace.hold_s)
    step("promote", promoted(traffic, new), golden="default")
    return tuple(steps)
