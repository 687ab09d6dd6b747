"""The endpoint as a Ray Serve application: ``build`` for ``serve run`` and serveConfigV2."""

from __future__ import annotations

from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.schema import LoggingConfig

from sentinode.logs import configure_logging
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import Endpoint
from sentinode.serving.auth import ApiKeys
from sentinode.serving.oip.grpc_service import GrpcReplica

DEPLOYMENT_NAME = "predict"


class PredictReplica(GrpcReplica):
    """One replica: an ``Endpoint`` whose traffic is the deployment's ``user_config``.

    It does not come up, and takes no traffic, unless its bundles are intact and their golden patches are reproduced.
    Once it is up, a ``user_config`` that cannot be served leaves it as it was: ``GET /v1/models`` says why.
    """

    def __init__(self, args: ServeArgs) -> None:
        configure_logging()
        keys = ApiKeys.from_environment(loopback_only=_is_loopback_only())
        replica = serve.get_replica_context().replica_id.unique_id
        # Ray puts x-request-id on every request that has none, and on every reply. Without keys it is on loopback.
        self._endpoint = Endpoint(args, keys, replica, tells_id=False, local_alone=not keys.are_required)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Ray calls it before the first request and at each change of ``user_config``."""
        await self._endpoint.reconfigure(user_config)

    def __serve_build_asgi_app__(self) -> Endpoint:
        return self._endpoint


def build(args: dict[str, Any]) -> Application:
    """The Serve application for ``args`` (see ServeArgs). Raises ConfigError naming each fault."""
    parsed = ServeArgs.parse(args)
    deployment = serve.deployment(
        serve.ingress()(PredictReplica),
        name=DEPLOYMENT_NAME,
        **_replicas(parsed),
        ray_actor_options={"num_cpus": parsed.cpus_per_replica, "num_gpus": parsed.gpus_per_replica},
        user_config=parsed.first_traffic.model_dump(mode="json"),
        max_ongoing_requests=parsed.max_ongoing_requests,
        max_queued_requests=parsed.max_queued_requests,
        backpressure_config=BackpressureConfig(retry_after_s=parsed.retry_after_s),
        # Ray writes its access log at INFO: switched off by a filter alone, each line is still made.
        logging_config=LoggingConfig(enable_access_log=False, log_level="WARNING"),
    )
    application: Application = deployment.bind(parsed)
    return application


def _replicas(args: ServeArgs) -> dict[str, Any]:
    if args.autoscaling is None:
        return {"num_replicas": args.num_replicas}
    return {"autoscaling_config": args.autoscaling.model_dump()}


def _is_loopback_only() -> bool:
    """Whether Serve answers on loopback alone. What cannot be found out counts as open to others."""
    from ray.serve._private import constants
    from ray.serve._private.utils import is_grpc_enabled
    from ray.serve.context import _get_global_client

    # HAProxy, and replicas that it talks to directly, listen on all interfaces whatever http_options.host
    # says.
    if constants.RAY_SERVE_ENABLE_HA_PROXY or constants.RAY_SERVE_ENABLE_DIRECT_INGRESS:
        return False
    client = _get_global_client()
    if client is None:
        return False
    # Serve's gRPC server has no host to choose: it listens on all interfaces.
    if is_grpc_enabled(ray.get(client._controller.get_grpc_config.remote())):
        return False
    return client.http_config.host in ("127.0.0.1", "localhost", "::1")
