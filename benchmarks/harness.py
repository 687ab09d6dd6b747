"""What all benchmarks share: cases run by turns, medians with their spread, one JSON and one
plot.

Rates of a busy or throttled machine differ from minute to minute, so cases are interleaved and a ratio is
taken within each round. The file is ``benchmarks/out/<name>.json``:

    {"machine": {...}, "versions": {...},
     "rows": [{"name", "unit", "median", "low", "high", "per_cpu_s", "rss_mib"} or {"name", "skipped"}],
     "ratios": {name: median over rounds}, "spread": {name: [lowest, highest]}}
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from turns import Case, Turn, Worker, interpreter

OUT = Path(__file__).resolve().parent / "out"


@dataclass
class Measure:
    """What one case did in each round."""

    unit: str
    rates: list[float] = field(default_factory=list)
    """Per second of wall time."""
    cpu_rates: list[float] = field(default_factory=list)
    """Per second of the case's CPU time."""
    rss_mib: float | None = None
    """The most memory its process had."""

    def add(self, turn: Turn) -> None:
        """Take note of a turn of the case."""
        self.rates.append(turn.done / turn.wall_s)
        self.cpu_rates.append(turn.done / turn.cpu_s)
        self.rss_mib = turn.rss_mib

    @property
    def median(self) -> float:
        return statistics.median(self.rates)

    def row(self, name: str) -> dict[str, Any]:
        row = {"name": name, "unit": self.unit, "median": self.median, "low": min(self.rates)}
        row["high"] = max(self.rates)
        if self.cpu_rates:
            row["per_cpu_s"] = statistics.median(self.cpu_rates)
        if self.rss_mib is not None:
            row["rss_mib"] = round(self.rss_mib)
        return row


def interleave(
    cases: Mapping[str, Case],
    *,
    rounds: int,
    seconds: float,
    unit: str = "patches/s",
    core: int | None = None,
    pythons: Mapping[str, Path] | None = None,
) -> tuple[dict[str, Measure], list[dict[str, Any]]]:
    """Run the cases by turns, each for ``seconds`` a round; rows for those that cannot run here
    (ImportError).

    Each case has a process of its own, bound to ``core``, with one thread for arithmetic, and stopped while
    others have their turn: no background thread of one takes time from another. One round before the first
    is not counted. ``pythons``: interpreters of cases that need an environment of their own.
    """
    own = pythons or {}
    workers: dict[str, Worker] = {}
    try:
        for name, case in cases.items():
            with interpreter(own.get(name)):
                workers[name] = Worker(case, core)
        skipped = [{"name": n, "skipped": w.refusal} for n, w in workers.items() if w.refusal]
        workers = {name: worker for name, worker in workers.items() if not worker.refusal}
        measures = {name: Measure(unit) for name in workers}
        for number in range(rounds + 1):
            for name, worker in workers.items():
                turn = worker.run(seconds)
                if number:
                    measures[name].add(turn)
    finally:
        for worker in workers.values():
            worker.close()
    return measures, skipped


def ratio(first: Measure, second: Measure) -> list[float]:
    """``first`` over ``second`` in each round."""
    return [a / b for a, b in zip(first.rates, second.rates, strict=True)]


def cpu_ratio(first: Measure, second: Measure) -> list[float]:
    """``first`` over ``second`` in each round, per second of CPU time: hardly changed by what else runs."""
    return [a / b for a, b in zip(first.cpu_rates, second.cpu_rates, strict=True)]


def machine() -> dict[str, Any]:
    """The processor, its cores, memory and GPU as far as they can be told."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found: dict[str, Any] = {
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "load_average": os.getloadavg()[0],
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        found["processor"] = names[0] if names else platform.machine()
    try:
        import torch

        if torch.cuda.is_available():
            found["gpu"] = torch.cuda.get_device_name()
    except ImportError:
        pass
    return found


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed versions; packages that are absent are left out."""
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def versions_of(python: Path, packages: Iterable[str]) -> dict[str, str]:
    """``versions`` as another interpreter sees them."""
    code = "import json, sys, harness; print(json.dumps(harness.versions(sys.argv[1:])))"
    asked = [str(python), "-c", code, *packages]
    answer = subprocess.run(asked, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    return json.loads(answer.stdout)


def write(
    name: str,
    rows: list[dict[str, Any]],
    ratios: Mapping[str, list[float]],
    packages: Iterable[str],
    **more: Any,
) -> Path:
    """Write ``out/<name>.json``; ``ratios`` holds one value a round."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    content = {
        "machine": machine(),
        "versions": versions(packages),
        "rows": rows,
        "ratios": {key: round(statistics.median(values), 3) for key, values in ratios.items()},
        "spread": {key: [round(min(values), 3), round(max(values), 3)] for key, values in ratios.items()},
        **more,
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def show(rows: list[dict[str, Any]], ratios: Mapping[str, list[float]]) -> None:
    """Print rows and ratios as a table."""
    for row in rows:
        if "skipped" in row:
            print(f"{row['name']:<48} skipped: {row['skipped']}")
            continue
        spread = f"({row['low']:,.4g} - {row['high']:,.4g})"
        cpu = f"{row['per_cpu_s']:>12,.0f} per CPU second" if "per_cpu_s" in row else ""
        rss = f"{row['rss_mib']:>8,} MiB" if "rss_mib" in row else ""
        print(f"{row['name']:<48} {row['median']:>12,.4g} {row['unit']:<11} {spread:<26} {cpu} {rss}")
    print()
    for key, values in ratios.items():
        print(f"{key:<48} {statistics.median(values):>12.3f} ({min(values):.3f} - {max(values):.3f})")


def plot(name: str, rows: list[dict[str, Any]], title: str, unit: str) -> Path:
    """Bars of all rows with this unit, logarithmic, whiskers from lowest to highest: ``out/<name>.png``."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row.get("unit") == unit][::-1]
    medians = [row["median"] for row in shown]
    below = [row["median"] - row["low"] for row in shown]
    above = [row["high"] - row["median"] for row in shown]
    figure, axes = pyplot.subplots(figsize=(9, 0.8 + 0.38 * len(shown)), layout="constrained")
    axes.barh([row["name"] for row in shown], medians, xerr=[below, above], color="#5b7fa6", capsize=3)
    axes.set_xscale("log")
    axes.set_xlabel(unit)
    axes.set_title(title)
    axes.grid(axis="x", alpha=0.3)
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path
