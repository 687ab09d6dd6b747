"""What the bucket keeps of what was deleted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.fixture
def folder(repository: Path) -> Path:
    return repository / "infra" / "terraform"


def rules(folder: Path) -> list[str]:
    """Each rule of the bucket's life cycle."""
    text = (folder / "storage.tf").read_text()
    resource = text.partition('resource "aws_s3_bucket_lifecycle_configuration"')[2].partition("\n}\n")[0]
    return re.split(r'\n  (?:dynamic "rule"|rule) \{', resource)[1:]


def test_only_aliases_keep_versions_for_ever(folder: Path) -> None:
    """``newer_noncurrent_versions`` spares the newest versions whatever their age: no deleted object would ever go."""
    sparing = [rule for rule in rules(folder) if "newer_noncurrent_versions" in rule]
    assert [re.findall(r'prefix\s+= "([^"]+)"', rule) for rule in sparing] == [["registry/aliases/"]]
    assert any(re.search(r"expired_object_delete_marker\s+= true", rule) for rule in rules(folder))


def test_every_place_that_is_written_to_has_one_rule(folder: Path) -> None:
    """Of two that fit S3 follows the shorter, which would end the aliases' versions too."""
    text = (folder / "storage.tf").read_text()
    block = text.partition("  expiring = concat(")[2].partition("\n  )")[0]
    whole, registry = (re.findall(r'"([a-z]+)"', line) for line in block.strip().splitlines())
    identity = (folder / "identity.tf").read_text()
    lists = re.findall(r"(?:reads|writes)\s+= \[([^\]]*)\]", identity)
    used = {prefix for one in lists for prefix in re.findall(r'"(\w+)"', one)}
    assert set(whole) | {"registry"} == used
    layout = (folder.parents[1] / "docs" / "registry.md").read_text().partition("\n\n    <registry>")[2]
    parts = set(re.findall(r"([a-z]+)/(?=[\s<,])", layout.partition("\n\n")[0])) - {"registry"}
    assert set(registry) | {"aliases"} == parts
