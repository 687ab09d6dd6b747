"""The leak audit finds what is planted, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_parts import plain, texture, write
from PIL import Image

from sentinode.data.audit import AuditReport, audit, refuse_leaks
from sentinode.data.augment import move
from sentinode.data.fingerprint import find_near_duplicates, frequencies, turn
from sentinode.errors import LeakError
from sentinode.schema import Split


def summary(report: AuditReport) -> set[tuple[str, str, str, int, bool]]:
    names = [part.name for part in report.parts]
    return {(o.kind, names[o.first], names[o.second], o.count, o.leak) for o in report.overlaps}


def test_a_clean_set_has_no_overlap(tmp_path: Path) -> None:
    url = write(
        tmp_path,
        "clean",
        {
            Split.TRAIN: plain(range(20), slide="a", patient="p"),
            Split.VALID: plain(range(20, 30), slide="b", patient="q"),
        },
    )
    report = audit([url])
    assert report.overlaps == ()
    assert [(p.name, p.samples, p.slides, p.patients) for p in report.parts] == [
        ("clean/train", 20, 1, 1),
        ("clean/valid", 10, 1, 1),
    ]
    refuse_leaks(url)


def test_planted_leaks_are_found_within_and_between_data_sets(tmp_path: Path) -> None:
    first = write(
        tmp_path,
        "first",
        {
            Split.TRAIN: [*plain(range(10), slide="a", patient="p"), *plain(range(3))],
            Split.TEST: [*plain(range(10, 15), slide="b", patient="p"), *plain(range(2), label=1, slide="a")],
        },
    )
    second = write(tmp_path, "second", {Split.TRAIN: plain(range(12, 20), label=None, slide="a")})
    assert summary(audit([first, second])) == {
        ("exact duplicate", "first/train", "first/train", 3, False),
        ("exact duplicate", "first/test", "first/train", 2, True),
        ("conflicting label", "first/test", "first/train", 2, True),
        ("slide on both sides", "first/test", "first/train", 1, True),
        ("patient on both sides", "first/test", "first/train", 1, True),
        ("exact duplicate", "first/test", "second/train", 3, True),
    }
    with pytest.raises(LeakError, match="share"):
        refuse_leaks(first)


@pytest.mark.parametrize("symmetry", range(8))
def test_turned_and_recompressed_copies_are_near_duplicates(tmp_path: Path, symmetry: int) -> None:
    copies = []
    none = torch.zeros(1, dtype=torch.int64)
    for seed in range(6):
        image = torch.from_numpy(texture(seed)).permute(2, 0, 1)[None]
        turned = move(image, torch.tensor([symmetry]), none, none)[0].permute(1, 2, 0).contiguous().numpy()
        out = io.BytesIO()
        Image.fromarray(turned).save(out, "jpeg", quality=70)
        copies.append((np.asarray(Image.open(out)), 0, None, None))
    url = write(tmp_path, "near", {Split.TRAIN: plain(range(30)), Split.TEST: copies})
    report = audit([url])
    assert summary(report) == {("near duplicate", "near/test", "near/train", 6, True)}
    assert report.exact_leaks == ()
    pairs, _ = find_near_duplicates(frequencies(np.stack([texture(0), copies[0][0]])))
    inverse = {5: 6, 6: 5}.get(symmetry, symmetry)
    assert [pair.symmetry for pair in pairs] in ([symmetry], [inverse])


def test_spectra_turn_as_images_do() -> None:
    images = torch.from_numpy(np.stack([texture(seed) for seed in range(3)]))
    for symmetry in range(8):
        code, none = torch.full((3,), symmetry), torch.zeros(3, dtype=torch.int64)
        turned = move(images.permute(0, 3, 1, 2), code, none, none).permute(0, 2, 3, 1).contiguous().numpy()
        assert np.allclose(frequencies(turned), turn(frequencies(images.numpy()), symmetry), atol=1)


def test_blank_patches_are_counted_not_compared(tmp_path: Path) -> None:
    blank = [(np.full((96, 96, 3), 240 + i, np.uint8), 0, None, None) for i in range(5)]
    url = write(tmp_path, "blank", {Split.TRAIN: [*blank, *plain(range(3))]})
    report = audit([url])
    assert report.blank == 5
    assert report.overlaps == ()


def test_crowds_of_equal_patches_do_not_explode(tmp_path: Path) -> None:
    spectra = np.repeat(frequencies(np.stack([texture(0)])), 300, axis=0)
    spectra = np.concatenate([spectra, frequencies(np.stack([texture(s) for s in range(1, 200)]))])
    pairs, _ = find_near_duplicates(spectra)
    assert len(pairs) == 300 * 299 // 2


@pytest.mark.real_data
def test_recompressed_copies_among_real_patches_are_found(real_data: Path) -> None:
    files = sorted((real_data / "kaggle" / "train").glob("*.tif"))[:600]
    originals = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in files])
    copies = []
    for image in originals[:200]:
        out = io.BytesIO()
        Image.fromarray(np.rot90(image)).save(out, "jpeg", quality=75)
        copies.append(np.asarray(Image.open(out)))
    pairs, _ = find_near_duplicates(frequencies(np.concatenate([originals, np.stack(copies)])))
    across = {(p.first, p.second - 600) for p in pairs if p.first < 600 <= p.second}
    assert len({(i, i) for i in range(200)} & across) >= 195
    assert len(across) <= 205
