"""Synthetic slides: metastases of the size asked for, annotations that fit, the same pixels for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapely

from sentinode.cohort.synthetic.config import SlideContents, SynthesizeConfig
from sentinode.cohort.synthetic.draw import SlidePainter, generator
from sentinode.cohort.synthetic.plan import draw_plan
from sentinode.cohort.synthetic.write import planned_slides, synthesize, write_slide
from sentinode.data.sources.known import slide_defect
from sentinode.errors import ConfigError
from sentinode.evaluation.patient_stage import stages_of
from sentinode.evaluation.slide_reference import Stage, read_camelyon16_reference, read_stage_labels
from sentinode.schema import NodeClass
from sentinode.slides.annotations import tumour_of
from sentinode.slides.asap_xml import read_asap_xml
from sentinode.slides.lesions import lesions_of
from sentinode.slides.outlines import rasterised
from sentinode.slides.reader import open_slide
from sentinode.slides.tissue import find_tissue

SMALL = SlideContents(width_px=1800, height_px=1700, um_px=0.972, micro=1, itc=1, seed=3)


class TestPlan:
    @pytest.mark.parametrize("seed", range(6))
    def test_metastases_have_the_classes_asked_for_and_lie_apart_within_the_node(self, seed: int) -> None:
        contents = SlideContents(macro=1, micro=2, itc=2, seed=seed)
        plan = draw_plan(contents, generator(seed, 10))
        found = [lesion.size for lesion in lesions_of(plan.tumour, contents.um_px)]
        assert sorted(found) == sorted(contents.wanted)
        assert all(shapely.covers(plan.node, lesion) for lesion in plan.lesions)

    def test_some_macro_metastases_enclose_healthy_tissue(self) -> None:
        plans = [draw_plan(SlideContents(macro=1, seed=s), generator(s, 10)) for s in range(12)]
        holes = [len(plan.lesions[0].interiors) for plan in plans]
        assert 0 < sum(holes) < len(holes)

    def test_a_metastasis_without_room_is_a_clear_error(self) -> None:
        with pytest.raises(ConfigError, match=r"1 macro-.* find no room on a slide of 1\.0 x 1\.0 mm"):
            draw_plan(SlideContents(width_px=2000, height_px=2000, um_px=0.5, macro=1), generator(0, 10))


class TestPixels:
    def test_a_slide_opens_with_its_size_and_its_tissue(self, tmp_path: Path) -> None:
        plan = write_slide(SMALL, tmp_path / "a.tif")
        with open_slide(str(tmp_path / "a.tif")) as slide:
            assert slide.backend == "openslide"
            assert slide.level_dimensions[0] == (1800, 1700)
            assert slide.um_px == pytest.approx(0.972, rel=1e-4)
            tissue = find_tissue(slide)
        assert tissue.record.flags == ()
        both = shapely.intersection(tissue.shape, plan.node).area
        assert both > 0.95 * plan.node.area
        assert both > 0.85 * tissue.shape.area

    def test_pen_and_blur_are_there_to_be_found(self, tmp_path: Path) -> None:
        plan = write_slide(SMALL.model_copy(update={"pen": True, "blur": True}), tmp_path / "a.tif")
        with open_slide(str(tmp_path / "a.tif")) as slide:
            tissue = find_tissue(slide)
        assert set(tissue.record.flags) == {"pen", "blurred"}
        assert plan.pen is not None
        assert shapely.intersection(tissue.pen, plan.pen).area > 0.9 * plan.pen.area

    def test_blocks_meet_without_a_seam_at_any_enlargement(self) -> None:
        for um_px in (0.972, 0.5, 0.33):
            contents = SlideContents(width_px=1100, height_px=540, um_px=um_px, seed=1)
            rows = np.concatenate(list(SlidePainter(contents, draw_plan(contents, generator(1, 10))).bands()))
            assert rows.shape == (540, 1100, 3)
            steps = np.abs(np.diff(rows.astype(int), axis=1)).mean(axis=(0, 2))
            assert steps[1023] < 2 * np.median(steps[900:1090])

    def test_the_same_seed_gives_the_same_bytes_and_another_one_others(self, tmp_path: Path) -> None:
        tiny = SlideContents(width_px=700, height_px=600, um_px=0.972, itc=1)
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            write_slide(tiny.model_copy(update={"seed": seed}), tmp_path / name)
        a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
        assert a == b
        assert a != c

    def test_tumour_is_drawn_where_it_is_annotated(self, tmp_path: Path) -> None:
        """Nuclei of tumour are larger: less fine texture than the lymphoid tissue around."""
        plan = write_slide(SMALL, tmp_path / "a.tif")
        with open_slide(str(tmp_path / "a.tif")) as slide:
            green = slide.read_region(0, 0, 0, (1800, 1700))[..., 1].astype(np.float32)
        lesion = rasterised(shapely.buffer(plan.lesions[0], -20), (0, 0), 1, 1800, 1700)
        around = rasterised(shapely.buffer(plan.lesions[0], 120), (0, 0), 1, 1800, 1700)
        around = around & ~rasterised(shapely.buffer(plan.lesions[0], 20), (0, 0), 1, 1800, 1700)
        detail = np.abs(np.diff(green, axis=1, append=0))
        assert detail[lesion].mean() < 0.9 * detail[around].mean()


class TestSets:
    def test_camelyon16_layout(self, tmp_path: Path) -> None:
        config = SynthesizeConfig(
            out=str(tmp_path), training=1, testing=1, width_px=3100, height_px=3100, um_px=0.972
        )
        seen: list[tuple[str, int, int]] = []
        classes = synthesize(config, lambda *step: seen.append(step))
        assert seen[-1] == ("slides", 2, 2)
        files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
        assert files == [
            "testing/images/test_501.tif",
            "testing/lesion_annotations/test_501.xml",
            "testing/reference.csv",
            "training/lesion_annotations/tumor_501.xml",
            "training/tumor/tumor_501.tif",
        ]
        reference = read_camelyon16_reference(
            (tmp_path / "testing/reference.csv").read_bytes(), "reference.csv"
        )
        assert reference == {"test_501": NodeClass.MACRO}
        for name in ("tumor_501", "test_501"):
            xml = next(tmp_path.rglob(f"{name}.xml")).read_bytes()
            lesions = lesions_of(tumour_of(read_asap_xml(xml, name), name), 0.972)
            assert sorted(lesion.size for lesion in lesions) == [NodeClass.ITC, NodeClass.MACRO]
            assert classes[name] is NodeClass.MACRO

    def test_camelyon17_stages_follow_from_the_nodes(self, tmp_path: Path) -> None:
        config = SynthesizeConfig(
            out=str(tmp_path), layout="camelyon17", patients=1, width_px=1300, height_px=1300, um_px=0.972
        )
        classes = synthesize(config, lambda *step: None)
        labels = read_stage_labels((tmp_path / "stage_labels.csv").read_bytes(), "stage_labels.csv")
        assert labels.nodes == classes
        assert labels.patients == stages_of(classes) == {"patient_000": Stage.PN1MI}

    def test_five_patients_have_the_five_stages_in_their_centres(self) -> None:
        config = SynthesizeConfig(out="x", layout="camelyon17", patients=5, centres=2)
        slides = planned_slides(config)
        patients = sorted({slide.name[:11] for slide in slides})
        assert patients == ["patient_000", "patient_001", "patient_002", "patient_020", "patient_021"]
        assert {slide.contents.centre for slide in slides if slide.name < "patient_020"} == {0}

        def node_class(contents: SlideContents) -> NodeClass:
            return contents.wanted[0] if contents.wanted else NodeClass.NEGATIVE

        stages = stages_of({slide.name: node_class(slide.contents) for slide in slides})
        assert sorted(stages.values()) == sorted(Stage)

    def test_known_defects_of_real_slides_never_fit_a_synthetic_one(self) -> None:
        config = SynthesizeConfig(out="x", training=400, testing=400)
        assert not any(slide_defect(slide.name) for slide in planned_slides(config))

    def test_nothing_to_make_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="no slide to make"):
            SynthesizeConfig(out="x", training=0, testing=0)
