"""The pages in a browser: nothing foreign, every button works, at both widths."""

import pytest

from .conftest import WIDTHS, chapters, written_pages

CHAPTER = f"chapters/{chapters()[0]}.html" if chapters() else "book/preface.html"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", written_pages())
def test_page_is_whole(open_page, name: str, width: str):
    page = open_page(name, width)
    assert not page.foreign
    assert not page.errors
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(overflow) <= 0, "the page scrolls sideways"
    formulas = page.locator("span.math, div.math").count()
    assert page.locator("mjx-container").count() >= formulas
    broken = "[...document.images].filter(x => x.complete && !x.naturalWidth).length"
    assert page.evaluate(broken) == 0


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
