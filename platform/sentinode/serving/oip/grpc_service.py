"""Where Ray Serve's gRPC proxy learns the methods, and where a replica answers them."""

from __future__ import annotations

from typing import Any, Final

import grpc
from ray.serve.grpc_util import RayServegRPCContext

from sentinode.serving.asgi import Endpoint
from sentinode.serving.oip.grpc_app import Reply, call
from sentinode.serving.oip.messages import METHODS, SERVICE

_REQUEST_TIMEOUT_S: Final = 60.0


def grpc_options(port: int) -> dict[str, Any]:
    """Serve's gRPC options for this service. Serve listens on all interfaces, whatever HTTP's host is."""
    return {
        "port": port,
        "grpc_servicer_functions": [f"{__name__}.{add_inference_service.__name__}"],
        "request_timeout_s": _REQUEST_TIMEOUT_S,
        # It is answered by the proxy, which asks for no credential.
        "enable_reflection": False,
    }


def add_inference_service(_: object, server: Any) -> None:
    """Register the service with Serve's gRPC server, which puts its own handlers in place of these.

    Messages pass the proxy as bytes: nothing that a client sent is parsed before the replica has seen its credential
    and its size.
    """
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            lambda request, context: b"", request_deserializer=None, response_serializer=None
        )
        for method in METHODS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class GrpcReplica:
    """The methods that Serve calls on a replica; ``_endpoint`` is its ASGI application."""

    _endpoint: Endpoint

    async def _call(self, method: str, request: bytes, context: RayServegRPCContext) -> Reply:
        reply = await call(self._endpoint, method, context.invocation_metadata(), request)
        if reply.code is not grpc.StatusCode.OK:
            # Not raised: Serve would log a client's mistake with a traceback.
            context.set_code(reply.code)
            context.set_details(reply.details)
        return reply

    async def ServerLive(self, request: bytes, grpc_context: RayServegRPCContext) -> Reply:  # noqa: N802
        return await self._call("ServerLive", request, grpc_context)

    async def ServerReady(self, request: bytes, grpc_context: RayServegRPCContext) -> Reply:  # noqa: N802
        return await self._call("ServerReady", request, grpc_context)

    async def ServerMetadata(self, request: bytes, grpc_context: RayServegRPCContext) -> Reply:  # noqa: N802
        return await self._call("ServerMetadata", request, grpc_context)

    async def ModelReady(self, request: bytes, grpc_context: RayServegRPCContext) -> Reply:  # noqa: N802
        return await self._call("ModelReady", request, grpc_context)

    async def ModelMetadata(self, request: bytes, grpc_context: RayServegRPCContext) -> Reply:  # noqa: N802
        return await self._call("ModelMetadata", request, grpc_context)

    async def ModelConfig(self, request: bytes, grpc_context: RayServegRPCContext) -> Reply:  # noqa: N802
        return await self._call("ModelConfig", request, grpc_context)

    async def ModelInfer(self, request: bytes, grpc_context: RayServegRPCContext) -> Reply:  # noqa: N802
        return await self._call("ModelInfer", request, grpc_context)

    async def RepositoryIndex(self, request: bytes, grpc_context: RayServegRPCContext) -> Reply:  # noqa: N802
        return await self._call("RepositoryIndex", request, grpc_context)
