"""Settings: faults are named, and the sample Serve config is valid for Ray and for us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from sentinode.errors import ConfigError
from sentinode.serving.application import build
from sentinode.serving.args import ServeArgs

GOOD: dict[str, Any] = {"registry": "s3://bucket/registry", "bundle": "c" * 64}


def test_strings_of_the_command_line_are_parsed() -> None:
    args = ServeArgs.parse({**GOOD, "threads": "2", "batch_wait_ms": "0.5"})
    assert (args.threads, args.batch_wait_ms) == (2, 0.5)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bundle": "latest"}, "never|resolve aliases"),
        ({"bundle": "C" * 64}, "bundle digest"),
        ({"registry": None}, "registry"),
        ({"max_batch": 0}, "max_batch"),
        ({"max_bach": 64}, "max_bach"),
        ({"threads": "many"}, "threads"),
    ],
)
def test_bad_settings_are_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build({**GOOD, **change})


def test_missing_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="registry: "):
        build({})
    with pytest.raises(ConfigError, match="bundle: "):
        build({"registry": GOOD["registry"]})


def test_sample_config_is_valid_for_ray_and_for_us(repository: Path) -> None:
    text = yaml.safe_load((repository / "serve" / "config.yaml").read_text())
    schema = ServeDeploySchema.model_validate(text)
    assert schema.http_options.host == "127.0.0.1"
    # Ray ignores keys that it does not know, so a misspelt one would pass: compare with what it understood.
    assert set(text) <= set(ServeDeploySchema.model_fields)
    (application,) = schema.applications
    assert set(text["applications"][0]) <= set(type(application).model_fields)
    assert set(text["http_options"]) <= set(type(schema.http_options).model_fields)
    assert set(text["logging_config"]) <= set(type(schema.logging_config).model_fields)
    assert application.import_path == "app:build"
    ServeArgs.parse(application.args)
    assert (repository / "serve" / "app.py").is_file()


def test_application_takes_its_queue_lengths_from_the_settings() -> None:
    application = build({**GOOD, "max_ongoing_requests": 99, "max_queued_requests": 77, "num_replicas": 2})
    deployment = application._bound_deployment
    assert deployment.max_ongoing_requests == 99
    assert deployment.max_queued_requests == 77
    assert deployment.num_replicas == 2
