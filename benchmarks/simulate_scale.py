"""SIMULATION, not a measurement: 100 million patches on 512 GPUs from S3, and 10,000 requests a second.

    python benchmarks/simulate_scale.py

Prints the tables of docs/scale.md and draws its pictures. The models are in scale_store.py and scale_serving.py.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from scale_serving import STEP_S, Endpoint, simulate
from scale_store import Fleet, Store, download

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SLICE_MB = 20_000.0
"""Simulated of what a node downloads: its pace is steady by then."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu-patches-s", type=float, default=5000.0, help="of one GPU while it trains")
    parser.add_argument("--replica-req-s", type=float, default=1500.0, help="of one replica, measured")
    options = parser.parse_args()
    fleet = replace(Fleet(), gpu_patches_s=options.gpu_patches_s)
    print(f"The set: {fleet.set_mb / 1e6:.2f} TB; a node's GPUs read {fleet.demand_mb_s:,.0f} MB/s\n")
    stores(fleet)
    orders(fleet)
    serving(Endpoint(replica_req_s=options.replica_req_s))


def stores(fleet: Fleet) -> None:
    """How part size and prefixes decide what a node gets from the store."""
    print("part MB | prefixes | MB/s a node | GETs/s at the peak | refused with 503 | parts given up")
    sizes, prefixes = (1.0, 8.4, 33.55, 134.2), (1, 4)
    pace: dict[int, list[float]] = {count: [] for count in prefixes}
    for count in prefixes:
        for part_mb in sizes:
            found = download(
                replace(fleet, part_mb=part_mb), Store(prefixes=count), min(SLICE_MB, part_mb * 2000)
            )
            pace[count].append(found.node_mb_s)
            print(
                f"{part_mb:7.1f} | {count:8d} | {found.node_mb_s:11,.0f} | {found.peak_gets_s:18,.0f} | "
                f"{found.refused / found.requests:15.1%} | {found.failed}"
            )
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for count, values in pace.items():
        axes.plot(sizes, values, marker="o", label=f"{count} prefix{'es' if count > 1 else ''}")
    axes.axhline(fleet.demand_mb_s, color="0.4", linestyle="--", label="what the GPUs of a node read")
    axes.set(xscale="log", xlabel="MB of a request", ylabel="MB/s of each of 64 nodes", ylim=(0, None))
    axes.set_title("Simulation: what 64 nodes get from S3 at once")
    axes.legend()
    _save(figure, "scale_store.png")


def orders(fleet: Fleet) -> None:
    """The first epoch under full and under block shuffle."""
    found = download(fleet, Store(prefixes=4), SLICE_MB)
    pace = found.node_mb_s
    print("\nfirst epoch (4 prefixes) | downloaded by a node | first batch after | epoch | GPUs wait")
    compute_s = fleet.samples / (fleet.nodes * fleet.gpus * fleet.gpu_patches_s)
    lane_mb, block_mb = fleet.set_mb / fleet.nodes, fleet.set_mb / fleet.shards
    for name, node_mb, first_mb in (
        ("full shuffle", fleet.set_mb, fleet.set_mb),
        ("block shuffle, a lane a node", lane_mb, block_mb),
    ):
        first_s = first_mb / pace
        epoch_s = first_s + max(compute_s, (node_mb - first_mb) / pace)
        waiting = 1 - compute_s / epoch_s
        print(
            f"{name:30s} | {node_mb / 1e3:17,.0f} GB | {first_s:15,.1f} s | {epoch_s:5,.0f} s | {waiting:.0%}"
        )
    rates = np.geomspace(500, 50_000, 40)
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, node_mb, first_mb in (
        ("full shuffle, first epoch", fleet.set_mb, fleet.set_mb),
        ("block shuffle, every epoch larger than the cache", lane_mb, block_mb),
    ):
        compute = fleet.samples / (fleet.nodes * fleet.gpus * rates)
        epoch = first_mb / pace + np.maximum(compute, (node_mb - first_mb) / pace)
        axes.plot(rates, 1 - compute / epoch, label=name)
    axes.set(
        xscale="log", xlabel="patches/s of one GPU", ylabel="share of the epoch that GPUs wait", ylim=(0, 1)
    )
    axes.set_title("Simulation: 100 M patches, 512 GPUs, 64 nodes")
    axes.legend()
    _save(figure, "scale_epoch.png")


def serving(endpoint: Endpoint) -> None:
    """From 1,000 to 10,000 requests a second at once."""
    seconds = 180
    load = np.full(round(seconds / STEP_S), 1000.0)
    load[round(20 / STEP_S) :] = 10_000.0
    needed = int(np.ceil(10_000 / endpoint.replica_req_s))
    print(f"\n10,000 requests/s need {needed} replicas at work all the time")
    print("nodes ready for | replicas at the end | refused until settled | seconds until nobody is refused")
    figure, axes = plt.subplots(2, 1, figsize=(7, 5), sharex=True, layout="constrained")
    time = np.arange(len(load)) * STEP_S
    for warm in (2, needed + 2):
        trace = simulate(replace(endpoint, warm_replicas=warm), load)
        refused = trace.refused_T * load * STEP_S
        settled = time[trace.refused_T > 0][-1] - 20 if (trace.refused_T > 0).any() else 0.0
        share = refused.sum() / (10_000 * max(settled, 1))
        print(f"{warm:15d} | {trace.replicas_T[-1]:19.0f} | {share:21.0%} | {settled:.0f}")
        axes[0].plot(time, trace.replicas_T, label=f"nodes ready for {warm} replicas")
        axes[1].plot(time, _smooth(trace.refused_T), label=f"nodes ready for {warm} replicas")
    axes[0].set(ylabel="replicas", title="Simulation: a step from 1,000 to 10,000 requests/s at 20 s")
    axes[0].axhline(needed, color="0.4", linestyle="--", linewidth=1)
    axes[1].set(xlabel="s", ylabel="refused with 503", ylim=(0, 1))
    axes[0].legend()
    _save(figure, "scale_serving.png")


def _smooth(values: Any) -> Any:
    return np.convolve(values, np.ones(100) / 100, mode="same")


def _save(figure: Any, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / name, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
