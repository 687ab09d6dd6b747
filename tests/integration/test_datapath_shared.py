"""A set shared among the memories of several ranks gives each rank the very batches of its plan."""

from __future__ import annotations

import multiprocessing
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from datapath_parts import make_set
from torch import distributed

from sentinode.data.loader import LoaderConfig, PatchLoader
from sentinode.data.manifest import load_manifest
from sentinode.schema import Split

Seen = list[tuple[list[int], list[int], bytes]]
"""Ids, labels and pixels of each batch."""


def read(folder: str, rank: int, world_size: int, config: LoaderConfig, training: bool) -> Seen:
    manifest, store = load_manifest(folder)
    with PatchLoader(
        manifest,
        store,
        Split.TRAIN,
        batch_size=12,
        training=training,
        rank=rank,
        world_size=world_size,
        config=config,
    ) as loader:
        return [
            (b.sample_ids_B.tolist(), b.labels_B.tolist(), b.images_BHWC.numpy().tobytes())
            for epoch in range(2)
            for b in loader.epoch(epoch, start_step=epoch)
        ]


def run(pipe: Connection, folder: str, meeting: str, rank: int, world_size: int, training: bool) -> None:
    try:
        distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
        )
        pipe.send(read(folder, rank, world_size, LoaderConfig(resident="shared"), training))
        distributed.destroy_process_group()
    except BaseException:  # noqa: BLE001 - reported to the test
        pipe.send(traceback.format_exc())


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_shared_batches_equal_those_read_from_shards(tmp_path: Path, world_size: int, training: bool) -> None:
    make_set(tmp_path / "set", (20, 7, 13))
    context = multiprocessing.get_context("spawn")
    pipes, ranks = [], []
    for rank in range(world_size):
        ours, theirs = context.Pipe()
        arguments = (theirs, str(tmp_path / "set"), str(tmp_path / "meeting"), rank, world_size, training)
        ranks.append(context.Process(target=run, args=arguments))
        ranks[-1].start()
        pipes.append(ours)
    for rank, pipe in enumerate(pipes):
        assert pipe.poll(120)
        expected = read(str(tmp_path / "set"), rank, world_size, LoaderConfig(), training)
        assert pipe.recv() == expected
    for process in ranks:
        process.join()
