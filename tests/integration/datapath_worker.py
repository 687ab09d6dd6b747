"""A worker process of the data path: reads an epoch of one rank and notes every step that it has seen.

    python datapath_worker.py MANIFEST_URL SPLIT BATCH RANK WORLD EPOCH START_STEP STOP_STEP OUT

At STOP_STEP (-1: never) it kills itself as the machine's out-of-memory killer would. OUT gets one line a
step: sample ids and the SHA-1 of the pixels of each. The last line is the largest memory that the process
had, in bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
from pathlib import Path

from sentinode.data.loader import PatchLoader
from sentinode.data.manifest import load_manifest
from sentinode.schema import Split


def main() -> None:
    url, split, *numbers, out = sys.argv[1:]
    batch_size, rank, world_size, epoch, start_step, stop_step = map(int, numbers)
    manifest, store = load_manifest(url)
    with (
        PatchLoader(
            manifest,
            store,
            Split(split),
            batch_size=batch_size,
            training=True,
            rank=rank,
            world_size=world_size,
        ) as loader,
        Path(out).open("a") as notes,
    ):
        for step, batch in enumerate(loader.epoch(epoch, start_step), start=start_step):
            if step == stop_step:
                os.kill(os.getpid(), signal.SIGKILL)
            ids = batch.sample_ids_B.tolist()
            keys = [hashlib.sha1(image.numpy().tobytes()).hexdigest() for image in batch.images_BHWC]
            notes.write(" ".join(f"{i}:{key}" for i, key in zip(ids, keys, strict=True)) + "\n")
            notes.flush()
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert peak is not None
        notes.write(f"{int(peak[1]) * 1024}\n")


if __name__ == "__main__":
    main()
