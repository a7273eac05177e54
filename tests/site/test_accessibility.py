"""No violation of WCAG 2 A or AA that axe can find, on any page, in any dress."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from .conftest import THEMES, WIDTHS, written_pages

# An animation that a page keeps going never ends.
SETTLED = """Promise.race([
    Promise.allSettled(document.getAnimations().map(x => x.finished)),
    new Promise(done => setTimeout(done, 3000)),
]).then(() => true)"""
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"],
    # Of what passes one element is enough to know.
    "resultTypes": ["violations"],
}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", written_pages())
def test_axe_finds_nothing(open_page, name: str, width: str):
    found = []
    # Colours don't change with the width, nor sizes with the theme; the reference is
    # long and made alike, and gets by with one theme at each width.
    themes = THEMES if width == "desktop" else THEMES[1:]
    if name.startswith("book/api/") and width == "desktop":
        themes = THEMES[:1]
    page = open_page(name, width, themes[0])
    for theme in themes:
        page.emulate_media(color_scheme=theme)
        page.wait_for_function(f"document.documentElement.dataset.theme == '{theme}'")
        page.evaluate(SETTLED)
        result = Axe().run(page, options=RULES).response
        assert result["passes"], "axe checked nothing"
        found += [
            f"{theme}: {rule['id']}: {node['target']} {node['failureSummary']}"
            for rule in result["violations"]
            for node in rule["nodes"]
        ]
    assert not found, "\n".join(found[:10])
