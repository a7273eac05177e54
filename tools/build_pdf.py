"""Print the book as a PDF: the site's pages as one, through a headless Chromium.

``make html`` comes first. The pages are printed twice: what page a heading is on is
read from the first print and stands in the second one's table of contents. A print in
which something is cut off or a link leads nowhere is not kept.
"""

import argparse
import codecs
import mimetypes
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import matplotlib
from bind_pages import (
    FIRST,
    Bound,
    bind,
    contents_html,
    read,
    running_heads,
)
from build_book import ROOT, alone
from pypdf import PdfReader

sys.path.insert(0, str(ROOT / "book" / "_ext"))

from bookext.browser import chromium
from bookext.edition import Edition, cover, edition
from bookext.pages import BUNDLE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

NAME = "thinking-in-tiles.pdf"
HOST = "http://book.invalid"
SHEET = Path(__file__).with_name("press.css")
FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")
# Family -> [(file, weight, style)]; matplotlib brings them, so each machine has them.
FAMILIES = {
    "Book Text": [
        ("STIXGeneral.ttf", 400, "normal"),
        ("STIXGeneralBol.ttf", 700, "normal"),
        ("STIXGeneralItalic.ttf", 400, "italic"),
        ("STIXGeneralBolIta.ttf", 700, "italic"),
    ],
    "Book Symbols": [("DejaVuSans.ttf", 400, "normal")],
    "Book Code": [
        ("DejaVuSansMono.ttf", 400, "normal"),
        ("DejaVuSansMono-Bold.ttf", 700, "normal"),
        ("DejaVuSansMono-Oblique.ttf", 400, "italic"),
    ],
}
# At most; two are enough unless the contents take another page than their draft.
PRINTS = 4
# Milliseconds for the page to be there: a busy machine takes longer than the default.
PATIENCE = 300_000
# The width of A4 between the margins of the style sheet, in CSS pixels.
WIDTH = 636
# Formulas ask for fonts once they are set; headings for none before they are laid out.
READY = """() => Promise.resolve(window.MathJax?.startup?.promise)
    .then(() => Promise.allSettled([...document.fonts].map(face => face.load())))
    .then(() => Promise.allSettled([...document.images].map(image => image.decode())))
    .then(() => document.fonts.ready).then(() => true)"""
# A table wider than the sheet is set smaller; what sticks out even so is told.
FIT = """width => {
    const wide = box => box.scrollWidth > width || box.offsetWidth > width;
    for (const table of document.querySelectorAll("article table")) {
        let size = parseFloat(getComputedStyle(table).fontSize);
        while (wide(table) && size > 6) {
            size -= 0.5;
            table.style.fontSize = `${size}px`;
        }
    }
    const boxes = document.querySelectorAll(
        "article :is(p, pre, table, img, svg, mjx-container, h1, h2, h3, li, dt)");
    return [...boxes]
        .filter(box => box.getBoundingClientRect().right > width + 1)
        .map(box => `${box.closest("article").id}: <${box.tagName.toLowerCase()}> `
            + box.textContent.trim().slice(0, 60));
}"""


def faces() -> str:
    """Return a style sheet that names the book's fonts."""
    return "\n".join(
        f'@font-face {{ font-family: "{family}"; src: url("/fonts/{name}"); '
        f"font-weight: {weight}; font-style: {style}; }}"
        for family, files in FAMILIES.items()
        for name, weight, style in files
    )


def imprint(book: Edition) -> str:
    """Return what stands on the second page about this print."""
    return (
        f'<div class="imprint mathjax_ignore"><p>Version {escape(book.version)}, '
        f"{book.date:%Y-%m-%d}. {escape(book.rights)}</p>"
        f"<p>Printed from the pages at "
        f'<a href="{escape(book.url)}">{escape(book.url)}</a>. These have what is not '
        "here: the package's reference, its source, the chapters as notebooks, and the "
        "code that draws the figures.</p></div>"
    )


def page_of(site: Path, bound: Bound, book: Edition, numbers: dict[str, int]) -> str:
    """Return the page that is printed.

    Args:
        site: The built pages, whose style sheets it takes.
        bound: Their articles.
        book: What the cover and the imprint say.
        numbers: Page by heading, for the contents; empty before the first print.
    """
    head = []
    for link in read(site, FIRST).select('head link[rel~="stylesheet"]'):
        path = urlsplit(link["href"]).path.removeprefix("../")
        head.append(f'<link rel="stylesheet" href="/{escape(path)}">')
    if bound.settings:
        head.append(f"<script>{bound.settings}</script>")
        head.append(f'<script src="/_static/mathjax/{BUNDLE}"></script>')
    first, mark, rest = bound.articles.partition("</article>")
    sheet = f"{faces()}\n{SHEET.read_text()}\n{running_heads(bound.titles)}"
    name = escape(f"{book.title}: {book.subtitle}")
    return f"""<!DOCTYPE html>
<html lang="en" data-theme="light" data-mode="light">
<head><meta charset="utf-8"><title>{name}</title>{"".join(head)}
<style>{sheet}</style>
</head>
<body>
<section class="cover mathjax_ignore">
<img src="/cover.svg" alt="Cover: {name}">
</section>
<div class="bd-content">
{first}{imprint(book)}{mark}
<nav class="book-contents bd-article mathjax_ignore" aria-label="Contents">
<h1 id="contents">Contents</h1>
{contents_html(bound.contents, numbers)}
</nav>
{rest}
</div>
</body>
</html>"""


@contextmanager
def opened(browser: "Browser", site: Path, made: dict[str, bytes]) -> "Iterator[Page]":
    """Open "/" as it is printed, with the site's files and no network around it.

    Args:
        browser: Where.
        site: A folder of files.
        made: Files that are not in it, by their paths.
    """

    def serve(route: "Route") -> None:
        parts = urlsplit(route.request.url)
        path = unquote(parts.path).lstrip("/")
        file = FONTS / Path(path).name if path.startswith("fonts/") else site / path
        kind = mimetypes.guess_type(path)[0] or "text/html"
        if f"{parts.scheme}://{parts.netloc}" == HOST and (
            path in made or file.is_file()
        ):
            body = made[path] if path in made else file.read_bytes()
            route.fulfill(body=body, content_type=f"{kind}; charset=utf-8")
        else:
            page.lost.append(route.request.url)
            route.abort()

    page = browser.new_page(viewport={"width": WIDTH, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.lost = []
    page.route("**/*", serve)
    page.emulate_media(media="print", color_scheme="light")
    page.goto(f"{HOST}/")
    page.evaluate(READY)
    yield page
    page.close()


def printed(page: "Page", path: Path) -> dict[str, int]:
    """Print a page.

    Args:
        page: An open page.
        path: Where the PDF goes.

    Returns:
        Page number by the name of what a link inside leads to.
    """
    page.pdf(
        path=path,
        prefer_css_page_size=True,
        print_background=True,
        outline=True,
        tagged=True,
    )
    return numbers_in(PdfReader(path))


def numbers_in(reader: PdfReader) -> dict[str, int]:
    """Return the page number of each named place of a PDF."""
    sheets = {
        sheet.indirect_reference.idnum: number
        for number, sheet in enumerate(reader.pages, 1)
    }
    return {
        name.lstrip("/"): sheets[place.raw_get("/Page").idnum]
        for name, place in reader.named_destinations.items()
    }


def press(browser: "Browser", site: Path, path: Path, book: Edition) -> list[str]:
    """Print a site's pages as one book.

    Args:
        browser: What prints.
        site: The built pages.
        path: Where the PDF goes.
        book: What it says of itself.

    Returns:
        What is wrong with it; nothing if it is whole.
    """
    bound = bind(site, book.url)
    made = {"cover.svg": cover(book, "svg")}
    numbers: dict[str, int] = {}
    for _ in range(PRINTS):
        made[""] = page_of(site, bound, book, numbers).encode()
        # A page that was printed once may be laid out otherwise the next time.
        with opened(browser, site, made) as page:
            wrong = [f"cut off: {said}" for said in page.evaluate(FIT, WIDTH)]
            before, numbers = numbers, printed(page, path)
            wrong += [f"not loaded: {url}" for url in page.lost]
        if numbers == before:
            break
    else:
        wrong.append("contents: pages move with each print")
    wanted = {line.name for line in bound.contents if line.name}
    wrong += [f"no page number: {name}" for name in sorted(wanted - numbers.keys())]
    wrong += bound.wrong
    describe(path, book)
    return wrong


def describe(path: Path, book: Edition) -> None:
    """Say in a PDF what it is and when its source is from, not when it was printed.

    The description is appended, as the format provides for changes: a library that
    reads all objects to write them again takes longer than the print.

    Args:
        path: A PDF as Chromium writes it.
        book: What it says of itself.
    """
    data = path.read_bytes()
    trailer = data[data.rindex(b"trailer") :]
    size, root, info = (
        int(re.search(rb"/%s\s+(\d+)" % key, trailer)[1])
        for key in (b"Size", b"Root", b"Info")
    )
    before = int(re.search(rb"startxref\s+(\d+)", trailer)[1])
    date = book.date.strftime("D:%Y%m%d%H%M%SZ")
    said = {
        "Title": f"{book.title}: {book.subtitle}",
        "Author": ", ".join(book.authors),
        "Subject": f"{book.about} {book.rights}",
        "Creator": f"{book.title} {book.version}, {book.url}",
        "Producer": "Chromium",
        "CreationDate": date,
        "ModDate": date,
    }
    entries = " ".join(
        f"/{key} <{(codecs.BOM_UTF16_BE + text.encode('utf-16-be')).hex()}>"
        for key, text in said.items()
    )
    here = len(data) + 1
    added = f"{info} 0 obj\n<< {entries} >>\nendobj\n"
    table = f"xref\n{info} 1\n{here:010} 00000 n \n"
    end = (
        f"trailer\n<< /Size {size} /Root {root} 0 R /Info {info} 0 R /Prev {before} >>"
    )
    start = f"startxref\n{here + len(added)}\n%%EOF\n"
    path.write_bytes(data + f"\n{added}{table}{end}\n{start}".encode())


def build(source: Path) -> int:
    """Print the book of a folder.

    Args:
        source: The folder with conf.py, whose pages are built.

    Returns:
        0, or 1 with the last good PDF left as it was.
    """
    build, start = source / "_build", time.monotonic()
    site, path = build / "html", build / NAME
    if not (site / FIRST).is_file():
        print("No pages yet: run make html.", file=sys.stderr)
        return 1
    unfinished = path.with_suffix(".new.pdf")
    with alone(build), chromium() as browser:
        wrong = press(browser, site, unfinished, edition())
        if wrong:
            print("\n".join([f"{unfinished}:", *wrong]), file=sys.stderr)
            return 1
        unfinished.replace(path)
    size, seconds = path.stat().st_size / 2**20, time.monotonic() - start
    pages = len(PdfReader(path).pages)
    print(
        f"The PDF is built: {path}, {pages} pages, {size:.1f} MiB, in {seconds:.0f} s."
    )
    return 0


def main() -> int:
    """Print a book as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path, default=ROOT)
    return build(parser.parse_args().source.resolve())


if __name__ == "__main__":
    sys.exit(main())
