"""What pages may load and run, as their policies say."""

import re
from collections.abc import Callable

import pytest

from .conftest import until


def rules(soup) -> dict[str, list[str]]:
    """A page's policy, by directive."""
    (tag,) = soup.select('meta[http-equiv="Content-Security-Policy"]')
    parts = (part.split() for part in tag["content"].split(";"))
    return {name: values for name, *values in parts}


def test_every_page_has_a_policy_before_all_else(soups: dict):
    for name, soup in soups.items():
        # What leads on to the book has nothing in it.
        if name == "index.html":
            continue
        found = rules(soup)
        assert found["default-src"] == ["'self'"], name
        assert found["connect-src"] == found["worker-src"] == ["'self'"], name
        scripts = found["script-src"]
        assert {"'self'", "'wasm-unsafe-eval'"} <= set(scripts), name
        assert not {"'unsafe-inline'", "'unsafe-eval'"} & set(scripts), name
        head = [tag.name for tag in soup.head.find_all(True)]
        first = next(i for i, tag in enumerate(head) if tag in ("script", "link"))
        metas = [tag for tag in soup.head.find_all(True)[:first] if tag.name == "meta"]
        assert any("http-equiv" in tag.attrs for tag in metas), name


def test_no_policy_names_another_host(soups: dict):
    for name, soup in soups.items():
        if name != "index.html":
            for values in rules(soup).values():
                assert not [
                    x for x in values if re.search(r"[.*:]", x) and x != "data:"
                ]


def test_a_script_that_the_policy_doesn_t_know_is_not_run(open_page: Callable):
    page = open_page("book/index.html")
    assert not page.errors
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.added = 1";
            document.head.append(script);
        }"""
    )
    assert page.evaluate("window.added") is None
    assert page.errors


def test_nothing_is_fetched_from_another_host(open_page: Callable):
    page = open_page("book/index.html")
    with pytest.raises(Exception, match="fetch"):
        page.evaluate("fetch('https://example.com/')")


def test_the_theme_s_buttons_work(open_page: Callable):
    page = open_page("chapters/parallel.html")
    page.locator(".theme-switch-button:visible").click()
    page.locator(".theme-change-button[data-mode=dark]:visible").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    # What it does stands in the button itself.
    page.locator(".btn-fullscreen-button").click()
    until(page, "document.fullscreenElement !== null")
    assert not page.errors
