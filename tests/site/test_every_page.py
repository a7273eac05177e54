"""Every page at both widths: whole, and nothing that axe has against it.

No violation of WCAG 2 A or AA that it can find, in any dress.
"""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from playwright.sync_api import Browser

from . import axe
from .conftest import THEMES, WIDTHS, pages, written_pages

# Characters of a font of icons, which the site doesn't bring.
GLYPHS = r"""[...document.querySelectorAll("*")].flatMap(element =>
    ["::before", "::after"].map(part => getComputedStyle(element, part).content)
).filter(content => /[\ue000-\uf8ff]/.test(content)).length"""


def every() -> Iterator[pytest.param]:
    """Each page at each width; one worker asks all that is asked of it."""
    for name in written_pages():
        for width in WIDTHS:
            one = f"{name}-{width}"
            yield pytest.param(
                (name, width), id=one, marks=pytest.mark.xdist_group(one)
            )


@pytest.fixture(scope="module", params=[*every()])
def shown(
    request: pytest.FixtureRequest, browser: Browser, address: str
) -> Iterator[SimpleNamespace]:
    """A page at a width, loaded once for all that is asked of it."""
    name, width = request.param
    with pages(browser, address) as open_page:
        page = open_page(name, width)
        yield SimpleNamespace(name=name, width=width, page=page)


def test_page_is_whole(shown: SimpleNamespace):
    page = shown.page
    assert not page.foreign
    assert not page.errors
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(overflow) <= 0, "the page scrolls sideways"
    formulas = page.locator("span.math, div.math").count()
    assert page.locator("mjx-container").count() >= formulas
    wrong = "mjx-merror, [data-mjx-error], mjx-mtext[style*=red]"
    assert page.locator(wrong).count() == 0
    assert page.locator("mjx-assistive-mml").count() >= formulas
    assert page.evaluate(GLYPHS) == 0
    broken = "[...document.images].filter(x => x.complete && !x.naturalWidth).length"
    assert page.evaluate(broken) == 0


def test_axe_finds_nothing(shown: SimpleNamespace):
    if shown.width == "desktop":
        # The reference is long and made alike: it gets by with one theme.
        alike = shown.name.startswith(("book/api/", "genindex"))
        found = axe.violations(shown.page, THEMES[:1] if alike else THEMES)
    else:
        found = axe.violations(shown.page, THEMES[1:], rules=axe.ALL_ELSE)
        # What only a phone has is around the article.
        around = {"exclude": [["article"]]}
        found += axe.violations(shown.page, THEMES[1:], around, axe.COLOURS)
    assert not found, "\n".join(found[:10])
