"""The page in a real Chromium against a real endpoint: files in, verdicts out, by keyboard, with and without a key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from page_parts import browser
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from served_parts import served
from serving_parts import encode, make_parts, random_patches

from sentinode.bundle.bundle import open_bundle
from sentinode.bundle.stain import StainStatistics
from sentinode.serving.args import ServeArgs
from sentinode.serving.asgi import create_app
from sentinode.serving.auth import ApiKeys
from sentinode.serving.engine import Engine
from sentinode.storage import open_store

KEY = "0123456789abcdef-page"
WAIT_MS = 60_000
CONTRAST = """() => {
  const luminance = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const colour = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c.slice(0, 3);
    }
    return colour(getComputedStyle(document.body).backgroundColor);
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".skip, .hidden, :disabled")) continue;
    const pair = [colour(getComputedStyle(element).color).slice(0, 3), ground(element)].map(luminance);
    const [a, b] = pair.sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    const what = `${element.tagName}.${element.className} ${element.textContent.slice(0, 30)}`;
    if (ratio < 4.5) low.push(`${what}: ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("page")
    store, parts = open_store(str(folder / "registry")), make_parts(folder / "parts")
    card = parts.card.model_copy(update={"stain": StainStatistics.of(random_patches(200, seed=5))})
    return Engine(open_bundle(store, parts.seal(store, card), folder / "cache"))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("patches")
    one, two, three = random_patches(3, seed=9)
    (folder / "one.png").write_bytes(encode(one, "PNG"))
    (folder / "two.jpg").write_bytes(encode(two, "JPEG", quality=95))
    (folder / "three.tif").write_bytes(encode(three, "TIFF"))
    (folder / "blank.png").write_bytes(encode(np.full((96, 96, 3), 240, np.uint8), "PNG"))
    (folder / "<b>large.png").write_bytes(encode(np.zeros((200, 200, 3), np.uint8), "PNG"))
    return sorted(folder.iterdir())


@pytest.fixture
def open_page(engine: Engine, chromium: Browser) -> Iterator[Page]:
    yield from page_of(engine, chromium, ApiKeys())


@pytest.fixture
def locked_page(engine: Engine, chromium: Browser) -> Iterator[Page]:
    yield from page_of(engine, chromium, ApiKeys([KEY]))


def page_of(engine: Engine, chromium: Browser, keys: ApiKeys, **options: object) -> Iterator[Page]:
    """The page, open; fails where it logged an error or asked anybody but the endpoint."""
    args = ServeArgs(registry="unused", bundle=engine.bundle.digest)
    with served(create_app(engine, args, keys)) as url:
        page = chromium.new_page(**options)  # type: ignore[arg-type]
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda m: wrong.append(m.text) if "Content Security" in m.text or "CSP" in m.text else None,
        )
        page.on("request", lambda r: None if r.url.startswith((url, "blob:" + url)) else wrong.append(r.url))
        page.goto(url)
        try:
            yield page
        finally:
            page.close()
        assert wrong == []


def choose(page: Page, files: list[Path]) -> None:
    page.locator("#files").set_input_files(files)
    expect(page.locator("#summary")).not_to_contain_text("to come", timeout=WAIT_MS)


def test_patches_get_verdicts_flags_and_reasons(open_page: Page, files: list[Path], engine: Engine) -> None:
    choose(open_page, files)
    expect(open_page.locator("#summary")).to_contain_text("5 patches")
    expect(open_page.locator("#summary")).to_contain_text("1 without verdict, 1 refused")
    image = np.asarray(Image.open(next(f for f in files if f.name == "one.png")))
    probability = engine.predict(image[None]).probabilities_B[0]
    row = open_page.locator(".result", has_text="one.png")
    expect(row.locator(".percent")).to_have_text(f"{100 * probability:.1f} %")
    expect(row.locator("canvas")).to_be_visible()
    expect(open_page.locator(".result", has_text="three.tif").locator("canvas")).to_be_visible()
    open_page.locator(".result", has_text="blank.png").click()
    expect(open_page.locator("#detail")).to_contain_text("next to nothing on this patch")
    expect(open_page.locator("#detail .percent")).to_have_count(0)
    open_page.locator(".result", has_text="<b>large.png").click()
    expect(open_page.locator("#detail")).to_contain_text("200x200")
    assert open_page.locator("main b:not(.meter b)").count() == 0, "a file's name is text, not markup"


def test_a_probability_of_one_reads_as_its_neighbours_do(open_page: Page) -> None:
    shown = open_page.evaluate(
        """async () => { const { percent } = await import(new URL("viewer/dom.js", document.baseURI));
        return [1, 0.9995, 0.999, 0.5, 0.0005].map(percent); }"""
    )
    assert shown == ["> 99.9 %", "> 99.9 %", "99.9 %", "50.0 %", "< 0.1 %"]


def test_dropped_files_are_scored_and_ordered(open_page: Page, files: list[Path]) -> None:
    dropped = [[f.name, f.read_bytes().hex()] for f in files if f.name in ("blank.png", "one.png", "two.jpg")]
    open_page.evaluate(
        """(files) => {
          const transfer = new DataTransfer();
          for (const [name, hex] of files)
            transfer.items.add(new File([new Uint8Array(hex.match(/../g).map((b) => parseInt(b, 16)))], name));
          const how = { dataTransfer: transfer, bubbles: true, cancelable: true };
          document.body.dispatchEvent(new DragEvent("drop", how));
        }""",
        dropped,
    )
    expect(open_page.locator("#announce")).to_contain_text("3 patches", timeout=WAIT_MS)
    open_page.locator("#order").select_option("unsure")
    expect(open_page.locator(".result").first).to_contain_text("blank.png")
    open_page.locator("#order").select_option("high")
    shown = open_page.locator(".result .percent").all_text_contents()[:2]
    assert float(shown[0].split()[-2]) >= float(shown[1].split()[-2])
    with open_page.expect_download() as saved:
        open_page.locator("#save").click()
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0].startswith("file,probability,verdict,flags")
    assert sum("no verdict,blank" in line for line in lines) == 1
    open_page.locator("#clear").click()
    expect(open_page.locator(".result")).to_have_count(0)


def test_explanation_is_laid_over_the_patch(open_page: Page, files: list[Path]) -> None:
    choose(open_page, [f for f in files if f.name in ("one.png", "two.jpg")])
    open_page.locator("#explain").click()
    overlay = open_page.locator("#detail .overlay")
    expect(overlay).to_be_visible(timeout=WAIT_MS)
    open_page.locator("#opacity").fill("25")
    assert overlay.evaluate("image => image.style.opacity") == "0.25"
    assert overlay.evaluate("image => image.complete && image.naturalWidth") == 96
    expect(open_page.locator("#detail")).to_contain_text("not where tumour is")


def test_keyboard_is_enough(open_page: Page, files: list[Path]) -> None:
    open_page.keyboard.press("Tab")
    expect(open_page.locator(".skip")).to_be_focused()
    with open_page.expect_file_chooser() as chooser:
        open_page.locator("#choose").press("Enter")
    chooser.value.set_files([f for f in files if f.suffix in (".jpg", ".tif")])
    expect(open_page.locator("#summary")).to_contain_text("2 patches", timeout=WAIT_MS)
    expect(open_page.locator("#summary")).not_to_contain_text("to come", timeout=WAIT_MS)
    first, second = (open_page.locator(".result").nth(i) for i in (0, 1))
    first.press("ArrowDown")
    expect(second).to_be_focused()
    second.press("Enter")
    expect(second).to_have_attribute("aria-current", "true")
    open_page.locator("#tab-patches").press("ArrowRight")
    expect(open_page.locator("#tab-card")).to_be_focused()
    expect(open_page.locator("#view-card")).to_be_visible()
    expect(open_page.locator("#view-patches")).to_be_hidden()


def test_card_shows_points_figures_and_limits(open_page: Page, engine: Engine) -> None:
    open_page.locator("#tab-card").click()
    card = open_page.locator("#view-card")
    expect(card).to_contain_text(engine.bundle.digest, timeout=WAIT_MS)
    for text in (
        "balanced (default)",
        "80.0 %",
        "Research use only",
        "nothing about a slide or a patient",
        "Apache-2.0",
    ):
        expect(card).to_contain_text(text)


def test_key_is_asked_for_used_and_not_kept(locked_page: Page, files: list[Path]) -> None:
    expect(locked_page.locator("#trouble")).to_contain_text("Enter an API key", timeout=WAIT_MS)
    locked_page.locator("#files").set_input_files([f for f in files if f.name == "one.png"])
    expect(locked_page.locator("#summary")).to_contain_text("1 refused", timeout=WAIT_MS)
    locked_page.locator("#key").fill(KEY)
    locked_page.locator("#key").press("Enter")
    expect(locked_page.locator("#trouble")).to_be_hidden(timeout=WAIT_MS)
    expect(locked_page.locator("#summary")).to_contain_text(
        re.compile("1 (tumour|negative)"), timeout=WAIT_MS
    )
    kept = locked_page.evaluate("() => [localStorage.length, sessionStorage.length, document.cookie]")
    assert kept == [0, 0, ""]
    locked_page.reload()
    expect(locked_page.locator("#trouble")).to_contain_text("Enter an API key", timeout=WAIT_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_and_names_meet_wcag_aa(
    engine: Engine, chromium: Browser, files: list[Path], scheme: str
) -> None:
    pages = page_of(engine, chromium, ApiKeys(), color_scheme=scheme, viewport={"width": 390, "height": 844})
    page = next(pages)
    choose(page, files)
    for name in ("blank.png", "one.png", "<b>large.png"):
        page.locator(".result", has_text=name).click()
        assert page.evaluate(CONTRAST) == []
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select")].filter((e) => e.checkVisibility())
        .filter((e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), (
        "no sideways scrolling on a phone"
    )
    page.locator("#tab-card").click()
    assert page.evaluate(CONTRAST) == []
    next(pages, None)
