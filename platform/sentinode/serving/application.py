"""The endpoint as a Ray Serve application: ``build`` for ``serve run`` and serveConfigV2."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig
from starlette.applications import Starlette

from sentinode.bundle.bundle import open_bundle
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import create_app
from sentinode.serving.auth import ApiKeys
from sentinode.serving.engine import Engine
from sentinode.storage import open_store

logger = logging.getLogger(__name__)

DEPLOYMENT_NAME = "predict"


class PredictReplica:
    """One replica: a verified bundle in an engine, behind the ASGI application.

    It does not come up, and takes no traffic, unless the bundle is intact and its golden patches are
    reproduced.
    """

    def __init__(self, args: ServeArgs) -> None:
        keys = ApiKeys.from_environment(loopback_only=_is_loopback_only())
        with ExitStack() as stack:
            folder = args.cache_folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            bundle = open_bundle(open_store(args.registry), args.bundle, folder)
            # The engine holds the graph in memory, so a temporary folder may go as soon as it has started.
            self._engine = Engine(bundle, args.threads, args.operating_point)
        self._asgi_arguments = (self._engine, args, keys, serve.get_replica_context().replica_id.unique_id)
        logger.info("serving bundle %s on %s", args.bundle, self._engine.runtime)

    def __serve_build_asgi_app__(self) -> Starlette:
        return create_app(*self._asgi_arguments)


def build(args: dict[str, Any]) -> Application:
    """The Serve application for ``args`` (see ServeArgs). Raises ConfigError naming each fault."""
    parsed = ServeArgs.parse(args)
    deployment = serve.deployment(
        serve.ingress()(PredictReplica),
        name=DEPLOYMENT_NAME,
        num_replicas=parsed.num_replicas,
        ray_actor_options={"num_cpus": parsed.cpus_per_replica, "num_gpus": parsed.gpus_per_replica},
        max_ongoing_requests=parsed.max_ongoing_requests,
        max_queued_requests=parsed.max_queued_requests,
        backpressure_config=BackpressureConfig(retry_after_s=parsed.retry_after_s),
        logging_config=LoggingConfig(enable_access_log=False),
    )
    application: Application = deployment.bind(parsed)
    return application


def _is_loopback_only() -> bool:
    """Whether Serve answers on loopback alone. What cannot be found out counts as open to others."""
    from ray.serve._private import constants
    from ray.serve.context import _get_global_client

    # HAProxy, and replicas that it talks to directly, listen on all interfaces whatever http_options.host
    # says.
    if constants.RAY_SERVE_ENABLE_HA_PROXY or constants.RAY_SERVE_ENABLE_DIRECT_INGRESS:
        return False
    client = _get_global_client()
    return client is not None and client.http_config.host in ("127.0.0.1", "localhost", "::1")
