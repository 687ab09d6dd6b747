"""``sentinode doctor``: what is installed and reachable here, and what to fix."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

from sentinode.config import Frozen
from sentinode.data.cache import default_folder
from sentinode.errors import SentinodeError

State = Literal["ok", "note", "fix"]
MIN_FREE_DISK_BYTES = 10 * 2**30
PACKAGES = {
    "train": (
        "torch",
        "torchvision",
        "timm",
        "ray",
        "webdataset",
        "torchmetrics",
        "wandb",
        "optuna",
        "onnx",
        "h5py",
    ),
    "serve": ("ray", "onnxruntime", "starlette", "simplejpeg", "prometheus-client"),
}


class DoctorConfig(Frozen):
    """Say what is installed, which store, GPU and Ray this machine sees, and what to fix."""

    store: str | None = None
    """A store to try, such as s3://bucket/prefix or a folder: it is listed, nothing is written."""


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was looked at, its state, what was seen, and what to do."""

    what: str
    state: State
    seen: str
    fix: str = ""


FLAGS = DoctorConfig


def run(config: DoctorConfig) -> int:
    """Print the table. Exit code 1 when something must be fixed."""
    findings = [finding for check in _checks(config) for finding in _guarded(check)]
    table = Table(title="sentinode doctor", title_justify="left")
    for column in ("what", "state", "seen", "what to do"):
        table.add_column(column, overflow="fold")
    colour = {"ok": "green", "note": "yellow", "fix": "bold red"}
    for finding in findings:
        state = f"[{colour[finding.state]}]{finding.state}[/]"
        table.add_row(finding.what, state, finding.seen, finding.fix)
    Console().print(table)
    return 1 if any(f.state == "fix" for f in findings) else 0


def _checks(config: DoctorConfig) -> Iterator[Callable[[], Iterator[Finding]]]:
    yield from (_python, _packages, _machine, _gpu, _ray, _wandb)
    yield lambda: _store(config.store)


def _guarded(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(check())
    except SentinodeError as error:
        return [Finding("check", "fix", error.found, error.remedy)]
    except Exception as error:  # noqa: BLE001 - a broken part must not hide the findings about the others
        return [Finding("check", "fix", f"{type(error).__name__}: {error}", "see the message")]


def _python() -> Iterator[Finding]:
    seen = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield Finding("Python", "ok" if good else "fix", seen, "" if good else "use Python 3.11 or newer")


def _packages() -> Iterator[Finding]:
    for extra, names in PACKAGES.items():
        missing = [name for name in names if _version(name) is None]
        if missing:
            fix = f"pip install -c constraints.txt 'sentinode[{extra}]'"
            yield Finding(f"packages for {extra}", "fix", f"missing: {', '.join(missing)}", fix)
        else:
            seen = ", ".join(f"{name} {_version(name)}" for name in names[:4])
            yield Finding(f"packages for {extra}", "ok", f"{seen}, ...")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield Finding("machine", "ok", f"{cores} cores, {memory_bytes / 2**30:.0f} GiB of memory")
    cache = default_folder().absolute()
    existing = next(p for p in (cache, *cache.parents) if p.exists())
    free_bytes = shutil.disk_usage(existing).free
    low = free_bytes < MIN_FREE_DISK_BYTES
    fix = "free some disk, or point SENTINODE_CACHE at a larger one" if low else ""
    yield Finding(
        "shard cache", "note" if low else "ok", f"{free_bytes / 2**30:.0f} GiB free under {existing}", fix
    )


def _gpu() -> Iterator[Finding]:
    if _version("torch") is None:
        return
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("GPU", "ok", names)
    else:
        yield Finding("GPU", "note", "none; everything runs on the CPU", "for a GPU: install its driver")


def _ray() -> Iterator[Finding]:
    if _version("ray") is None:
        return
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        yield Finding(
            "Ray",
            "ok",
            "no RAY_ADDRESS: each command starts a local Ray",
            "ray start --head for a lasting one",
        )
        return
    from sentinode.distributed.cluster import ray_session

    with ray_session(address):
        import ray

        resources = {name: int(n) for name, n in ray.cluster_resources().items() if name in ("CPU", "GPU")}
        yield Finding("Ray", "ok", f"{address}: {len(ray.nodes())} nodes, {resources}")


def _wandb() -> Iterator[Finding]:
    if os.environ.get("WANDB_API_KEY"):
        yield Finding("W&B", "ok", "WANDB_API_KEY is set: runs are sent")
    else:
        yield Finding("W&B", "note", "no WANDB_API_KEY: runs are kept offline", "set it, or wandb sync later")


def _store(url: str | None) -> Iterator[Finding]:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if url is None:
        seen = f"S3 endpoint {endpoint}" if endpoint else "no S3 endpoint set (AWS's own would be used)"
        yield Finding("store", "note", seen, "try one with --store s3://bucket/prefix")
        return
    from sentinode.storage import open_store

    first = next(iter(open_store(url).list("")), None)
    yield Finding(
        "store", "ok", f"{url} answers" + (f", holds {first.key}" if first else ", holds nothing yet")
    )
