"""Traces of requests, where the environment asks for them: ``OTEL_TRACES_EXPORTER`` and its standard companions."""

from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING, Any, Final

from sentinode.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from sentinode.serving.spans import Tracing

_GROUP: Final = "opentelemetry_traces_exporter"
"""Entry points under which packages offer exporters."""
_OTLP: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def open_tracing(replica: str) -> Tracing | None:
    """What ``OTEL_TRACES_EXPORTER`` asks for, as the service instance ``replica``; None where it asks for nothing.

    The exporters of a comma-separated list (``otlp``, ``console``, or of an installed package) each get every span.
    Their own settings (``OTEL_EXPORTER_OTLP_*``), the sampler's, the processor's and the resource's are read by the
    SDK. Raises ConfigError for an exporter or protocol that nobody knows and MissingDependencyError for one that
    is not installed.
    """
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    asked = [name.strip() for name in os.environ.get("OTEL_TRACES_EXPORTER", "").split(",")]
    names = [name for name in asked if name not in ("", "none")]
    if not names:
        return None
    exporters = [_exporter(name) for name in names]
    # Only here: off, which is the default, nothing of OpenTelemetry is imported.
    from sentinode.serving.spans import Tracing, provider_of

    return Tracing(provider_of(exporters, replica))


def _exporter(name: str) -> Any:
    entry = _OTLP[_protocol()] if name == "otlp" else name
    found = {point.name: point for point in importlib.metadata.entry_points(group=_GROUP)}
    if entry in found:
        return found[entry].load()()
    if entry in _OTLP.values():
        package = f"opentelemetry-exporter-{entry.replace('_', '-')}"
        extra = "'sentinode[traces]'" if entry == _OTLP["http/protobuf"] else package
        raise MissingDependencyError(
            f"OTEL_TRACES_EXPORTER is {name!r}, whose exporter is not installed",
            f"the package {package}",
            f"pip install {extra} where the replicas run, or unset OTEL_TRACES_EXPORTER",
        )
    raise ConfigError(
        f"OTEL_TRACES_EXPORTER names {name!r}",
        f"none, otlp or one of {', '.join(sorted(found))}",
        "correct it, or unset it for no traces",
    )


def _protocol() -> str:
    for variable in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = os.environ.get(variable, "").strip()
        if protocol and protocol not in _OTLP:
            raise ConfigError(f"{variable} is {protocol!r}", " or ".join(_OTLP), "correct it, or unset it")
        if protocol:
            return protocol
    return "http/protobuf"
