"""The architecture is a test: floors, owners of dependencies, sizes. The picture is in docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "platform" / "sentinode"

FLOORS: dict[str, int] = {
    "errors": 1, "config": 1, "schema": 1, "provenance": 1,
    "storage": 2, "tracking": 2, "logs": 2,
    "data": 3, "models": 3, "slides": 3,
    "evaluation": 4,
    "training": 5, "bundle": 5, "cohort": 5,
    "experiment": 6, "recipes": 6, "search": 6,
    "distributed": 7, "serving": 7, "rollout": 7,
    "commands": 8, "cli": 8, "__main__": 8,
}  # fmt: skip
SIBLINGS_MAY_IMPORT = {
    ("config", "errors"), ("recipes", "experiment"), ("search", "experiment"), ("cli", "commands"), ("__main__", "cli"),
}  # fmt: skip
"""Edges within one floor that the picture needs."""

OWNERS: dict[str, tuple[str, ...]] = {
    "boto3": ("storage",), "botocore": ("storage",), "pyarrow.fs": ("storage",), "moto": ("storage",),
    "wandb": ("tracking",),
    "ray.serve": ("serving",), "ray.train": ("distributed",), "ray.tune": ("distributed",),
    "ray": ("distributed", "serving", "commands"),
    "kubernetes": ("rollout",),
    "optuna": ("search",), "psutil": ("distributed",),
    "timm": ("models",), "huggingface_hub": ("models",),
    "h5py": ("data",), "webdataset": ("data",),
    "shapely": ("slides", "cohort"), "openslide": ("slides",), "tiffslide": ("slides",),
    "matplotlib": ("evaluation",), "jinja2": ("evaluation",),
    "onnxruntime": ("bundle", "serving"),
    "joserfc": ("serving",), "grpc": ("serving",), "google.protobuf": ("serving",),
    "opentelemetry": ("serving",),
    "starlette": ("serving",), "prometheus_client": ("serving",),
}  # fmt: skip

MODULES = sorted(LIBRARY.rglob("*.py"))


def room(path: Path) -> str:
    parts = path.relative_to(LIBRARY).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_library_is_there() -> None:
    assert len(MODULES) > 30


def test_platform_never_becomes_a_package() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists(), "it would shadow the standard library's platform"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        return
    wrong = []
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "sentinode" or len(parts) < 2 or parts[1] not in FLOORS:
            continue
        there = parts[1]
        down = FLOORS[there] < FLOORS[here]
        if there != here and not down and (here, there) not in SIBLINGS_MAY_IMPORT:
            wrong.append(f"{here} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})")
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_dependencies_have_one_owner(path: Path) -> None:
    wrong = []
    for name in imports(path):
        for package, owners in OWNERS.items():
            if (name == package or name.startswith(package + ".")) and room(path) not in owners:
                wrong.append(f"{name} belongs to {owners}, not to {room(path)}")
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_files_and_functions_stay_small(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= 270, "a file is one idea, about 250 lines at most"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 66, f"{node.name} has {lines} lines, about 60 at most"


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.name)
def test_jobs_are_thin(path: Path) -> None:
    assert path.read_text().count("\n") <= 35


def test_every_room_has_a_floor() -> None:
    rooms = {room(path) for path in MODULES} - {"__init__"}
    assert rooms <= FLOORS.keys()


def test_import_does_no_work_and_needs_no_heavy_package() -> None:
    code = (
        "import sys, sentinode, sentinode.errors, sentinode.config, sentinode.schema, sentinode.storage\n"
        "heavy = {'torch', 'ray', 'wandb', 'matplotlib', 'h5py'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "platform"), "PATH": ""}
    )
