"""Pages in a browser: every button works, at both widths; what they weigh."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Browser

from .conftest import ROOT, WIDTHS, chapters, until

PAGES = [f"chapters/{stem}.html" for stem in chapters()]
CHAPTER = PAGES[0] if PAGES else "book/preface.html"


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark of the site."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("site_speed")


@pytest.mark.parametrize("name", ["book/index.html", *PAGES])
def test_a_page_weighs_less_than_its_target(
    browser: Browser, site: Path, speed: ModuleType, name: str
):
    """Bytes only: times are for `make speed`, on a machine that does nothing else."""
    with speed.served(site) as address:
        weight = speed.visit(browser, address + name).weight
    assert 0 < weight < 1e6 * speed.TARGETS["front page, weight"].limit


def test_icons_are_drawn_and_no_font_of_them_is_loaded(open_page):
    page = open_page(CHAPTER)
    sizes = page.evaluate(
        """[...document.querySelectorAll(".fas, .fab, .fa-solid")]
           .filter(x => x.checkVisibility()).map(x => {
             const style = getComputedStyle(x, "::before");
             return [parseFloat(style.width), style.maskImage];
           })"""
    )
    assert len(sizes) > 5
    for width, mask in sizes:
        assert width > 8
        assert mask.startswith('url("data:image/svg+xml')
    loaded = page.evaluate("performance.getEntriesByType('resource').map(x => x.name)")
    assert not [x for x in loaded if "fontawesome" in x or "webfonts" in x]


def test_pictures_keep_their_place_until_they_are_loaded(open_page):
    page = open_page(CHAPTER)
    height = "document.documentElement.scrollHeight"
    before = page.evaluate(height)
    page.evaluate("for (const x of document.images) x.loading = 'eager'")
    until(page, "[...document.images].every(x => x.complete)")
    assert abs(page.evaluate(height) - before) < 40


@pytest.mark.parametrize("width", WIDTHS)
def test_menu_opens_and_leads_to_a_page(open_page, width: str):
    page = open_page(CHAPTER, width)
    button = page.locator("button.primary-toggle:visible").first
    link = page.locator("nav.bd-links a:visible", has_text="Glossary").first
    if width == "desktop":
        assert link.is_visible()
        button.click()
        link.wait_for(state="hidden")
    button.click()
    link.wait_for(state="visible")
    link.click()
    page.wait_for_url("**/book/glossary.html")


@pytest.mark.parametrize("width", WIDTHS)
def test_search_finds_a_term(open_page, width: str):
    page = open_page(CHAPTER, width)
    page.locator(
        "button.search-button-field:visible, .search-button:visible"
    ).first.click()
    box = page.locator("input[type=search]:visible").first
    box.fill("coalescing")
    box.press("Enter")
    page.wait_for_url("**/search.html?q=coalescing**")
    result = page.locator("#search-results a", has_text="Glossary").first
    result.wait_for(state="visible", timeout=20_000)
    assert page.locator("#searchbox, .search-button__search-container").count() <= 1
    assert not page.foreign


@pytest.mark.parametrize("width", WIDTHS)
def test_dark_mode_can_be_chosen_and_stays(open_page, width: str):
    page = open_page(CHAPTER, width)
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    page.locator("button.theme-switch-button:visible").first.click()
    page.locator(".theme-change-button[data-mode=dark]:visible").click()
    assert page.evaluate(theme) == "dark"
    page.reload()
    assert page.evaluate(theme) == "dark"


@pytest.mark.parametrize("width", WIDTHS)
def test_copy_button_copies_the_code(open_page, width: str):
    page = open_page(CHAPTER, width)
    block = page.locator("div.highlight:visible", has=page.locator("button.copybtn"))
    code = block.first.locator("pre").inner_text()
    block.first.hover()
    block.first.locator("button.copybtn").click()
    page.locator("button.copybtn.success").first.wait_for(state="attached")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == code.strip()


@pytest.mark.parametrize("width", WIDTHS)
def test_solutions_are_folded_and_open(open_page, width: str):
    page = open_page(CHAPTER, width)
    for box in page.locator("div.solution").all():
        body = box.locator("> :not(.admonition-title)").first
        assert not body.is_visible()
        box.locator(".admonition-title").first.click()
        body.wait_for(state="visible")


def test_the_root_leads_to_the_book(open_page):
    page = open_page("")
    page.wait_for_url("**/book/index.html")
    assert page.locator("h1").first.inner_text().startswith("Thinking in Tiles")
