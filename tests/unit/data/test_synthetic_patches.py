"""The synthetic data set: determinism, PCam's label rule, balance, slides and centres."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

import sentinode
from sentinode.data.synthetic import SyntheticConfig, SyntheticPatch, _grow, slide_of, synthetic_patches
from sentinode.errors import ConfigError
from sentinode.schema import CENTRE_PX, PATCH_PX

CONFIG = SyntheticConfig(patches=600, slides=12, centres=3, seed=7)
MIDDLE = slice((PATCH_PX - CENTRE_PX) // 2, (PATCH_PX + CENTRE_PX) // 2)

# Mean R, G, B of four patches of SyntheticConfig(seed=0) and their labels. They change only when the pictures are meant
# to change; then the data set is another one and docs/results.md must be measured again.
GOLDEN = {
    0: (0, (184.25, 130.62, 153.34)),
    3: (0, (149.69, 110.95, 133.83)),
    5: (1, (158.09, 108.82, 155.45)),
    17: (1, (160.13, 110.18, 153.66)),
}


@pytest.fixture(scope="module")
def patches() -> list[SyntheticPatch]:
    return list(synthetic_patches(CONFIG, range(240)))


def digest(patch: SyntheticPatch) -> str:
    return hashlib.sha256(patch.pixels.tobytes()).hexdigest()


def test_shape_and_type(patches: list[SyntheticPatch]) -> None:
    for patch in patches[:20]:
        assert patch.pixels.shape == (PATCH_PX, PATCH_PX, 3)
        assert patch.pixels.dtype == np.uint8
        assert type(patch.label) is int
        assert patch.label in (0, 1)


def test_any_subset_in_any_order_gives_the_same_pixels(patches: list[SyntheticPatch]) -> None:
    order = [200, 3, 77, 3]
    assert [digest(p) for p in synthetic_patches(CONFIG, order)] == [digest(patches[i]) for i in order]


def test_number_of_patches_does_not_change_a_patch(patches: list[SyntheticPatch]) -> None:
    longer = CONFIG.model_copy(update={"patches": 100_000})
    assert digest(next(synthetic_patches(longer, [42]))) == digest(patches[42])


def test_another_process_gives_the_same_pixels(patches: list[SyntheticPatch]) -> None:
    code = (
        "import hashlib; from sentinode.data.synthetic import *; "
        "c = SyntheticConfig(patches=600, slides=12, centres=3, seed=7); "
        "print(*(hashlib.sha256(p.pixels.tobytes()).hexdigest() for p in synthetic_patches(c, [239, 11])))"
    )
    root = str(Path(sentinode.__file__).parents[1])
    out = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == [digest(patches[239]), digest(patches[11])]


def test_golden_patches() -> None:
    made = synthetic_patches(SyntheticConfig(seed=0), list(GOLDEN))
    for (label, mean), patch in zip(GOLDEN.values(), made, strict=True):
        assert patch.label == label
        assert patch.pixels.mean(axis=(0, 1)) == pytest.approx(mean, abs=0.02)


def test_seed_changes_every_patch_and_no_two_are_equal(patches: list[SyntheticPatch]) -> None:
    other = synthetic_patches(CONFIG.model_copy(update={"seed": 8}), range(50))
    digests = [digest(p) for p in [*patches, *other]]
    # Empty glass may repeat only by chance of its noise, which does not happen.
    assert len(set(digests)) == len(digests)


def test_label_is_tumour_in_the_central_square(patches: list[SyntheticPatch]) -> None:
    around = 0
    for index in range(100):
        tissue, _, _ = _grow(CONFIG, index)
        assert patches[index].label == int(tissue.tumour[MIDDLE, MIDDLE].any())
        around += patches[index].label == 0 and bool(tissue.tumour.any())
    assert around >= 3, "negatives with tumour only in the outer ring are part of the set"


def test_classes_are_balanced(patches: list[SyntheticPatch]) -> None:
    assert 0.42 < float(np.mean([p.label for p in patches])) < 0.58


def test_slides_and_centres(patches: list[SyntheticPatch]) -> None:
    centres = {p.slide: p.centre for p in patches}
    assert len(centres) == CONFIG.slides
    assert Counter(centres.values()) == {"centre_0": 4, "centre_1": 4, "centre_2": 4}
    assert centres["synthetic_c1_s004"] == "centre_1"
    assert [(p.slide, p.centre) for p in patches[:40]] == [slide_of(CONFIG, i) for i in range(40)]


def test_normal_slides_have_only_negatives(patches: list[SyntheticPatch]) -> None:
    labels = defaultdict(list)
    for patch in patches:
        labels[patch.slide].append(patch.label)
    normal = [slide for slide, found in labels.items() if not any(found)]
    assert sorted(normal) == ["synthetic_c0_s009", "synthetic_c1_s010", "synthetic_c2_s011"]


@pytest.mark.parametrize("slides", [1, 2, 3, 5])
def test_few_slides_still_give_both_classes(slides: int) -> None:
    config = SyntheticConfig(patches=60, slides=slides, centres=1)
    assert {p.label for p in synthetic_patches(config, range(60))} == {0, 1}


def test_centres_differ_in_colour(patches: list[SyntheticPatch]) -> None:
    tint = defaultdict(list)
    for patch in patches:
        mean = patch.pixels.mean(axis=(0, 1))
        tint[patch.centre].append(mean[2] - mean[0])
    assert np.mean(tint["centre_1"]) - np.mean(tint["centre_0"]) > 10


@pytest.mark.parametrize(
    "values",
    [{"patches": 0}, {"slides": 0}, {"centres": 0}, {"seed": -1}, {"hard_share": 1.5}, {"tiles": 3}],
)
def test_bad_values_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        SyntheticConfig.model_validate(values)


def test_more_centres_than_slides_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 centres but 4 slides"):
        SyntheticConfig(slides=4, centres=5)


@pytest.mark.parametrize("index", [-1, 600])
def test_an_index_outside_the_set_is_refused(index: int) -> None:
    with pytest.raises(ConfigError, match="0 to 599"):
        list(synthetic_patches(CONFIG, [index]))
