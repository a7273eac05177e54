"""What the tests of the built pages share: the pages, a server, a browser."""

import functools
import os
import re
import shutil
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("TILEBOOK_SITE", ROOT / "_build" / "html"))
WIDTHS = {"desktop": 1280, "phone": 390}
THEMES = ("light", "dark")
# A word of highlighted code, whose one attribute is the class of its kind.
WORD = re.compile(r'<span class="[a-z][a-z0-9]?">([^<>]*)</span>')


# Before pytest-xdist looks for groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here: it reads the built site. What is slow begins first.

    One worker parses the pages for all that is asked of them as files.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.site)
            if "soups" in item.fixturenames:
                item.add_marker(pytest.mark.xdist_group("soups"))
    items.sort(key=lambda item: not {"site", "slow"} <= set(item.keywords))


def written_pages() -> list[str]:
    """Return the addresses of the pages that people write or read as text."""
    found = [
        path.relative_to(SITE).as_posix()
        for folder in ("book", "chapters")
        for path in sorted((SITE / folder).rglob("*.html"))
    ]
    sources = sorted((SITE / "_modules" / "tilebook").rglob("*.html"))[:1]
    found += [path.relative_to(SITE).as_posix() for path in sources]
    return [*found, "search.html", "genindex.html"] if found else []


def chapters() -> list[str]:
    """Return the stems of the chapters that the book shows: drafts it leaves out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    stems = {path.stem for path in (ROOT / "chapters").glob("*.md")}
    return sorted(stems - set(project["tool"]["tilebook"]["drafts"]))


@pytest.fixture(scope="session")
def site() -> Path:
    """The built site; without one nothing here can be tested."""
    if not (SITE / "index.html").is_file():
        pytest.exit(f"no site in {SITE}: run make html first", returncode=1)
    return SITE


@pytest.fixture(scope="session")
def soups(site: Path) -> dict[str, BeautifulSoup]:
    """Every page of the site, parsed, by its address; not the theme's templates.

    Words of code are bare text: nine tags in ten, of which a file's test asks nothing.
    """
    return {
        path.relative_to(site).as_posix(): BeautifulSoup(
            WORD.sub(r"\1", path.read_text(encoding="utf-8")), "html.parser"
        )
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.parts
    }


class Quiet(SimpleHTTPRequestHandler):
    """A file server that doesn't log."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """The site's address on a server of its own."""
    handler = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def until(page: Page, holds: str, seconds: float = 30) -> None:
    """Wait until an expression holds on a page.

    Playwright's own way evaluates a string in the page, which its policy forbids.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(holds):
        assert time.monotonic() < end, f"never: {holds}"
        page.wait_for_timeout(20)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium: the system's, or else Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )
        yield chromium
        chromium.close()


@contextmanager
def pages(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Open pages of the site at a width and in a theme; foreign requests are noted."""
    contexts = []

    def opened(name: str, width: str = "desktop", theme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": WIDTHS[width], "height": 900},
            color_scheme=theme,
            permissions=["clipboard-read", "clipboard-write"],
        )
        contexts.append(context)
        page = context.new_page()
        page.foreign = []
        page.errors = []

        def watch(request) -> None:
            if not request.url.startswith((address, "data:", "blob:")):
                page.foreign.append(request.url)

        page.on("request", watch)

        def refused(message) -> None:
            if "Content Security Policy" in message.text:
                page.errors.append(message.text)

        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", refused)
        page.goto(address + name)
        page.wait_for_load_state("networkidle")
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """See `pages`."""
    with pages(browser, address) as opened:
        yield opened
