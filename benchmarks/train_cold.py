"""A tiny training in a process of its own: by the plain loop, or by Ray Train on a Ray that is started for it.

python benchmarks/train_cold.py plain|ray <data> <run>
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from harness import Measure

from sentinode.data.manifest import load_manifest
from sentinode.experiment import Experiment, begin_run
from sentinode.recipes import seed_cnn
from sentinode.storage import open_store
from sentinode.training.feeds import open_feeds
from sentinode.training.loop import RankContext, run_training

EPOCHS = 2


def cold_starts(data: Path, folder: Path, rounds: int) -> dict[str, Measure]:
    """Seconds from a process's start to its end, by turns, and what Ray adds in each round."""
    took = {name: Measure("s") for name in ("plain", "ray", "added")}
    for number in range(rounds + 1):
        for way in ("plain", "ray"):
            began = time.perf_counter()
            asked = [sys.executable, __file__, way, str(data), str(folder / f"{way}-{number}")]
            subprocess.run(asked, check=True, env=os.environ | {"WANDB_MODE": "offline"})
            if number:
                took[way].rates.append(time.perf_counter() - began)
    took["added"].rates += [b - a for a, b in zip(took["plain"].rates, took["ray"].rates, strict=True)]
    return took


def main() -> None:
    way, data, run = sys.argv[1:]
    recipe = seed_cnn()
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"epochs": EPOCHS})})
    experiment = Experiment.of(recipe, data, run)
    if way == "ray":
        by_ray(experiment)
    else:
        by_plain_loop(experiment)


def by_plain_loop(experiment: Experiment) -> None:
    """In this process."""
    manifest, shards = load_manifest(experiment.data)
    begin_run(experiment, manifest)
    with open_feeds(experiment, manifest, shards) as feeds:
        run_training(experiment, feeds, open_store(experiment.run), RankContext())


def by_ray(experiment: Experiment) -> None:
    """As ``sentinode train`` with one worker: Ray is started, trains, and is stopped."""
    from sentinode.distributed.cluster import ray_session
    from sentinode.distributed.scaling import ScalingSettings
    from sentinode.distributed.trainer import train

    with ray_session("local", num_cpus=1):
        train(experiment, ScalingSettings(num_workers=1))


if __name__ == "__main__":
    main()
