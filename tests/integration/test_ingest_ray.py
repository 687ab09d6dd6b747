"""Ingest over a real two-CPU Ray: whole runs, kills, repeats, errors, object stores."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ingest_parts import noise_patches, write_classes, write_pcam, write_wilds
from PIL import Image

from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.verify import verify_manifest
from sentinode.data.manifest import load_manifest
from sentinode.data.synthetic import SyntheticConfig
from sentinode.distributed import ingest as ingest_module
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.ingest import ingest
from sentinode.errors import BadImagesError, ConfigError, LabelConflictError, SourceError
from sentinode.schema import Encoding, Split
from sentinode.storage import open_store
from sentinode.storage.embedded import EmbeddedStore


@pytest.fixture(scope="module", autouse=True)
def bucket() -> Iterator[str]:
    """A local Ray whose workers reach an embedded object store; the store's URL."""
    with pytest.MonkeyPatch.context() as environment, EmbeddedStore() as store:
        for name, value in store.environment.items():
            environment.setenv(name, value)
        with ray_session("local", num_cpus=2):
            yield store.url


class Steps:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def __call__(self, step: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        self.seen.append((step, done, total))


def files(folder: Path) -> dict[str, str]:
    """Relative path to SHA-256 of everything that a reader sees."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def balanced(count: int) -> list[int]:
    return [i % 2 for i in range(count)]


def test_real_kaggle_folder(real_data: Path, tmp_path: Path) -> None:
    steps = Steps()
    config = IngestConfig(source=str(real_data / "kaggle"), out=str(tmp_path / "out"), shard_samples=500)
    manifest = ingest(config, steps)
    assert manifest.source == "kaggle"
    assert sum(s.samples for s in manifest.splits.values()) == 2520
    assert manifest.splits[Split.UNLABELLED].samples == 120
    assert manifest.warnings == ()
    assert steps.seen[-1] == ("write", 2520, 2520)
    assert {step for step, _, _ in steps.seen} == {"list", "scan", "write"}
    assert verify_manifest(config.out) == []
    assert set(files(tmp_path / "out")) == {"manifest.json", *(s.name for s in manifest.shards)}
    assert load_manifest(config.out)[0] == manifest


def test_h5_and_gz_give_the_same_patches_and_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = noise_patches(1200)
    write_pcam(
        tmp_path / "plain", "train", patches, balanced(1200), compression="gzip", chunks=(7, 96, 96, 3)
    )
    (tmp_path / "packed").mkdir()
    for path in (tmp_path / "plain").iterdir():
        (tmp_path / "packed" / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    monkeypatch.setattr(ingest_module, "_REMEMBER_BYTES", 0)  # so that the second pass reads again
    before = set(Path(tempfile.gettempdir()).glob("sentinode-unpacked-*/*.raw"))
    found = [
        ingest(
            IngestConfig(source=str(tmp_path / name), out=str(tmp_path / f"{name}-out"), dataset="pcam"),
            Steps(),
        )
        for name in ("plain", "packed")
    ]
    assert found[0].splits == found[1].splits
    for name in ("plain", "packed"):
        assert verify_manifest(str(tmp_path / f"{name}-out")) == []
    packed = IngestConfig(source=str(tmp_path / "packed"), out=str(tmp_path / "packed-out"), dataset="pcam")
    assert ingest(packed, Steps()) == found[1]
    after = set(Path(tempfile.gettempdir()).glob("sentinode-unpacked-*/*.raw"))
    assert after <= before, "unpacked patches are removed, also where nothing was to be done"


def test_repeating_is_quick_and_other_settings_need_overwrite(tmp_path: Path) -> None:
    write_classes(tmp_path / "in", noise_patches(40), balanced(40))
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"))
    first = ingest(config, Steps())
    before = files(tmp_path / "out")
    steps = Steps()
    assert ingest(config, steps) == first
    assert {step for step, _, _ in steps.seen} == {"list"}

    other = config.model_copy(update={"split_seed": 9})
    with pytest.raises(ConfigError, match="--overwrite"):
        ingest(other, Steps())
    assert files(tmp_path / "out") == before
    ingest(other.model_copy(update={"overwrite": True}), Steps())
    after = files(tmp_path / "out")
    assert not set(before) & set(after) - {"manifest.json"}, "the old shards are gone"
    ingest(config.model_copy(update={"overwrite": True}), Steps())
    assert files(tmp_path / "out") == before, "same input and settings, same bytes"


def test_bytes_do_not_depend_on_what_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(tmp_path / "in", noise_patches(700), balanced(700))
    settings = {"source": str(tmp_path / "in"), "dataset": "set", "shard_samples": 100}
    ingest(IngestConfig(out=str(tmp_path / "a"), **settings), Steps())
    monkeypatch.setattr(ingest_module, "_REMEMBER_BYTES", 0)
    ingest(IngestConfig(out=str(tmp_path / "b"), **settings), Steps())
    assert files(tmp_path / "a") == files(tmp_path / "b")


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_ingests_into_one_place_the_first_stands(bucket: str, tmp_path: Path, overwrite: bool) -> None:
    write_classes(tmp_path / "in", noise_patches(40), balanced(40))
    out = f"{bucket}/race-{overwrite}"
    config = IngestConfig(source=str(tmp_path / "in"), out=out, overwrite=overwrite)
    if overwrite:
        ingest(config, Steps())
    made = []

    def overtaken(step: str, done: int, total: int) -> None:
        if (step, done, made) == ("write", total, []):
            made.append(ingest(config.model_copy(update={"split_seed": 5}), Steps()))

    with pytest.raises(ConfigError, match="another ingest has meanwhile written"):
        ingest(config.model_copy(update={"split_seed": 1}), overtaken)
    assert load_manifest(out)[0] == made[0]
    assert verify_manifest(out) == []


def test_two_ingests_that_make_the_same_both_succeed(tmp_path: Path) -> None:
    write_classes(tmp_path / "in", noise_patches(40), balanced(40))
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"))
    made = []

    def overtaken(step: str, done: int, total: int) -> None:
        if (step, done, made) == ("write", total, []):
            made.append(ingest(config, Steps()))

    assert ingest(config, overtaken) == made[0]
    assert verify_manifest(config.out) == []


KILLED = """
import os, signal, sys
from sentinode.data.ingest.config import IngestConfig
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.ingest import ingest

def progress(step, done, total):
    if (step, done >= int(sys.argv[4])) == (sys.argv[3], True):
        print("reached", flush=True)
        signal.pause()

with ray_session("local", num_cpus=2):
    ingest(IngestConfig(source=sys.argv[1], out=sys.argv[2], dataset="set", shard_samples=200), progress)
"""


@pytest.mark.parametrize(("step", "done"), [("scan", 1000), ("write", 600)])
def test_killed_run_resumes_without_redoing(tmp_path: Path, step: str, done: int) -> None:
    write_classes(tmp_path / "in", noise_patches(2600), balanced(2600))
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(out), step, str(done)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, env=environment, start_new_session=True, bufsize=0
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"reached\n"
        os.killpg(run.pid, signal.SIGKILL)
    time.sleep(1)  # its last tasks may still be writing
    assert not (out / "manifest.json").exists()
    finished = [path.stem for path in (out / "_work").rglob("set-*.json")]
    written = {name: (out / "shards" / f"{name}.tar").stat().st_mtime_ns for name in finished}
    assert bool(written) == (step == "write")

    steps = Steps()
    config = IngestConfig(source=str(tmp_path / "in"), out=str(out), dataset="set", shard_samples=200)
    manifest = ingest(config, steps)
    assert next(d for s, d, _ in steps.seen if s == step) >= done, "it goes on where it was killed"
    for name, modified in written.items():
        assert (out / "shards" / f"{name}.tar").stat().st_mtime_ns == modified, "finished shards stay"
    assert verify_manifest(str(out)) == []
    whole = ingest(config.model_copy(update={"out": str(tmp_path / "whole")}), Steps())
    assert whole == manifest
    assert files(out) == files(tmp_path / "whole")


def test_bad_images_cross_process_borders(tmp_path: Path) -> None:
    paths = write_classes(tmp_path / "in", noise_patches(600), balanced(600))
    paths[3].write_bytes(paths[3].read_bytes()[:500])
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"))
    with pytest.raises(BadImagesError, match=r"1 images [\s\S]*1/0003.png"):
        ingest(config, Steps())
    assert not (tmp_path / "out" / "manifest.json").exists()
    steps = Steps()
    assert ingest(config.model_copy(update={"max_bad": 1}), steps).dropped.bad == 1
    assert next(d for s, d, _ in steps.seen if s == "scan") == 88, "what was whole is not scanned again"


def test_a_mended_image_is_taken(tmp_path: Path) -> None:
    paths = write_classes(tmp_path / "in", noise_patches(40), balanced(40))
    whole = paths[3].read_bytes()
    paths[3].write_bytes(bytes(len(whole)))
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"), max_bad=1)
    with pytest.raises(BadImagesError):
        ingest(config.model_copy(update={"max_bad": 0}), Steps())
    paths[3].write_bytes(whole)
    manifest = ingest(config, Steps())
    assert (manifest.dropped.bad, sum(s.samples for s in manifest.splits.values())) == (0, 40)


def test_a_contradicting_image_is_replaced_in_its_place(tmp_path: Path) -> None:
    paths = write_classes(tmp_path / "in", noise_patches(40), balanced(40))
    pixels = [path.with_suffix(".bmp") for path in paths[2:4]]  # without compression: all of one size
    for path, patch in zip(pixels, noise_patches(2, seed=1), strict=True):
        Image.fromarray(patch).save(path)
    other = pixels[1].read_bytes()
    pixels[1].write_bytes(pixels[0].read_bytes())
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"))
    with pytest.raises(LabelConflictError):
        ingest(config, Steps())
    pixels[1].write_bytes(other)
    assert sum(s.samples for s in ingest(config, Steps()).splits.values()) == 42


def test_overwrite_begins_anew(tmp_path: Path) -> None:
    write_classes(tmp_path / "in", noise_patches(40), balanced(40))
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"), overwrite=True)

    def killed(step: str, done: int, total: int) -> None:
        if (step, done) == ("write", 0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(config, killed)
    steps = Steps()
    ingest(config, steps)
    assert ("scan", 0, 40) in steps.seen


def test_typed_error_of_a_task_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_module, "_REMEMBER_BYTES", 0)
    paths = write_classes(tmp_path / "in", noise_patches(40), balanced(40))
    config = IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out"))

    def vandal(step: str, done: int, total: int) -> None:
        if (step, done) == ("write", 0):
            for path in paths:
                path.write_bytes(b"")

    with pytest.raises(SourceError, match="has changed since it was scanned") as caught:
        ingest(config, vandal)
    assert type(caught.value) is SourceError
    assert not list((tmp_path / "out" / "_work").rglob("*.json")), "a repeat scans again"


def test_synthetic_patches_into_an_object_store(bucket: str) -> None:
    out = f"{bucket}/synthetic"
    config = IngestConfig(
        source="synthetic", out=out, synthetic=SyntheticConfig(patches=120, slides=12), encoding=Encoding.WEBP
    )
    manifest = ingest(config, Steps())
    assert manifest.slides_known
    assert sum(s.samples for s in manifest.splits.values()) == 120
    assert verify_manifest(out) == []
    keys = {info.key for info in open_store(out).list()}
    assert keys == {"manifest.json", *(s.name for s in manifest.shards)}


def test_wilds_hospitals_become_splits(tmp_path: Path) -> None:
    write_wilds(tmp_path / "camelyon17_v1.0", noise_patches(60))
    config = IngestConfig(source=str(tmp_path / "camelyon17_v1.0"), out=str(tmp_path / "out"))
    manifest = ingest(config, Steps())
    assert (manifest.source, manifest.dataset, manifest.slides_known) == ("wilds", "camelyon17-v1-0", True)
    assert {split: (s.samples, s.slides, s.origin) for split, s in manifest.splits.items()} == {
        Split.TRAIN: (40, 4, "source"), Split.VALID: (10, 1, "source"), Split.TEST: (10, 1, "source")
    }  # fmt: skip
    assert "8 patches are WILDS's id_val" in manifest.warnings[0]
    assert verify_manifest(config.out) == []


def test_manifest_holds_no_path_and_no_time(tmp_path: Path) -> None:
    write_classes(tmp_path / "in", noise_patches(20), balanced(20))
    ingest(IngestConfig(source=str(tmp_path / "in"), out=str(tmp_path / "out")), Steps())
    text = (tmp_path / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert time.strftime("%Y-") not in text
    assert json.loads(text)["recipe_digest"]
