"""What is joined before axe looks hides nothing that it would have found."""

from playwright.sync_api import Browser

from . import axe
from .conftest import THEMES

PAGE = """<!DOCTYPE html><html lang="en"><head><title>Words</title><style>
    pre {{ background: #fff; color: #000; }}
    [data-theme=dark] pre {{ background: #000; color: #fff; }}
    .k {{ color: #00f; }}
    [data-theme=dark] .k {{ color: {dark}; }}
</style></head><body><main><h1>Words</h1>
<div class="highlight"><pre><span class="k">def</span> f():
<span class="k">return</span> <span class="k" style="{own}">pass</span>
<span class="p"><span class="k">and</span></span>
</pre></div></main><script>
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const wear = () => {{
        document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
    }};
    dark.addEventListener("change", wear);
    wear();
</script></body></html>"""


def found(browser: Browser, dark: str = "#fff", own: str = "") -> list[str]:
    """What axe has against a page of words, in both themes."""
    page = browser.new_page()
    try:
        page.set_content(PAGE.format(dark=dark, own=own))
        return axe.violations(page, THEMES)
    finally:
        page.close()


def test_words_that_can_be_read_are_fine(browser: Browser):
    assert found(browser) == []


def test_a_class_that_is_faint_in_one_theme_is_found_once_a_place(browser: Browser):
    faint = found(browser, dark="#333")
    assert faint
    assert all(line.startswith("dark: color-contrast") for line in faint)
    # One for all that stand in the line, one for the word with a style of its own, and
    # one within another word.
    assert len(faint) == 3


def test_a_word_with_a_style_of_its_own_is_looked_at(browser: Browser):
    faint = found(browser, own="color: #eee")
    assert [line.partition(":")[0] for line in faint] == ["light"]


def test_words_are_joined(browser: Browser):
    page = browser.new_page()
    try:
        page.set_content(PAGE.format(dark="#fff", own=""))
        before = page.locator("pre").inner_text()
        axe.violations(page, THEMES[:1])
        assert page.locator("pre span.k").count() == 3
        assert page.locator("pre").inner_text() == before
    finally:
        page.close()
