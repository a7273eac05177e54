"""Load pages of the built site as a reader's browser does, and say what that takes.

The site is served on this machine. Like most hosts the server compresses text, so that
what comes over the wire is what a reader would wait for.
"""

import gzip
import mimetypes
import shutil
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

FRONT = "book/index.html"
KINDS = ("Document", "Stylesheet", "Script", "Font", "Image")
PACKED = ("text/", "javascript", "json", "svg", "xml")
# Watches for formulas, so that nobody has to ask at the right moment.
WATCH = """
window.lastFormula = null;
new MutationObserver(changes => {
  if (changes.some(x => [...x.addedNodes].some(y => y.nodeName === "MJX-CONTAINER"))) {
    window.lastFormula = performance.now();
  }
}).observe(document, {childList: true, subtree: true});
"""
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
TYPESET = "async () => { await window.MathJax?.startup?.promise; return lastFormula; }"


@dataclass(frozen=True)
class Visit:
    """One load of a page.

    Attributes:
        loaded: seconds to the end of the load event.
        typeset: seconds to the last formula; None for a page without any.
        sent: bytes over the wire by kind, with headers.
        unpacked: bytes by kind as the browser sees them.
        requests: how many.
    """

    loaded: float
    typeset: float | None
    sent: dict[str, int]
    unpacked: dict[str, int]
    requests: int

    @property
    def ready(self) -> float:
        """Seconds until the page is loaded and its formulas are set."""
        return max(self.loaded, self.typeset or 0)

    @property
    def weight(self) -> int:
        """Bytes over the wire."""
        return sum(self.sent.values())


@cache
def packed(path: Path, changed: int) -> bytes:
    """Return a file compressed, once for each time that it ``changed``, as hosts do."""
    return gzip.compress(path.read_bytes(), 6)


class Host(BaseHTTPRequestHandler):
    """Serves the folder of its server, text compressed where the browser allows it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a file, or with 404."""
        root = Path(self.server.folder).resolve()
        path = (root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not path.is_file() or not path.is_relative_to(root):
            self.send_error(404)
            return
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        small = any(word in kind for word in PACKED)
        small = small and "gzip" in self.headers.get("Accept-Encoding", "")
        body = packed(path, path.stat().st_mtime_ns) if small else path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if small:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder; gives its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        server.folder = folder
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def chromium() -> Iterator[Any]:
    """Start a headless Chromium: the system's, or else Playwright's own."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


def visit(browser: Any, address: str) -> Visit:
    """Load a page in a context of its own, whose cache is empty."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.add_init_script(WATCH)
    kinds: dict[str, str] = {}
    sent = dict.fromkeys((*KINDS, "Other"), 0)
    unpacked = dict(sent)
    wire = context.new_cdp_session(page)
    wire.send("Network.enable")

    def kind(event: dict[str, Any]) -> str:
        return kinds.get(event["requestId"], "Other")

    def answered(event: dict[str, Any]) -> None:
        if urlsplit(event["response"]["url"]).scheme.startswith("http"):
            name = event["type"]
            kinds[event["requestId"]] = name if name in KINDS else "Other"

    def count(totals: dict[str, int], field: str) -> Callable[[dict[str, Any]], None]:
        def add(event: dict[str, Any]) -> None:
            if event["requestId"] in kinds:
                totals[kind(event)] += int(event[field])

        return add

    wire.on("Network.responseReceived", answered)
    wire.on("Network.dataReceived", count(unpacked, "dataLength"))
    wire.on("Network.loadingFinished", count(sent, "encodedDataLength"))
    page.goto(address, wait_until="load")
    # Playwright's own way evaluates a string in the page, which its policy forbids.
    while not page.evaluate(f"{LOADED} > 0"):
        page.wait_for_timeout(10)
    loaded, typeset = page.evaluate(LOADED), page.evaluate(TYPESET)
    page.wait_for_load_state("networkidle")
    context.close()
    seconds = None if typeset is None else typeset / 1000
    return Visit(loaded / 1000, seconds, sent, unpacked, len(kinds))


def middle(visits: list[Visit]) -> Visit:
    """Return the visits' medians; the bytes are those of the heaviest."""
    heaviest = max(visits, key=lambda one: one.weight)
    typeset = [one.typeset for one in visits if one.typeset is not None]
    return Visit(
        statistics.median(one.loaded for one in visits),
        statistics.median(typeset) if typeset else None,
        heaviest.sent,
        heaviest.unpacked,
        heaviest.requests,
    )


def pages(site: Path, times: int, load: Callable[[str], Visit]) -> dict[str, Visit]:
    """Measure the front page and the chapter that weighs most.

    Args:
        site: the built site.
        times: how often each is loaded.
        load: loads a page by its name.

    Returns:
        Page's name -> its medians, the front page first.

    Raises:
        FileNotFoundError: there is no site, or it has no chapter.
    """
    chapters = sorted(
        x.relative_to(site).as_posix() for x in site.glob("chapters/*.html")
    )
    if not (site / FRONT).is_file() or not chapters:
        raise FileNotFoundError(f"no site in {site}: run make html first")
    largest = max(chapters, key=lambda name: load(name).weight)
    return {
        name: middle([load(name) for _ in range(times)]) for name in (FRONT, largest)
    }
