"""What axe has against a page, in one theme after another."""

from collections.abc import Sequence

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from .conftest import until

LEVELS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
OF_COLOURS = ["color-contrast", "link-in-text-block"]
# Of what passes one element is enough to know.
BRIEF = {"resultTypes": ["violations"]}
ALL = BRIEF | {"runOnly": LEVELS}
COLOURS = BRIEF | {"runOnly": {"type": "rule", "values": OF_COLOURS}}
"""Most of the time goes into these rules, and no other hangs on the theme."""
ALL_ELSE = ALL | {"rules": {name: {"enabled": False} for name in OF_COLOURS}}
"""Colours don't hang on a page's width."""
# An animation that a page keeps going never ends.
SETTLED = """Promise.race([
    Promise.allSettled(document.getAnimations().map(x => x.finished)),
    new Promise(done => setTimeout(done, 3000)),
]).then(() => true)"""
# A page of code has thousands of words in a dozen dresses, and axe takes milliseconds
# for each. What a style sheet does to a word follows from its class and from those of
# all that it stands in: of each such line of descent one word stays, and the others
# become text of what they stand in, which may be such a word itself.
ALIKE = """() => {
    const all = "pre span[class], code span[class], dt.sig span[class]";
    for (let joined = true; joined;) {
        joined = false;
        const seen = new Set();
        for (const word of document.querySelectorAll(all)) {
            if (word.attributes.length !== 1 || word.firstElementChild) continue;
            const line = [];
            for (let x = word; x; x = x.parentElement) {
                line.push(x.localName, x.className);
            }
            const key = line.join(">");
            joined ||= seen.has(key);
            if (seen.has(key)) word.replaceWith(...word.childNodes);
            else seen.add(key);
        }
    }
}"""


def violations(
    page: Page,
    themes: Sequence[str],
    context: str | dict | None = None,
    rules: dict | None = None,
) -> list[str]:
    """Ask axe about a page in themes.

    Args:
        page: one that is loaded; words of code that look alike are joined in it.
        themes: what to show it in, one after another.
        context: selects the elements that are looked at; all if None.
        rules: which; by default all in the first theme, and those of colours in others.

    Returns:
        A line for each violation of an element.
    """
    found = []
    page.evaluate(ALIKE)
    for theme in themes:
        page.emulate_media(color_scheme=theme)
        until(page, f"document.documentElement.dataset.theme == '{theme}'")
        page.evaluate(SETTLED)
        asked = rules or (ALL if theme == themes[0] else COLOURS)
        result = Axe().run(page, context=context, options=asked).response
        assert result["passes"], "axe checked nothing"
        found += [
            f"{theme}: {rule['id']}: {node['target']} {node['failureSummary']}"
            for rule in result["violations"]
            for node in rule["nodes"]
        ]
    return found
