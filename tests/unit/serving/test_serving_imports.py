"""A serving image holds no training packages: serving must import, and answer, without them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving_parts import sealed_registry

PROGRAM = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "torchvision", "timm", "matplotlib", "h5py", "wandb", "onnx"}:
            raise ImportError(f"{name} is not in the serving image")

sys.meta_path.insert(0, Blocker())

from pathlib import Path
import sentinode.serving.application
import sentinode.serving.client
import sentinode.serving.local
from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.registry import resolve
from sentinode.serving.engine import Engine
from sentinode.storage import open_store

bundle = open_bundle(open_store(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
print(Engine(bundle).predict(bundle.golden.images_BHWC).probabilities_B.shape)
"""


def test_serving_works_without_training_packages(tmp_path: Path, repository: Path) -> None:
    store, digest, parts = sealed_registry(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, store.url, digest, str(tmp_path / "cache")],
        env={**os.environ, "PYTHONPATH": str(repository / "platform")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"({len(parts.golden.images_BHWC)},)"
