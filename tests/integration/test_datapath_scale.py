"""A set of very many shards: one worker reads it in bounded memory, with few open files where few may be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from datapath_parts import make_manifest, make_set

WORKER = Path(__file__).with_name("datapath_worker.py")
SHARDS = 3000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
@pytest.mark.parametrize("open_files", [None, 256], ids=["the limit as it is", "256 open files allowed"])
def test_memory_stays_below_a_gibibyte_for_any_number_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_files: int | None
) -> None:
    known = make_set(tmp_path, (40,))
    first = known.manifest.shards[0]
    records = [first.model_copy(update={"name": f"shards/many-{i:06d}.tar"}) for i in range(SHARDS)]
    for record in records:
        (tmp_path / record.name).hardlink_to(tmp_path / first.name)
    manifest = make_manifest(records)
    (tmp_path / "manifest.json").write_bytes(manifest.to_json())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
    numbers = ["1024", "0", "1", "0", "60", "-1"]
    command = [sys.executable, str(WORKER), str(tmp_path), "train", *numbers, str(tmp_path / "notes")]
    if open_files is not None:
        command = ["/bin/sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
    subprocess.run(command, check=True, timeout=300)
    *steps, peak_bytes = (tmp_path / "notes").read_text().splitlines()
    assert len(steps) == SHARDS * 40 // 1024 - 60
    for pair in steps[0].split()[:50]:
        number, key = pair.split(":")
        assert known.keys[int(number) % 40] == key
    assert int(peak_bytes) < 1 << 30
