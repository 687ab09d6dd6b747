"""Augmentation against plain per-sample references, and its randomness."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sentinode.data.augment import AugmentConfig, adjust, augment, move
from sentinode.data.jpeg_loss import jpeg_loss
from sentinode.data.permutation import key_of
from sentinode.data.random_bits import uniform
from sentinode.data.stain import RUIFROK_HED, jitter_stains
from sentinode.errors import ConfigError

OFF = AugmentConfig(dihedral=False, shift_px=0, brightness=0, contrast=0, hed=0, jpeg_loss=0)
ALL = AugmentConfig(dihedral=True, shift_px=3, brightness=0.1, contrast=0.2, hed=0.1, jpeg_loss=40)


@pytest.fixture
def images() -> torch.Tensor:
    """float32 [9, 3, 24, 24]: smooth, coloured, with sharp edges."""
    rng = np.random.default_rng(0)
    coarse = rng.random((9, 3, 6, 6), dtype=np.float32).repeat(4, axis=2).repeat(4, axis=3)
    return torch.from_numpy(coarse * 0.9 + rng.random((9, 3, 24, 24), dtype=np.float32) * 0.1)


def each(reference, images: torch.Tensor, *columns: torch.Tensor) -> np.ndarray:
    """A per-sample numpy reference over a batch."""
    rows = zip(images.double().numpy(), *(c.double().numpy() for c in columns), strict=True)
    return np.stack([reference(*row) for row in rows])


def test_dihedral_is_the_eight_symmetries(images: torch.Tensor) -> None:
    def reference(image: np.ndarray, code: float) -> np.ndarray:
        if int(code) & 4:
            image = image.transpose(0, 2, 1)
        if int(code) & 2:
            image = image[:, ::-1]
        return image[:, :, ::-1] if int(code) & 1 else image

    code, still = torch.arange(9) % 8, torch.zeros(2, 9, dtype=torch.int64)
    assert (move(images, code, *still).numpy() == each(reference, images, code).astype(np.float32)).all()
    one = images[:1].expand(8, -1, -1, -1)
    assert len({t.numpy().tobytes() for t in move(one, torch.arange(8), *still[:, :8])}) == 8


def test_shift_mirrors_at_the_edges(images: torch.Tensor) -> None:
    def reference(image: np.ndarray, down: float, right: float) -> np.ndarray:
        padded = np.pad(image, ((0, 0), (8, 8), (8, 8)), mode="reflect")
        top, left = 8 - int(down), 8 - int(right)
        return padded[:, top : top + 24, left : left + 24]

    down, right = torch.tensor([0, 1, -1, 8, -8, 3, 0, -5, 2]), torch.tensor([0, 1, 2, -8, 8, 0, -3, -5, 7])
    assert np.allclose(
        move(images, torch.zeros_like(down), down, right), each(reference, images, down, right), atol=0
    )


def test_images_are_turned_first_and_shifted_then(images: torch.Tensor) -> None:
    none = torch.zeros(9, dtype=torch.int64)
    code, down, right = torch.arange(9) % 8, torch.arange(9) - 4, (torch.arange(9) * 5) % 7 - 3
    in_turn = move(move(images, code, none, none), none, down, right)
    assert torch.equal(move(images, code, down, right), in_turn)


def test_adjust_scales_about_each_images_mean(images: torch.Tensor) -> None:
    def reference(image: np.ndarray, brightness: float, contrast: float) -> np.ndarray:
        return np.clip((image - image.mean()) * contrast + image.mean() + brightness, 0, 1)

    brightness, contrast = torch.linspace(-0.3, 0.3, 9), torch.linspace(0.5, 1.6, 9)
    expected = each(reference, images, brightness, contrast)
    assert np.allclose(adjust(images, brightness, contrast), expected, atol=2e-6)


def test_stain_jitter_unmixes_changes_and_mixes(images: torch.Tensor) -> None:
    mixing = np.array(RUIFROK_HED)

    def reference(image: np.ndarray, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
        density = -np.log(np.maximum(image, 1 / 255)).reshape(3, -1).T
        stains = density @ np.linalg.inv(mixing)
        density = (stains * gain + offset) @ mixing
        return np.clip(np.exp(-density), 0, 1).T.reshape(image.shape)

    rng = np.random.default_rng(1)
    gain = torch.from_numpy(1 + rng.uniform(-0.2, 0.2, (9, 3)).astype(np.float32))
    offset = torch.from_numpy(rng.uniform(-0.1, 0.1, (9, 3)).astype(np.float32))
    assert np.allclose(jitter_stains(images, gain, offset), each(reference, images, gain, offset), atol=1e-5)
    same = jitter_stains(images, torch.ones(9, 3), torch.zeros(9, 3))
    assert np.allclose(same, images.clamp(min=1 / 255), atol=1e-5)


def test_jpeg_loss_equals_a_plain_reference(images: torch.Tensor) -> None:
    cosines = np.array(
        [
            [math.sqrt((2 if u else 1) / 8) * math.cos((2 * i + 1) * u * math.pi / 16) for i in range(8)]
            for u in range(8)
        ]
    )

    def reference(image: np.ndarray, quality: float) -> np.ndarray:
        tables = [np.array(t, float).reshape(8, 8) for t in quantisation_of(int(quality))]
        r, g, b = image * 255
        y = 0.299 * r + 0.587 * g + 0.114 * b
        planes = [y - 128, (b - y) / 1.772, (r - y) / 1.402]
        back = []
        for plane, table in zip(planes, (tables[0], tables[1], tables[1]), strict=True):
            out = np.empty_like(plane)
            for i in range(0, plane.shape[0], 8):
                for j in range(0, plane.shape[1], 8):
                    spectrum = cosines @ plane[i : i + 8, j : j + 8] @ cosines.T
                    spectrum = np.round(spectrum / table) * table
                    out[i : i + 8, j : j + 8] = cosines.T @ spectrum @ cosines
            back.append(out)
        y, cb, cr = back[0] + 128, back[1], back[2]
        green = y - 0.344136286 * cb - 0.714136286 * cr
        return np.clip(np.stack([y + 1.402 * cr, green, y + 1.772 * cb]) / 255, 0, 1)

    quality = torch.tensor([10, 20, 35, 49, 50, 60, 75, 90, 100])
    difference = np.abs(jpeg_loss(images, quality).double().numpy() - each(reference, images, quality))
    # A coefficient on the edge between two steps may round either way in float32.
    assert np.quantile(difference, 0.99) < 1e-4


def test_jpeg_loss_is_close_to_a_real_encoder() -> None:
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8).repeat(5, axis=0).repeat(5, axis=1)
    for quality in (20, 60, 90):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "jpeg", quality=quality, subsampling=0)
        encoded = np.asarray(Image.open(out)).astype(float)
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()[None] / 255
        ours = jpeg_loss(image, torch.tensor([quality]))[0].permute(1, 2, 0).numpy() * 255
        assert np.abs(ours - encoded).mean() < 0.15 * np.abs(encoded - pixels).mean() + 0.7


def quantisation_of(quality: int) -> tuple[list[int], list[int]]:
    """Luminance and chrominance tables that Pillow's encoder uses, in natural order."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "jpeg", quality=quality)
    tables = Image.open(out).quantization  # type: ignore[attr-defined]
    return tables[0], tables[1]


def test_everything_off_changes_nothing(images: torch.Tensor) -> None:
    assert torch.equal(augment(images, OFF, 0, 0, torch.arange(9)), images)


def test_the_input_is_left_as_it_was(images: torch.Tensor) -> None:
    before = images.clone()
    augment(images, ALL, 0, 0, torch.arange(9))
    assert torch.equal(images, before)


@pytest.mark.parametrize("strength", ["dihedral", "shift_px", "brightness", "contrast", "hed", "jpeg_loss"])
def test_each_strength_works_alone_and_stays_in_range(images: torch.Tensor, strength: str) -> None:
    config = OFF.model_copy(update={strength: getattr(ALL, strength)})
    changed = augment(images, config, 0, 0, torch.arange(9))
    assert not torch.equal(changed, images)
    assert changed.dtype == torch.float32
    assert changed.shape == images.shape
    assert 0 <= changed.min() <= changed.max() <= 1


def test_the_change_depends_on_sample_seed_and_epoch_not_on_the_batch(images: torch.Tensor) -> None:
    ids = torch.tensor([5, 900, 7, 2**40, 1, 0, 3, 44, 6])
    whole = augment(images, ALL, 3, 4, ids)
    for start, stop in ((0, 4), (4, 5), (5, 9)):
        part = augment(images[start:stop], ALL, 3, 4, ids[start:stop])
        assert torch.allclose(part, whole[start:stop], atol=1e-6)
    order = torch.randperm(9)
    assert torch.allclose(augment(images[order], ALL, 3, 4, ids[order]), whole[order], atol=1e-6)
    assert not torch.allclose(augment(images, ALL, 3, 5, ids), whole, atol=1e-2)
    assert not torch.allclose(augment(images, ALL, 2, 4, ids), whole, atol=1e-2)


def test_large_batches_are_changed_as_small_ones_are() -> None:
    images = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(100, 150)

    def differ(config: AugmentConfig) -> torch.Tensor:
        whole = augment(images, config, 0, 0, ids)
        one_by_one = [augment(images[i : i + 1], config, 0, 0, ids[i : i + 1]) for i in range(50)]
        return (whole - torch.cat(one_by_one)).abs() > 1e-5

    assert not differ(ALL.model_copy(update={"jpeg_loss": 0})).any()
    # Sums in another order may round a coefficient of a JPEG block to its neighbour: of 600 blocks, two at most.
    assert differ(ALL).float().mean() < 0.011


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=5), st.integers(0, 9), st.integers(0, 9))
def test_random_bits_equal_plain_python_integers(ids: list[int], seed: int, epoch: int) -> None:
    word = (1 << 64) - 1

    def mix(value: int) -> int:
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & word
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB & word
        return value ^ (value >> 31)

    expected = [
        [
            (mix((mix((i + key_of("s", seed, epoch)) & word) + d * 0x9E3779B97F4A7C15) & word) >> 40) / 2**24
            for d in (1, 2, 3)
        ]
        for i in ids
    ]
    assert uniform(torch.tensor(ids), 3, "s", seed, epoch).tolist() == expected


def test_random_numbers_are_uniform_and_independent() -> None:
    draws = uniform(torch.arange(20_000), 8, "x", 0)
    assert torch.allclose(draws.mean(dim=0), torch.full((8,), 0.5), atol=0.01)
    assert torch.allclose(draws.var(dim=0), torch.full((8,), 1 / 12), atol=0.003)
    assert (torch.corrcoef(draws.T) - torch.eye(8)).abs().max() < 0.03
    assert torch.corrcoef(torch.stack([draws[1:, 0], draws[:-1, 0]]))[0, 1].abs() < 0.03
    codes = torch.bincount((draws[:, 0] * 8).long(), minlength=8)
    assert 2300 < codes.min() <= codes.max() < 2700


def test_wrong_images_and_strengths_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="square"):
        augment(images[:, :, :20], ALL, 0, 0, torch.arange(9))
    with pytest.raises(ValueError, match="less than or equal to 8"):
        AugmentConfig(shift_px=9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_makes_the_same_changes(images: torch.Tensor) -> None:
    config = ALL.model_copy(update={"jpeg_loss": 0})
    here = augment(images, config, 0, 0, torch.arange(9))
    there = augment(images.cuda(), config, 0, 0, torch.arange(9))
    assert torch.allclose(there.cpu(), here, atol=1e-4)
