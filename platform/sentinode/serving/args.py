"""The settings of an endpoint: the ``args`` of serveConfigV2 and of ``serve run``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from sentinode.bundle.providers import Provider
from sentinode.config import Frozen, summarise
from sentinode.errors import ConfigError
from sentinode.serving.body_budget import DEFAULT_BYTES
from sentinode.serving.slides_args import SlidesArgs
from sentinode.serving.traffic import ModelTraffic, Traffic, checked_digest
from sentinode.serving.trust_args import TrustArgs
from sentinode.storage import StoreUrl

DEFAULT_MODEL: Final = "default"
"""Name of the model where only one bundle is given."""


class Autoscaling(Frozen):
    """Replicas by load. The times are short on purpose: Ray's own defaults take 40 s to react to a step of load."""

    min_replicas: int = Field(default=1, ge=0)
    """0 lets an idle endpoint go; the next request then waits for a replica's start."""
    max_replicas: int = Field(default=4, ge=1)
    target_ongoing_requests: float = Field(default=32.0, gt=0)
    """Requests under way at once for which one replica is enough."""
    metrics_interval_s: float = Field(default=0.5, gt=0)
    look_back_period_s: float = Field(default=1.0, gt=0)
    upscale_delay_s: float = Field(default=0.0, ge=0)
    downscale_delay_s: float = Field(default=60.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        return self


class ServeArgs(Frozen):
    """What is served, how it is batched, and what is refused."""

    registry: StoreUrl
    """URL of the registry: ``s3://bucket/prefix`` or a local folder that every node sees."""
    bundle: str | None = None
    """Digest of the one bundle to serve (64 hex digits); never an alias, so that a restart cannot change the model."""
    operating_point: str | None = None
    """Name of the threshold for its verdicts; the card's default where it is not given."""
    prevalence: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Share of tumour among the patches that it will be asked."""
    traffic: Traffic | None = None
    """In place of ``bundle``: several models, canaries, shadows. A ``user_config`` of the deployment replaces it."""
    max_batch: int = Field(default=16, ge=1, le=4096)
    """Patches of requests that share a call of the model: enough for its speed on a CPU, and few enough that the event
    loop reads the next requests meanwhile. A GPU wants more.
    """
    batch_wait_ms: float = Field(default=2.0, ge=0.0, le=1000.0)
    """How long the first request of a batch waits for company."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads of one call of the model."""
    precision: Literal["float", "int8"] = "float"
    """``int8``: the bundles' int8 graphs answer, at the loss of AUROC that ``card.int8`` states; each must have one."""
    provider: Provider = "auto"
    """What computes: ``auto`` is CUDA where ONNX Runtime has it, else the CPU; ``cpu``, ``cuda`` and ``tensorrt`` are
    an error where they are not there.
    """
    workers: int = Field(default=1, ge=1, le=64)
    """Batches that a replica works on at once: one of each version."""
    max_body_bytes: int = Field(default=1 << 20, ge=1024)
    """Larger images are refused with 413."""
    max_patches: int = Field(default=1024, ge=1)
    """Patches of one request; more are refused with 413."""
    max_bulk_bytes: int = Field(default=32 << 20, ge=1024)
    """Larger bodies with several images, or with pixels, are refused with 413."""
    max_inflight_bytes: int = Field(default=DEFAULT_BYTES, ge=1024)
    """Bytes of bodies that a replica holds at once, those being read and those that wait; more are refused with 503 at
    once. Decoding needs room beside them: an eighth of a replica's memory is a good share.
    """
    max_waiting_patches: int = Field(default=4096, ge=1)
    """Patches in a replica's queue; requests beyond it are refused with 503 at once."""
    num_replicas: int = Field(default=1, ge=1)
    """Copies of the model, each a process of its own. Ignored where ``autoscaling`` is given."""
    autoscaling: Autoscaling | None = None
    """As many replicas as the load asks for."""
    cpus_per_replica: float = Field(default=1.0, ge=0.0)
    """CPUs that Ray reserves for a replica."""
    gpus_per_replica: float = Field(default=0.0, ge=0.0)
    """GPUs that Ray reserves for a replica."""
    max_ongoing_requests: int = Field(default=256, ge=1)
    """Requests that a replica works on at once; well above max_batch, or batches stay small."""
    fast_lane: bool = True
    """Behind HAProxy, predictions go from a replica's server straight to its model, past Ray's own handling."""
    max_queued_requests: int = Field(default=1024, ge=1)
    """Requests that wait at each proxy; more are refused with 503."""
    retry_after_s: int = Field(default=1, ge=0)
    """What a refused client is told to wait."""
    trust: TrustArgs = TrustArgs()
    """Quality gate, audit log, time-outs, the page."""
    slides: SlidesArgs | None = None
    """Scored slides to show on the page; needs ``sentinode[slides]``."""
    cache_folder: Path | None = None
    """Where bundles are kept on a node; by default a private temporary folder for each replica."""

    @field_validator("bundle")
    @classmethod
    def _never_an_alias(cls, bundle: str | None) -> str | None:
        return None if bundle is None else checked_digest(bundle)

    @model_validator(mode="after")
    def _one_or_many(self) -> Self:
        if (self.bundle is None) == (self.traffic is None):
            raise ValueError("bundle: give the digest of one bundle, or traffic for several")
        if self.traffic is not None and (self.operating_point, self.prevalence) != (None, None):
            raise ValueError("operating_point and prevalence stand with each model of traffic")
        return self

    @model_validator(mode="after")
    def _largest_body_fits(self) -> Self:
        largest = max(self.max_body_bytes, self.max_bulk_bytes)
        if largest > self.max_inflight_bytes:
            raise ValueError(
                f"max_inflight_bytes {self.max_inflight_bytes} is below a body of {largest} bytes"
            )
        return self

    @property
    def first_traffic(self) -> Traffic:
        """What is served until a ``user_config`` says otherwise."""
        if self.traffic is not None:
            return self.traffic
        assert self.bundle is not None
        only = ModelTraffic(
            bundle=self.bundle, operating_point=self.operating_point, prevalence=self.prevalence
        )
        return Traffic(models={DEFAULT_MODEL: only}, default=DEFAULT_MODEL)

    @classmethod
    def parse(cls, args: Mapping[str, Any]) -> Self:
        """Settings from a mapping of strings or JSON values. Raises ConfigError naming each fault."""
        try:
            return cls.model_validate(dict(args))
        except ValidationError as error:
            raise ConfigError(
                f"serve arguments: {summarise(error)}",
                f"registry and bundle, and any of {', '.join(sorted(cls.model_fields))}",
                "correct `args` in the Serve config, or the key=value arguments of `serve run`",
            ) from error
