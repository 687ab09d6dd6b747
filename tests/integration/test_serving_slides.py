"""Scored slides on the page: tiles that are the slide's, corrections that are kept, in a real Chromium too."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import shapely
from page_parts import browser
from PIL import Image
from playwright.sync_api import FloatRect, Page, Route, expect
from served_parts import served
from serving_parts import make_parts
from slide_files import tissue, write_pyramid

from sentinode.bundle.bundle import open_bundle
from sentinode.errors import ConfigError
from sentinode.evaluation.cells_table import cells_table
from sentinode.evaluation.slide_record import (
    SLIDES_NAME,
    SlideScore,
    file_key,
    read_slides_table,
    slides_table,
)
from sentinode.evaluation.worklist import ScreeningRule, order_slides
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import create_app
from sentinode.serving.auth import ApiKeys
from sentinode.serving.engine import Engine
from sentinode.serving.slides_args import SlidesArgs
from sentinode.slides.annotations import Region
from sentinode.slides.corrections import SUFFIX, read_corrections
from sentinode.slides.geojson import write_geojson
from sentinode.storage import open_store

WIDTH, HEIGHT, CELL_PX = 1400, 1200, 32
NAME = "node 1"
WAIT_MS = 60_000


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("bundle")
    store, parts = open_store(str(folder / "registry")), make_parts(folder / "parts")
    return Engine(open_bundle(store, parts.seal(store, parts.card), folder / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What scoring leaves of two slides, one of which failed."""
    slide = write_pyramid(tmp_path / f"{NAME}.tif", tissue(WIDTH, HEIGHT))
    store = open_store(str(tmp_path / "scores"))
    rows, columns = HEIGHT // CELL_PX + 1, WIDTH // CELL_PX + 1
    grid = np.full((rows, columns), np.nan, np.float32)
    grid[8:28, 8:34] = 0.1
    grid[12:18, 14:22] = 0.93
    lesion = Region(shapely.box(14 * 32, 12 * 32, 22 * 32, 18 * 32), "micro", "lesion 1", {
        "Score": 0.93, "Mean probability": 0.9, "Area um^2": 12288.0, "Longest diameter um": 160.0,
    })  # fmt: skip
    done = SlideScore(
        slide=NAME, url=str(slide), status="done", key="k" * 64, bundle="b" * 64, score=0.93, lesions=1,
        node_class="micro", um_px=0.5, width_px=WIDTH, height_px=HEIGHT, flags=("pen",),
        blurred_of_tissue=0.04,
    )  # fmt: skip
    failed = SlideScore(
        slide="node 2", url="gone.tif", status="failed", reason="no such file", key="k" * 64, bundle="b" * 64
    )
    store.put(SLIDES_NAME, slides_table([done, failed]))
    store.put(file_key(NAME, "cells.parquet"), cells_table(grid, CELL_PX * 0.5, CELL_PX))
    store.put(file_key(NAME, "lesions.geojson"), write_geojson([lesion]))
    return tmp_path


@pytest.fixture
def url(engine: Engine, folder: Path) -> Iterator[str]:
    args = ServeArgs(
        registry="unused",
        bundle=engine.bundle.digest,
        slides=SlidesArgs(scores=str(folder / "scores"), corrections=str(folder / "corrections")),
    )
    with served(create_app(engine, args, ApiKeys())) as where:
        yield where


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as opened:
        yield opened


def test_tiles_are_the_slide(client: httpx.Client, folder: Path) -> None:
    shown = client.get(f"/v1/slides/{NAME}").json()
    assert (shown["width_px"], shown["height_px"], shown["max_level"]) == (WIDTH, HEIGHT, 11)
    truth = tissue(WIDTH, HEIGHT).astype(int)
    for level, column, row, size in (
        (11, 1, 1, (256, 256)),
        (11, 5, 4, (120, 176)),
        (10, 0, 0, (256, 256)),
        (0, 0, 0, (1, 1)),
    ):
        answer = client.get(f"/v1/slides/{NAME}/tiles/{level}/{column}_{row}.jpg")
        assert answer.headers["content-type"] == "image/jpeg"
        tile = np.asarray(Image.open(io.BytesIO(answer.content))).astype(int)
        assert tile.shape[:2] == size[::-1]
        step = 2 ** (11 - level)
        if step <= 2:
            part = truth[row * 256 * step :, column * 256 * step :][
                : size[1] * step : step, : size[0] * step : step
            ]
            assert np.abs(part - tile).mean() < 12


def test_what_is_not_there_is_refused(client: httpx.Client) -> None:
    for path in (
        "nobody",
        "node 2",
        "..%2f..%2fetc%2fpasswd",
        f"{NAME}/tiles/11/6_0.jpg",
        f"{NAME}/tiles/99/0_0.jpg",
        f"{NAME}/tiles/{'9' * 400}/0_0.jpg",
        f"nobody/tiles/0/{'9' * 5000}_0.jpg",
        f"{NAME}/tiles/0/0_-1.jpg",
        f"{NAME}/tiles/0/0__0.jpg",
        f"{NAME}/tiles/0/\u0660_0.jpg",
    ):
        answer = client.get(f"/v1/slides/{path}")
        assert answer.status_code == 404, path
        assert answer.json()["reason"]


def test_heat_map_and_list(client: httpx.Client) -> None:
    listing = client.get("/v1/slides").json()
    assert [(s["rank"], s["score"]["slide"], s["score"]["status"]) for s in listing["slides"]] == [
        (1, NAME, "done"),
        (2, "node 2", "failed"),
    ]
    heat = np.asarray(Image.open(io.BytesIO(client.get(f"/v1/slides/{NAME}/heat.png").content)))
    assert heat.shape == (HEIGHT // 32 + 1, WIDTH // 32 + 1, 4)
    assert heat[0, 0, 3] == 0
    assert tuple(heat[14, 16, :3]) != tuple(heat[9, 9, :3])


def test_a_worklist_of_other_scores_is_not_shown(client: httpx.Client, folder: Path) -> None:
    store = open_store(str(folder / "scores"))
    done, failed = read_slides_table(store.get(SLIDES_NAME), SLIDES_NAME)
    assert client.get("/v1/slides").json()["worklist"] == "none"
    rule = ScreeningRule(name="screening", threshold=0.99, promise="none")
    store.put("worklist.csv", order_slides([done, failed], {NAME: 0.93}, rule).to_csv())
    listing = client.get("/v1/slides").json()
    assert listing["worklist"] == "current"
    assert [slide["group"] for slide in listing["slides"]] == ["read, not judged"] * 2
    store.put(SLIDES_NAME, slides_table([done.model_copy(update={"key": "n" * 64}), failed]))
    listing = client.get("/v1/slides").json()
    assert listing["worklist"] == "outdated"
    assert [(s["score"]["slide"], s["group"], s["why"]) for s in listing["slides"]] == [
        (NAME, "", ""),
        ("node 2", "", ""),
    ]


def test_corrections_are_kept_and_never_overwrite_anothers(client: httpx.Client, folder: Path) -> None:
    where = f"/v1/slides/{NAME}/corrections"
    empty = client.get(where)
    assert (empty.json()["features"], empty.headers["etag"]) == ([], '""')
    feature = client.get(f"/v1/slides/{NAME}/lesions").json()["features"][0]
    feature["properties"]["sentinode"] = {"action": "reject", "lesion": 1}
    body = json.dumps({"type": "FeatureCollection", "features": [feature]})
    assert client.put(where, content=body).status_code == 428
    saved = client.put(where, content=body, headers={"if-match": '""'})
    assert saved.status_code == 204
    assert client.put(where, content=body, headers={"if-match": '""'}).status_code == 412
    assert client.put(where, content=body, headers={"if-match": saved.headers["etag"]}).status_code == 204
    data = (folder / "corrections" / f"{NAME}{SUFFIX}").read_bytes()
    kept = read_corrections(data, "the file", NAME)
    assert kept.slide.bundle == "b" * 64
    assert kept.corrections[0].mark.by
    assert kept.corrections[0].mark.at
    assert kept.healthy.area == pytest.approx(8 * 6 * 32**2)
    etag = client.get(where).headers["etag"]
    for nonsense in (
        b"{",
        b"[]" * 10,
        b'{"type": "FeatureCollection", "features": [{"type": "Feature"}]}',
        b"x" * (5 << 20),
    ):
        assert client.put(where, content=nonsense, headers={"if-match": etag}).status_code in (400, 413)
    assert client.get(where).headers["etag"] == etag


def test_nobody_signs_for_another(client: httpx.Client) -> None:
    where = f"/v1/slides/{NAME}/corrections"

    def put(marks: list[dict[str, object]], version: str) -> list[dict[str, object]]:
        features = []
        for mark in marks:
            (feature,) = client.get(f"/v1/slides/{NAME}/lesions").json()["features"]
            feature["properties"]["sentinode"] = mark
            features.append(feature)
        body = json.dumps({"type": "FeatureCollection", "features": features})
        assert client.put(where, content=body, headers={"if-match": version}).status_code == 204
        return [feature["properties"]["sentinode"] for feature in client.get(where).json()["features"]]

    forged: dict[str, object] = {"action": "reject", "lesion": 1, "by": "Dr. Other", "at": "2020-01-01"}
    (mine,) = put([forged], '""')
    assert (mine["by"], str(mine["at"])[:2]) == ("anonymous", "20")
    assert mine["at"] != forged["at"]
    again = put([mine, forged], client.get(where).headers["etag"])
    assert again[0] == mine
    assert again[1]["by"] == "anonymous"


def test_settings_name_a_store() -> None:
    with pytest.raises(ConfigError, match="slides"):
        ServeArgs.parse({"registry": "r", "bundle": "a" * 64, "slides": {"score": "s"}})


@pytest.fixture
def page(url: str) -> Iterator[Page]:
    with browser() as chromium:
        opened = chromium.new_page(viewport={"width": 1360, "height": 900})
        opened.set_default_timeout(WAIT_MS)
        wrong: list[str] = []
        expected = ("404", "failed to load")
        opened.on(
            "console",
            lambda m: (
                wrong.append(m.text)
                if m.type == "error" and not any(words in m.text for words in expected)
                else None
            ),
        )
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((url, "blob:")) else None)
        opened.goto(url)
        yield opened
        assert not wrong


def draw_healthy(page: Page) -> FloatRect:
    """An outline; where the stage is, in pixels of the page."""
    page.get_by_role("button", name="Draw healthy").click()
    box = page.locator("#stage").bounding_box()
    assert box is not None
    for x, y in ((0.2, 0.2), (0.3, 0.2), (0.3, 0.4)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.get_by_role("button", name="Close the outline").click()
    return box


def test_a_pathologist_reads_and_corrects(page: Page, folder: Path) -> None:
    expect.set_options(timeout=WAIT_MS)
    page.get_by_role("tab", name="Slides").click()
    page.get_by_role("button", name=NAME).click()
    expect(page.get_by_text("1 lesion", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="node 2")).to_be_disabled()
    expect(
        page.get_by_text("pen marks were left out; 4 % of the tissue is blurred and was left out")
    ).to_be_visible()
    page.get_by_role("button", name="1. micro").click()
    expect(page.locator(".outlines .found.chosen")).to_have_count(1)
    page.wait_for_timeout(1000)
    bar = page.locator(".scale-bar")
    length, unit = str(bar.text_content()).split()
    px_a_level0_px = float(
        str(page.locator(".outlines g").get_attribute("transform")).split("scale(")[1][:-1]
    )
    assert unit == "µm"
    assert bar.evaluate("bar => bar.getBoundingClientRect().width") == pytest.approx(
        float(length) / 0.5 * px_a_level0_px, abs=1
    )
    page.get_by_role("button", name="Accept").click()
    expect(page.locator(".outlines .accept")).to_have_count(1)
    box = draw_healthy(page)
    expect(page.get_by_text("Drawn 1: healthy")).to_be_visible()
    page.get_by_role("button", name="Save corrections").click()
    expect(page.get_by_text("Corrections saved.")).to_be_visible()
    data = (folder / "corrections" / f"{NAME}{SUFFIX}").read_bytes()
    kept = read_corrections(data, "the file", NAME)
    assert [c.mark.action for c in kept.corrections] == ["accept", "draw"]
    assert kept.healthy.area > 100
    page.screenshot(path=folder / "slides.png")
    drawn = np.asarray(Image.open(folder / "slides.png").convert("RGB")).astype(int)
    stage = drawn[int(box["y"]) : int(box["y"] + box["height"]), int(box["x"]) : int(box["x"] + box["width"])]
    assert (np.abs(stage - 245).max(axis=2) > 40).mean() > 0.2, "the slide is not to be seen"


def test_a_verdict_stays_with_its_outline_when_the_slide_is_scored_anew(page: Page, folder: Path) -> None:
    def choose() -> None:
        page.get_by_role("tab", name="Slides").click()
        page.get_by_role("button", name=NAME).click()

    def saved() -> list[tuple[str, tuple[float, ...], float]]:
        data = (folder / "corrections" / f"{NAME}{SUFFIX}").read_bytes()
        return [
            (c.mark.action, c.region.shape.bounds, c.region.measurements["Score"])
            for c in read_corrections(data, "the file", NAME).corrections
        ]

    choose()
    page.get_by_role("button", name="Reject").click()
    page.get_by_role("button", name="Save corrections").click()
    expect(page.get_by_text("Corrections saved.")).to_be_visible()
    expect(page.locator(".outlines .reject")).to_have_count(1)
    (before,) = saved()
    page.reload()
    choose()
    expect(page.get_by_role("button", name="Reject", pressed=True)).to_be_visible()
    other = Region(shapely.box(600, 300, 700, 500), "micro", "lesion 1", {"Score": 0.7})
    open_store(str(folder / "scores")).put(file_key(NAME, "lesions.geojson"), write_geojson([other]))
    page.reload()
    choose()
    expect(page.get_by_text("Rejected before: healthy")).to_be_visible()
    expect(page.get_by_role("button", name="Reject", exact=True, pressed=False)).to_be_visible()
    page.get_by_role("button", name="Accept").click()
    page.get_by_role("button", name="Save corrections").click()
    expect(page.get_by_text("Corrections saved.")).to_be_visible()
    assert saved() == [("accept", (600.0, 300.0, 700.0, 500.0), 0.7), before]


def test_what_qupath_drew_keeps_its_meaning(page: Page, folder: Path) -> None:
    drawn = [
        Region(shapely.box(40 + 120 * n, 40, 100 + 120 * n, 100), label)
        for n, label in enumerate(("macro", "Normal", "Stroma"))
    ]
    whole = json.loads(write_geojson(drawn))
    whole["features"][0]["properties"]["classification"] = "Metastases"
    store = open_store(str(folder / "corrections"))
    # A bare list, as older releases of QuPath write it.
    store.put(f"{NAME}{SUFFIX}", json.dumps(whole["features"]).encode())
    page.get_by_role("tab", name="Slides").click()
    page.get_by_role("button", name=NAME).click()
    for words in ("Drawn 1: tumour", "Drawn 2: Stroma", "Drawn 3: healthy"):
        expect(page.get_by_text(words)).to_be_visible()
    page.get_by_role("button", name="Accept").click()
    page.get_by_role("button", name="Save corrections").click()
    expect(page.get_by_text("Corrections saved.")).to_be_visible()
    kept = read_corrections(store.get(f"{NAME}{SUFFIX}"), "the file", NAME)
    assert [c.region.label for c in kept.corrections] == ["Tumor", "Tumor", "Stroma", "Ignore*"]
    assert kept.healthy.area == 60 * 60


def test_drawing_by_keyboard(page: Page, folder: Path) -> None:
    page.get_by_role("tab", name="Slides").click()
    page.get_by_role("button", name=NAME).click()
    page.get_by_role("button", name="Draw tumour").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#stage")).to_be_focused()
    expect(page.locator(".outlines .centre").first).to_be_visible()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft"):
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")  # the same point again counts once
        page.keyboard.press(key)
        page.keyboard.press(key)
        page.wait_for_timeout(600)
    # The slide is to be seen while an outline is drawn on it.
    page.locator("#stage").screenshot(path=folder / "drawing.png")
    seen = np.asarray(Image.open(folder / "drawing.png").convert("RGB")).astype(int)
    assert (np.abs(seen - np.median(seen, axis=(0, 1))).max(axis=2) > 40).mean() > 0.2
    page.get_by_role("button", name="Close the outline").click()
    page.get_by_role("button", name="Save corrections").click()
    expect(page.get_by_text("Corrections saved.")).to_be_visible()
    (drawn,) = read_corrections(
        (folder / "corrections" / f"{NAME}{SUFFIX}").read_bytes(), "file", NAME
    ).corrections
    left, top, right, bottom = drawn.region.shape.bounds
    assert right - left > 50
    assert bottom - top > 50
    page.get_by_role("button", name="Draw tumour").click()
    page.keyboard.press("Escape")
    expect(page.locator("#drawing")).to_be_hidden()


def test_the_keyboard_stays_where_it_judges(page: Page) -> None:
    page.get_by_role("tab", name="Slides").click()
    page.get_by_role("button", name=NAME).click()
    expect(page.get_by_text("1 lesion", exact=True)).to_be_visible()
    for word in ("Accept", "Reject"):
        button = page.get_by_role("group", name="Lesion 1").get_by_role("button", name=word)
        button.focus()
        for pressed in ("true", "false"):
            page.keyboard.press("Enter")
            expect(button).to_have_attribute("aria-pressed", pressed)
            expect(button).to_be_focused()
    for _ in range(3):
        draw_healthy(page)
    remove = page.get_by_role("button", name="Remove")
    remove.nth(1).focus()
    for left, focused in ((2, 1), (1, 0)):
        page.keyboard.press("Enter")
        expect(remove).to_have_count(left)
        expect(remove.nth(focused)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Draw tumour")).to_be_focused()


def test_what_is_judged_while_another_slide_loads_is_asked_about(page: Page) -> None:
    page.get_by_role("tab", name="Slides").click()
    page.get_by_role("button", name=NAME).click()
    expect(page.get_by_text("1 lesion", exact=True)).to_be_visible()
    held: list[Route] = []
    page.route("**/lesions", lambda route: held.append(route))
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name=NAME).click()
    expect(page.get_by_text("Opening")).to_be_visible()
    accept = page.get_by_role("button", name="Accept")
    accept.click()
    held.pop().continue_()
    expect(page.get_by_text("Opening")).to_be_hidden()
    assert asked == ["Corrections of this slide are not saved. Leave them?"]
    expect(accept).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Save corrections")).to_be_enabled()


def test_nothing_is_lost_while_a_store_is_slow_and_gaps_are_told(page: Page, folder: Path) -> None:
    page.get_by_role("tab", name="Slides").click()
    page.get_by_role("button", name=NAME).click()
    held: list[Route] = []
    page.route("**/corrections", lambda r: held.append(r) if r.request.method == "PUT" else r.continue_())
    page.get_by_role("button", name="Accept").click()
    save = page.get_by_role("button", name="Save corrections")
    save.click()
    expect(page.get_by_text("Saving")).to_be_visible()
    draw_healthy(page)
    expect(save).to_be_disabled()
    held.pop().continue_()
    expect(page.get_by_text("Corrections saved, but for the last ones.")).to_be_visible()
    expect(page.get_by_text("Drawn 1: healthy")).to_be_visible()
    save.click()
    expect(page.get_by_text("Saving")).to_be_visible()
    held.pop().continue_()
    expect(page.get_by_text("Corrections saved.")).to_be_visible()
    kept = read_corrections((folder / "corrections" / f"{NAME}{SUFFIX}").read_bytes(), "the file", NAME)
    assert [c.mark.action for c in kept.corrections] == ["accept", "draw"]

    page.route("**/tiles/**", lambda route: route.fulfill(status=404))
    for _ in range(4):
        page.get_by_role("button", name="Zoom in").click()
    expect(page.get_by_text("A part of the slide could not be read")).to_be_visible()
