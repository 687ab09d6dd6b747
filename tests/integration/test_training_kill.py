"""SIGKILL at random moments: a run that is killed and resumed ends with the weights of one that was not."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from sentinode.storage import open_store
from sentinode.training.checkpoint import WEIGHTS_KEY, load_history
from sentinode.training.pointer import POINTER_KEY

KILLS = 4
SCRIPT = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from training_parts import MemoryData
from sentinode.storage import open_store
from sentinode.training.config import Recipe, TrainConfig
from sentinode.training.loop import RankContext, run_training
torch.set_num_threads(1)
train = dict(epochs=40, batch_size=16, lr=1e-3, schedule="cosine", warmup_epochs=1, averaging={"kind": "ema"},
             mix={"mixup": 0.3}, save={"every_steps": 2})
recipe = Recipe(train=TrainConfig.model_validate(train))
run_training(recipe, MemoryData(samples=128).feeds(), open_store(sys.argv[1]), RankContext())
"""


def start(run: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(run), str(Path(__file__).parents[1])])


def test_killed_at_random_moments_the_weights_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(whole).wait() == 0
    moments, kills = random.Random(7), 0
    while not (cut / WEIGHTS_KEY).exists():
        process = start(cut)
        before = pointer(cut)
        while process.poll() is None and pointer(cut) == before:
            time.sleep(0.002)
        if kills < KILLS:
            time.sleep(moments.random() * 0.3)
            process.kill()
            kills += 1
        process.wait()
    assert kills == KILLS
    assert (whole / WEIGHTS_KEY).read_bytes() == (cut / WEIGHTS_KEY).read_bytes()
    assert [record.epoch for record in load_history(open_store(str(cut)))] == list(range(1, 41))
    last = [
        load_file(path) for run in (whole, cut) for path in run.glob("checkpoints/epoch-0040-*.safetensors")
    ]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(value, last[1][name]) for name, value in last[0].items())


def pointer(run: Path) -> bytes:
    path = run / POINTER_KEY
    return path.read_bytes() if path.exists() else b""
