"""``sentinode serve``: a bundle answers over HTTP until interrupted."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import suppress
from typing import Literal

from pydantic import Field, model_validator

from sentinode.bundle.registry import resolve
from sentinode.config import Frozen
from sentinode.distributed.cluster import ray_session, starts_here
from sentinode.errors import ObjectNotFoundError
from sentinode.serving.args import ServeArgs
from sentinode.serving.auth import ApiKeys
from sentinode.serving.ingress import limit_grpc_messages, refuse_in_json, use_haproxy
from sentinode.serving.slides_args import SlidesArgs
from sentinode.storage import StoreUrl, open_store

log = logging.getLogger(__name__)


class ServeCommand(Frozen):
    """Serve a bundle on this machine's loopback. On a cluster: serve/config.yaml with `serve deploy`."""

    registry: StoreUrl
    """URL of the registry that holds the bundle."""
    bundle: str
    """Digest of the bundle, or an alias: it is resolved once, at the start."""
    port: int = Field(default=8000, ge=0, le=65535)
    """Port on 127.0.0.1; 0 takes a free one."""
    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the Open Inference Protocol over gRPC, without TLS; 0 takes a free one, and by default there is none. It
    is open to other machines, so it asks for API keys."""
    operating_point: str | None = None
    """Threshold of the verdict; the card's default where it is not given."""
    ingress: Literal["python", "haproxy"] = "python"
    """Who takes connections. ``haproxy`` is many times faster; it and the replicas open ports to other machines, so it
    asks for API keys."""
    num_replicas: int = Field(default=1, ge=1)
    """Copies of the model, each a process of its own."""

    scores: StoreUrl | None = None
    """What `sentinode score` wrote: its slides are shown on the page."""
    corrections: StoreUrl | None = None
    """Where pathologists' corrections of these slides are kept; by default none are taken."""

    @model_validator(mode="after")
    def _corrections_of_slides(self) -> ServeCommand:
        if self.corrections is not None and self.scores is None:
            raise ValueError("corrections are of slides that are shown: give --scores as well")
        return self

    def args(self) -> ServeArgs:
        """The endpoint's settings, with the alias resolved to a digest.

        Raises StoreError where no slide was scored, and where corrections could not be kept.
        """
        digest = resolve(open_store(self.registry), self.bundle)
        if self.scores is not None:
            # Only here: an endpoint without slides has nothing installed that reads their table.
            from sentinode.commands.slides_input import load_scores

            load_scores(open_store(self.scores))
        if self.corrections is not None:
            # Told now, not when a pathologist wants to save.
            with suppress(ObjectNotFoundError):
                open_store(self.corrections).get("is-this-place-there")
        return ServeArgs(
            registry=self.registry,
            bundle=digest,
            operating_point=self.operating_point,
            num_replicas=self.num_replicas,
            slides=SlidesArgs(scores=self.scores, corrections=self.corrections) if self.scores else None,
        )


FLAGS = ServeCommand


def run(config: ServeCommand) -> int:
    """Serve until SIGINT or SIGTERM."""
    args = config.args()
    if starts_here(None):
        # The replicas look again, at the same environment; but Ray takes a while to start.
        ApiKeys.from_environment(loopback_only=config.ingress == "python" and config.grpc_port is None)
    over = threading.Event()
    _end_on_signals(over)
    refuse_in_json()
    if config.ingress == "haproxy":
        use_haproxy()
    if config.grpc_port is not None:
        limit_grpc_messages(args.max_bulk_bytes)
    # Ray Serve reads its environment when it is imported.
    from sentinode.serving.local import LocalEndpoint

    served = LocalEndpoint(args, config.port, grpc_port=config.grpc_port)
    with ray_session():
        # Ray has put a handler of SIGTERM in place of ours, one that aborts.
        _end_on_signals(over)
        with served as endpoint:
            log.info(
                "bundle %s answers at %s/v1/predict (research use only)", endpoint.bundle[:12], endpoint.url
            )
            if endpoint.grpc_port is not None:
                log.info(
                    "gRPC (Open Inference Protocol) on port %d of all interfaces, without TLS",
                    endpoint.grpc_port,
                )
            over.wait()
            log.info("stopping: what is under way is answered")
    log.info("stopped")
    return 0


def _end_on_signals(over: threading.Event) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
