"""Slides in a folder: names, patterns, and names that two would share."""

from __future__ import annotations

from pathlib import Path

import pytest
from slide_files import gradient
from slide_folders import write_dicom, write_mirax

from sentinode.errors import SourceError
from sentinode.slides.listing import list_slides
from sentinode.slides.reader import open_slide


def _touch(folder: Path, *names: str) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return str(folder)


def test_slides_are_named_by_their_files(tmp_path: Path) -> None:
    url = _touch(
        tmp_path,
        "b/test_002.TIF",
        "a/test_001.svs",
        "notes.txt",
        "a/test_001.xml",
        "mask.png",
        "b_mask.tif",
        "B_Mask.TIF",
    )
    assert [slide.name for slide in list_slides(url)] == ["test_001", "test_002"]
    (alone,) = list_slides(str(tmp_path / "a" / "test_001.svs"))
    assert alone == list_slides(url)[0]
    assert [slide.name for slide in list_slides(url, "b/*")] == ["test_002"]


def test_the_version_changes_with_the_file(tmp_path: Path) -> None:
    url = _touch(tmp_path, "a.svs")
    (before,) = list_slides(url)
    (tmp_path / "a.svs").write_bytes(b"another one")
    (after,) = list_slides(url)
    assert before.version != after.version


def test_a_name_that_two_share_becomes_the_whole_key(tmp_path: Path) -> None:
    url = _touch(tmp_path, "a/x.svs", "b/x.svs", "c.svs")
    assert [slide.name for slide in list_slides(url)] == ["a__x.svs", "b__x.svs", "c"]
    assert [slide.name for slide in list_slides(url, "b/*")] == ["b__x.svs"], "whatever is asked for"
    _touch(tmp_path, "a__x.svs.tif")
    with pytest.raises(SourceError, match=r"would be called a__x\.svs"):
        list_slides(url)


@pytest.mark.parametrize("include", ["*", "*.svs"])
def test_a_place_without_slides_is_refused(tmp_path: Path, include: str) -> None:
    with pytest.raises(SourceError, match="no slide lies at"):
        list_slides(_touch(tmp_path, "notes.txt"), include)


def test_dicom_files_by_other_names_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    write_dicom(folder, gradient(128, 128), levels=2)
    for path in folder.iterdir():
        path.rename(path.with_suffix(""))
    for look in (list_slides, open_slide):
        with pytest.raises(SourceError) as caught:
            look(str(folder))
        assert "*.dcm" in str(caught.value.remedy)
    _touch(tmp_path, "other/notes.txt")
    with pytest.raises(SourceError) as caught:
        open_slide(str(tmp_path / "other"))
    assert caught.value.remedy == "give the slide"


def test_a_folder_of_dicom_files_is_one_slide_and_a_mirax_slide_has_its_folder(tmp_path: Path) -> None:
    rgb = gradient(128, 128)
    write_dicom(tmp_path / "d" / "SM_1.2.3", rgb, levels=2)
    write_mirax(tmp_path / "m.mrxs", rgb, levels=1)
    for series in (1, 2):
        write_dicom(tmp_path / "two", rgb, levels=2, series=series)
    _touch(tmp_path, "two/cut.dcm", "broken/1.dcm")
    slides = {slide.name: slide for slide in list_slides(str(tmp_path))}
    assert sorted(slides) == ["1-0", "2-0", "SM_1.2.3", "broken", "cut", "m"]
    assert slides["SM_1.2.3"].url == str(tmp_path / "d" / "SM_1.2.3")
    assert slides["2-0"].url == str(tmp_path / "two" / "2-0.dcm")
    assert list_slides(str(tmp_path / "m.mrxs")) == (slides["m"],)
    (alone,) = list_slides(slides["SM_1.2.3"].url)
    assert alone.name == "SM_1.2.3"
    for changed in ("m/Data0000.dat", "d/SM_1.2.3/1-1.dcm"):
        with (tmp_path / changed).open("ab") as file:
            file.write(b"a")
    after = {slide.name: slide.version for slide in list_slides(str(tmp_path))}
    assert {name for name in after if after[name] != slides[name].version} == {"m", "SM_1.2.3"}
