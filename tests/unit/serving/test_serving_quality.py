"""The gate before the model, drift, explanations and the audit log, on drawn and on real patches."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from serving_parts import make_card, random_patches, sealed_registry

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.scores import ScoreReference
from sentinode.bundle.stain import StainStatistics
from sentinode.errors import ConfigError, RequestError
from sentinode.serving.audit import AuditLog
from sentinode.serving.drift import DriftWindow
from sentinode.serving.engine import Engine
from sentinode.serving.explain import Occlusion, occlusion
from sentinode.serving.quality import Flag, Quality, QualityGate, QualityLimits, texture

Images = NDArray[np.uint8]


@pytest.fixture(scope="module")
def real_patches(real_data: Path) -> Images:
    with (real_data / "kaggle" / "train_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    files = [real_data / "kaggle" / "train" / f"{row['id']}.tif" for row in rows[:600]]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


@pytest.fixture(scope="module")
def gate(real_patches: Images) -> QualityGate:
    return QualityGate(make_card(stain=StainStatistics.of(real_patches[:400])))


def flagged(gate: QualityGate, images: Images, flag: Flag) -> float:
    quality = gate.check(np.ascontiguousarray(images))
    return float(np.mean([flag in quality.flags(index) for index in range(len(images))]))


def filtered(images: Images, radius_px: float) -> Images:
    return np.stack(
        [np.asarray(Image.fromarray(i).filter(ImageFilter.GaussianBlur(radius_px))) for i in images]
    )


def test_few_real_patches_are_flagged(gate: QualityGate, real_patches: Images) -> None:
    unseen = gate.check(real_patches[400:])
    assert (unseen.bits_B > 0).mean() < 0.06


@pytest.mark.parametrize("radius_px", [1.0, 1.5, 3.0])
def test_blurred_patches_are_out_of_focus(gate: QualityGate, real_patches: Images, radius_px: float) -> None:
    assert flagged(gate, filtered(real_patches[400:500], radius_px), Flag.OUT_OF_FOCUS) > 0.95


def test_other_stains_are_unfamiliar(gate: QualityGate, real_patches: Images) -> None:
    some = real_patches[400:500]
    for other in (some[..., [1, 0, 2]], 255 - some):
        assert flagged(gate, other, Flag.UNFAMILIAR_STAIN) > 0.9


def test_blank_is_said_once_and_nothing_else() -> None:
    gate = QualityGate(make_card(stain=StainStatistics.of(random_patches(20))))
    images = np.stack([np.full((96, 96, 3), grey, np.uint8) for grey in (0, 128, 245, 255)])
    quality = gate.check(images)
    assert [quality.flags(index) for index in range(4)] == [(Flag.BLANK,)] * 4


def test_each_patch_is_judged_alone() -> None:
    gate = QualityGate(make_card(stain=StainStatistics.of(random_patches(50))))
    images = np.concatenate([random_patches(70, seed=3), filtered(random_patches(5, seed=4), 6)])
    together = gate.check(images)
    alone = [gate.check(image[None]) for image in images]
    assert together.bits_B.tolist() == [int(one.bits_B[0]) for one in alone]
    assert together.stain_distance_B == pytest.approx([one.stain_distance_B[0] for one in alone], rel=1e-4)


def test_texture_of_stripes_by_hand() -> None:
    stripes = np.zeros((1, 96, 96, 3), np.uint8)
    stripes[:, :, ::2] = 10  # columns 10, 0, 10, 0: second difference 20, pixels 4 apart are equal
    contrast_B, sharpness_B = texture(stripes)
    assert contrast_B[0] == 0
    assert sharpness_B[0] > 1e6
    ramp = np.tile(np.arange(96, dtype=np.uint8)[:, None, None], (1, 1, 96, 3))
    contrast_B, sharpness_B = texture(ramp)
    assert contrast_B[0] == pytest.approx(math.sqrt(16 / 2))
    assert sharpness_B[0] == 0


def test_cards_without_stain_and_switched_off_gates() -> None:
    blank = np.zeros((1, 96, 96, 3), np.uint8)
    old = QualityGate(make_card()).check(random_patches(1))
    assert np.isnan(old.stain_distance_B).all()
    off = QualityGate(make_card(), QualityLimits(enabled=False))
    assert off.check(blank).flags(0) == ()
    assert off.check_scale("7") == ()


def test_empty_batch_is_no_fault() -> None:
    gate = QualityGate(make_card(stain=StainStatistics.of(random_patches(50))))
    assert len(gate.check(np.zeros((0, 96, 96, 3), np.uint8)).bits_B) == 0


def test_scale_is_compared_with_the_cards() -> None:
    gate = QualityGate(make_card(mpp_um_px=1.0))
    assert gate.check_scale("") == ()
    assert gate.check_scale("1.2") == gate.check_scale("0.8") == ()
    assert gate.check_scale("0.25") == gate.check_scale("1.3") == (Flag.WRONG_SCALE,)
    for bad in ("nan", "inf", "-1", "0", "1e999", "µ", "1" * 100_000):
        with pytest.raises(RequestError, match="mpp_um_px"):
            gate.check_scale(bad)


def test_drift_sees_a_shift_of_scores_and_abstentions() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random(4000), rng.integers(0, 2, 4000)
    window = DriftWindow(ScoreReference.of(scores, labels))
    assert math.isnan(window.score_psi)
    assert math.isnan(window.abstention_rate)
    for start in range(0, 2000, 50):
        quality = Quality(np.zeros(50, np.uint8), np.full(50, 2.5))
        window.observe(scores[start : start + 50], quality, np.arange(50) < 5)
    assert window.score_psi < 0.05
    assert window.abstention_rate == pytest.approx(0.1)
    assert window.stain_distance == pytest.approx(2.5)
    for _ in range(300):
        window.observe(
            np.full(50, 0.99), Quality(np.zeros(50, np.uint8), np.full(50, np.nan)), np.zeros(50, np.bool_)
        )
    assert window.score_psi > 1
    assert window.abstention_rate == 0, "what is long ago is forgotten"


def test_drift_of_scores_is_told_at_the_stated_prevalence() -> None:
    rng = np.random.default_rng(0)

    def scores(negatives: int, positives: int) -> NDArray[np.float64]:
        logits = np.r_[rng.normal(-3, 2, negatives), rng.normal(3, 2, positives)]
        return np.asarray(1 / (1 + np.exp(-logits)))

    reference = ScoreReference.of(scores(20_000, 20_000), np.r_[np.zeros(20_000), np.ones(20_000)])
    served = scores(4_410, 90)
    told = {}
    for prevalence in (None, 0.02):
        window = DriftWindow(reference, prevalence)
        window.observe(
            served, Quality(np.zeros(4_500, np.uint8), np.full(4_500, np.nan)), np.zeros(4_500, np.bool_)
        )
        told[prevalence] = window.score_psi
    assert told[None] > 1
    assert told[0.02] < 0.01


def test_occlusion_finds_what_the_model_looks_at(tmp_path: Path) -> None:
    store, digest, _ = sealed_registry(tmp_path)
    engine = Engine(open_bundle(store, digest, tmp_path / "cache"))

    class Looks(Engine):
        def predict(self, images_BHWC):  # type: ignore[no-untyped-def]
            scores = engine.predict(images_BHWC)
            dark = (255.0 - images_BHWC[:, 64:80, 16:32].mean(axis=(1, 2, 3))).astype(np.float32)
            return type(scores)(dark, 1 / (1 + np.exp(-dark)))

    patch = np.full((96, 96, 3), 200, np.uint8)
    patch[64:80, 16:32] = 50
    found = occlusion(Looks.__new__(Looks), patch)
    peak = np.unravel_index(found.drop_HW.argmax(), found.drop_HW.shape)
    assert 64 <= peak[0] < 80
    assert 16 <= peak[1] < 32
    picture = np.asarray(Image.open(io.BytesIO(found.png())))
    assert picture.shape == (96, 96, 4)
    assert picture[72, 24].tolist()[:3] == [255, 214, 0]
    assert picture[72, 24, 3] > 180
    assert picture[8, 80, 3] < 5
    assert occlusion(engine, random_patches(1)[0]).drop_HW.shape == (96, 96)


def test_map_of_nothing_is_pale() -> None:
    picture = np.asarray(Image.open(io.BytesIO(Occlusion(np.full((96, 96), 1e-4, np.float32), 0, 0.5).png())))
    assert picture[..., 3].max() < 3


def test_audit_log_has_one_json_line_a_request(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.jsonl"
    with AuditLog(path) as log:
        for number in range(1000):
            log.record(f"r{number}", 'key:1:"a\n', "predict", "d" * 64, ["tumour", "abstain"], ["blank"])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["request_id"] for line in lines] == [f"r{number}" for number in range(1000)]
    assert lines[0]["caller"] == 'key:1:"a\n'
    assert lines[0]["verdicts"] == ["tumour", "abstain"]
    assert set(lines[0]) == {
        "time",
        "request_id",
        "caller",
        "action",
        "bundle",
        "patches",
        "verdicts",
        "flags",
    }
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="audit log"):
        AuditLog(tmp_path)
