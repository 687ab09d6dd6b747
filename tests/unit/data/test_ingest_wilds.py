"""WILDS camelyon17_v1.0 as a source, and the Camelyon slides that are known to be defective."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ingest_parts import WILDS_SLIDES, noise_patches, write_kaggle, write_pcam, write_wilds
from PIL import Image

from sentinode.data.ingest.assign import assign_splits
from sentinode.data.ingest.build import describe
from sentinode.data.ingest.config import IngestConfig
from sentinode.data.ingest.scan import scan_chunk
from sentinode.data.sources import detect, open_source
from sentinode.data.sources.base import SPLITS, BadImage
from sentinode.data.sources.known import (
    SLIDE_DEFECTS,
    Defect,
    camelyon_name,
    current_name,
    lesions_scorable,
    negatives_usable,
    slide_defect,
)
from sentinode.errors import SourceError
from sentinode.schema import Split

PATCHES = noise_patches(24)


class TestWilds:
    def test_recognised_and_listed_in_the_order_of_the_table(self, tmp_path: Path) -> None:
        paths = write_wilds(tmp_path, PATCHES)
        (tmp_path / "RELEASE_v1.0.txt").write_text("")
        (tmp_path / "patches" / ".DS_Store").write_text("")
        source = detect(tmp_path)
        listing = source.listing()
        assert source.kind == open_source("wilds", tmp_path).kind == "wilds"
        assert listing.refs == [path.relative_to(tmp_path).as_posix() for path in paths]
        assert listing.refs[0] == "patches/patient_004_node_4/patch_patient_004_node_4_x_0_y_3072.png"
        assert listing.labels.tolist() == ([0] * 6 + [1] * 6) * 2
        assert listing.sizes.tolist() == [path.stat().st_size for path in paths]
        assert listing.bad == {}
        assert pickle.loads(pickle.dumps(source)) == source  # noqa: S301 - our own object

    def test_hospitals_are_the_splits(self, tmp_path: Path) -> None:
        write_wilds(tmp_path, PATCHES)
        listing = detect(tmp_path).listing()
        expected = [Split.TRAIN, Split.TRAIN, Split.VALID, Split.TEST, Split.TRAIN, Split.TRAIN]
        assert [SPLITS[code] for code in listing.splits] == expected * 4
        assert listing.warnings == (
            "3 patches are WILDS's id_val, a random sample of the training slides: not kept apart from train",
        )

    def test_slide_patient_and_centre_reach_each_sample(self, tmp_path: Path) -> None:
        write_wilds(tmp_path, PATCHES)
        items = detect(tmp_path).listing().items(range(6))
        assert [item.centre for item in items] == [str(centre) for _, _, centre in WILDS_SLIDES]
        assert json.loads(describe(items[3])) == {
            "slide": "patient_042_node_3",
            "patient": "patient_042",
            "centre": "2",
            "source": items[3].ref,
        }

    def test_opaque_rgba_is_read_as_rgb(self, tmp_path: Path) -> None:
        paths = write_wilds(tmp_path, PATCHES[:6])
        see_through = np.array(Image.open(paths[2]))
        see_through[0, 0, 3] = 0
        Image.fromarray(see_through).save(paths[2])
        source = detect(tmp_path)
        found = [pixels for _, pixels in source.read(source.listing().items(range(6)))]
        assert found[2] == BadImage("1 pixels are transparent, expected RGB or an opaque alpha channel")
        for i in (0, 1, 3, 4, 5):
            np.testing.assert_array_equal(found[i], PATCHES[i])

    def test_missing_file_is_bad(self, tmp_path: Path) -> None:
        write_wilds(tmp_path, PATCHES)[7].unlink()
        assert detect(tmp_path).listing().bad == {7: "named in metadata.csv, but there is no such file"}

    def test_image_without_a_row(self, tmp_path: Path) -> None:
        path = write_wilds(tmp_path, PATCHES)[7]
        path.with_name("stranger.png").write_bytes(b"x")
        with pytest.raises(SourceError, match=r"1 images .* patches/patient_009_node_1/stranger\.png"):
            detect(tmp_path).listing()

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            (lambda rows: [row.rpartition(",")[0] for row in rows], "columns"),
            (lambda rows: [*rows, "24,004,4,0"], "cut short"),
            (lambda rows: [*rows, "24,004,4,0,0,2,0,0,0"], r"not 0 or 1 \(line 26: '2'"),
            (lambda rows: [*rows, rows[1]], "x_0_y_3072.png more than once"),
            (lambda rows: [*rows, "24,004,4,0,0,0,0,5,0"], r"center .*line 26: '5'[\s\S]*0 to 4"),
            (lambda rows: [*rows, "24,004,4,0,0,0,0,0,2"], r"split .*line 26: '2'"),
            (lambda rows: [*rows, "24,4,4,0,0,0,0,0,0"], r"patient .*line 26: '4'"),
            (lambda rows: [*rows, "24,004,../4,0,0,0,0,0,0"], r"node .*'\.\./4'"),
            (lambda rows: [*rows, "24,004,4,0.5,0,0,0,0,0"], r"x_coord .*'0\.5'"),
            (lambda rows: [*rows, "24,004,4,0,-1,0,0,0,0"], r"y_coord .*'-1'"),
            (lambda rows: [*rows, "24,004,4,0,0,0,patient_004,0,0"], r"slide .*'patient_004'"),
            (lambda rows: [*rows, "24,004,4,0,0,0,7,0,0"], "slide numbers .* do not follow"),
            (lambda rows: [*rows, "24,005,4,0,0,0,0,0,0"], "slide numbers .* do not follow"),
            (lambda rows: [*rows, "24,004,4,0,0,0,0,2,0"], r"1 slides .*patient_004_node_4: 2"),
        ],
    )
    def test_broken_tables(
        self, tmp_path: Path, change: Callable[[list[str]], list[str]], match: str
    ) -> None:
        write_wilds(tmp_path, PATCHES)
        table = tmp_path / "metadata.csv"
        table.write_text("\n".join(change(table.read_text().splitlines())))
        with pytest.raises(SourceError, match=match):
            detect(tmp_path).listing()

    def test_splits_anew_keep_patients_together(self, tmp_path: Path) -> None:
        write_wilds(tmp_path, PATCHES)
        source = detect(tmp_path)
        listing = source.listing()
        keys = scan_chunk(source, listing.items(range(24))).keys()
        config = IngestConfig(source=str(tmp_path), out="out", kind="wilds", use_source_splits=False)
        pooled = np.full(24, -1, np.int8)
        assignment = assign_splits(config, listing, keys, listing.labels, pooled, np.arange(24))
        assert set(assignment.origin.values()) == {"carved by slide"}
        patients = [{listing.patients[i] for i in order} for order in assignment.order.values()]
        assert sum(map(len, patients)) == len(set.union(*patients)) == len(WILDS_SLIDES)


class TestKnownSlides:
    @pytest.mark.parametrize(
        ("slide", "name"),
        [
            ("camelyon16_train_normal_086", "normal_086"),
            ("camelyon16_test_049", "test_049"),
            ("camelyon16_test_test_049", "test_049"),
            ("Test_114.tif", "test_114"),
            ("tumor_010", "tumor_010"),
            ("camelyon17_training_patient_034_node_3", "patient_034_node_3"),
            ("my_normal_086", None),
            ("tumor_0100", None),
        ],
    )
    def test_names(self, slide: str, name: str | None) -> None:
        assert camelyon_name(slide) == name

    def test_defects_and_what_follows(self) -> None:
        assert len(SLIDE_DEFECTS) == 23
        assert set(SLIDE_DEFECTS) == {camelyon_name(slide) for slide in SLIDE_DEFECTS}
        assert slide_defect("camelyon16_train_normal_086") is Defect.MISFILED
        assert slide_defect("tumor_110") is Defect.NOT_EXHAUSTIVE
        assert slide_defect("tumor_111") is slide_defect("somebody's slide") is None
        assert current_name("camelyon16_train_normal_086") == current_name("tumor_111") == "tumor_111"
        assert current_name("somebody's slide") == "somebody's slide"
        usable = {slide: negatives_usable(slide) for slide in ("normal_086", "tumor_010", "test_049", "x")}
        assert usable == {"normal_086": False, "tumor_010": False, "test_049": True, "x": True}
        scorable = [lesions_scorable(slide) for slide in ("test_114", "test_049", "test_001")]
        assert scorable == [False, False, True]

    def test_pcam_patches_of_defective_slides_are_counted_and_kept(self, tmp_path: Path) -> None:
        slides = ["normal_086", "normal_086", "normal_001", "tumor_010", "tumor_015", "tumor_010"]
        write_pcam(
            tmp_path, "train", noise_patches(6), [0, 1, 0, 0, 0, 1], [f"camelyon16_train_{s}" for s in slides]
        )
        write_pcam(tmp_path, "test", noise_patches(2, 1), [0, 1], ["camelyon16_test_049"] * 2)
        listing = detect(tmp_path).listing()
        assert len(listing) == 8
        assert listing.warnings == (
            "1 negative patches, perhaps of tumour, come from slides that are really tumour slides among the "
            "normal ones (camelyon16_train_normal_086); they are kept (list of slides 1)",
            "2 patches come from slides that are duplicates of other slides (camelyon16_test_049); they are "
            "kept (list of slides 1)",
            "2 negative patches, perhaps of tumour, come from slides that are not exhaustively annotated "
            "(camelyon16_train_tumor_010, camelyon16_train_tumor_015); they are kept (list of slides 1)",
        )

    def test_kaggle_patches_of_defective_slides_are_counted(self, tmp_path: Path) -> None:
        ids = write_kaggle(tmp_path, noise_patches(4), [0, 0, 1], unlabelled=1)
        before = detect(tmp_path).listing()
        rows = [f"{name},camelyon16_train_normal_086" for name in ids]
        (tmp_path / "patch_id_wsi_full.csv").write_text("\n".join(["id,wsi", *rows]))
        listing = detect(tmp_path).listing()
        assert before.warnings == ()
        assert [warning.split(",")[0] for warning in listing.warnings] == ["2 negative patches"]

    def test_listing_digest_sees_warnings(self, tmp_path: Path) -> None:
        write_kaggle(tmp_path, noise_patches(3), [0, 1, 0])
        before = detect(tmp_path).listing().digest()
        (tmp_path / "sample_submission.csv").write_text("id,label\nabc,0\n")
        assert detect(tmp_path).listing().digest() != before
