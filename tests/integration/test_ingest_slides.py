"""Synthetic slides into shards over a real Ray: what is taken, that it repeats, that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely

from sentinode.cohort.synthetic.config import SynthesizeConfig
from sentinode.cohort.synthetic.write import synthesize
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.sampling import SamplingConfig
from sentinode.data.ingest.verify import verify_manifest
from sentinode.data.places import parse_reference
from sentinode.distributed.cluster import ray_session
from sentinode.distributed.ingest import ingest
from sentinode.errors import SourceError
from sentinode.schema import Split
from sentinode.slides.annotations import Region
from sentinode.slides.corrections import SUFFIX, CorrectedSlide, Correction, Corrections, Mark
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


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two patients of Camelyon17, one with micro-metastases, one with isolated tumour cells, in two centres."""
    folder = tmp_path_factory.mktemp("slides")
    size = {"width_px": 1000, "height_px": 1000, "um_px": 0.972}
    synthesize(SynthesizeConfig(out=str(folder), layout="camelyon17", patients=2, **size), lambda *_: None)
    return folder


def config(slides: Path | str, out: Path, **changes: object) -> IngestConfig:
    settings = {"dataset": "c17", "valid_fraction": 0.5, "test_fraction": 0.0, "shard_samples": 64}
    sampling = SamplingConfig(patches_per_slide=40)
    return IngestConfig(
        source=str(slides), out=str(out), kind="slides", slides=sampling, **(settings | changes)
    )


def checksums(folder: Path) -> dict[str, str]:
    paths = [folder / "manifest.json", *sorted((folder / "shards").iterdir())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


class Steps:
    """A progress that remembers, and may stop the run."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.seen: list[tuple[str, int, int]] = []
        self._stop_at = stop_at

    def __call__(self, step: str, done: int, total: int) -> None:
        self.seen.append((step, done, total))
        if (step, done) == self._stop_at:
            raise KeyboardInterrupt


def test_slide_patient_centre_and_place_stand_beside_every_patch(slides: Path, tmp_path: Path) -> None:
    manifest = ingest(config(slides, tmp_path / "out"), Steps())
    assert manifest.source == "slides"
    assert manifest.slides_known
    assert verify_manifest(str(tmp_path / "out"), lambda *_: None) == []
    total = [sum(summary.class_counts[c] for summary in manifest.splits.values()) for c in (0, 1)]
    assert total[0] == total[1] > 50
    patients: dict[str, set[str]] = {}
    for shard in manifest.shards:
        with tarfile.open(tmp_path / "out" / shard.name) as tar:
            for member in (m for m in tar if m.name.endswith(".json")):
                facts = json.load(tar.extractfile(member))  # type: ignore[arg-type]
                key, (x, y), side = parse_reference(facts["source"])
                assert (slides / key).name == f"{facts['slide']}.tif"
                assert facts["slide"].startswith(facts["patient"])
                assert facts["centre"] == str(int(facts["patient"][-3:]) // 20)
                assert side == 96
                assert max(x, y) <= 1000 - 96
                patients.setdefault(facts["patient"], set()).add(shard.split)
    assert {len(splits) for splits in patients.values()} == {1}, "no patient in two splits"


def test_the_same_slides_give_the_same_bytes_and_a_stopped_run_goes_on(slides: Path, tmp_path: Path) -> None:
    ingest(config(slides, tmp_path / "whole"), Steps())
    for stop_at in (("slides", 4), ("scan", 0)):
        with pytest.raises(KeyboardInterrupt):
            ingest(config(slides, tmp_path / "stopped"), Steps(stop_at))
    again = Steps()
    ingest(config(slides, tmp_path / "stopped"), again)
    assert next(seen for seen in again.seen if seen[0] == "slides") == ("slides", 10, 10)
    assert checksums(tmp_path / "whole") == checksums(tmp_path / "stopped")
    idle = Steps()
    ingest(config(slides, tmp_path / "stopped"), idle)
    assert not [seen for seen in idle.seen if seen[0] in ("scan", "write")]


def test_slides_in_a_bucket_are_read_where_they_lie(slides: Path, tmp_path: Path, bucket: str) -> None:
    store = open_store(f"{bucket}/camelyon17")
    for path in slides.rglob("*"):
        if path.is_file():
            store.upload(path, path.relative_to(slides).as_posix())
    ingest(config(slides, tmp_path / "local"), Steps())
    ingest(config(store.url, tmp_path / "stored"), Steps())
    assert checksums(tmp_path / "local") == checksums(tmp_path / "stored")


def test_corrections_become_training_patches(slides: Path, tmp_path: Path) -> None:
    slide = next(slides.rglob("patient_000_node_0.tif"))
    marks = [
        Correction.of(Region(shapely.box(300, 300, 600, 600)), Mark(action="reject")),
        Correction.of(Region(shapely.box(300, 650, 500, 800)), Mark()),
    ]
    found = Corrections(CorrectedSlide(slide=slide.stem, slide_url=str(slide)), tuple(marks))
    (tmp_path / "corrections").mkdir()
    (tmp_path / "corrections" / f"{slide.stem}{SUFFIX}").write_bytes(found.to_geojson())
    settings = IngestConfig(corrections=str(tmp_path / "corrections"), out=str(tmp_path / "out"))
    manifest = ingest(settings, Steps())
    assert list(manifest.splits) == [Split.TRAIN]
    assert min(manifest.splits[Split.TRAIN].class_counts) > 20
    assert ingest(settings, Steps()) == manifest


def test_a_broken_slide_is_named(slides: Path, tmp_path: Path) -> None:
    broken = tmp_path / "slides"
    broken.mkdir()
    (broken / "normal_501.tif").write_bytes(b"no slide at all")
    with pytest.raises(SourceError, match=r"normal_501: .*starts with"):
        ingest(config(broken, tmp_path / "out"), Steps())
    assert not (tmp_path / "out" / "manifest.json").exists()
