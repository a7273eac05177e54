"""On paper: the print style sheet on a page, and pages bound to a PDF."""

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT

pypdf = pytest.importorskip("pypdf")

# A4 between margins of 18 mm, in CSS pixels.
WIDTH = 658
GONE = (
    "header.bd-header, .bd-sidebar-primary, .bd-sidebar-secondary, .bd-footer, button",
    "details.hide.above-input, .sd-tab-set > input, .headerlink, .badge-notebook",
)
OPEN = (
    "div.solution > section",
    ".sd-tab-set > label, div.sd-tab-content",
    "details.sd-dropdown > .sd-summary-content",
)
SEEN = """boxes => boxes.map(box => Number(box.offsetHeight > 0
    && box.checkVisibility({opacityProperty: true, visibilityProperty: true})))"""
MENU = """<nav class="bd-links"><li class="toctree-l1"><a href="#">Tiny</a></li>
<span class="caption-text">Chapters</span>
<li class="toctree-l1"><a href="../chapters/one.html">1. One</a></li>
<li class="toctree-l1"><a href="../chapters/two.html">2. Two</a></li></nav>"""
PAGE = """<html><head><link rel="stylesheet" href="../_static/book.css"/>
<link rel="stylesheet" href="../_static/print.css"/></head><body>{menu}
<article class="bd-article"><section id="top"><h1>{title}</h1>{text}</section></article>
</body></html>"""


def test_a_printed_page_is_open_and_whole(open_page: Callable):
    # One that has all of these boxes.
    page = open_page("chapters/memory.html")
    page.set_viewport_size({"width": WIDTH, "height": 1000})
    page.emulate_media(media="print")
    for boxes, visible in {**dict.fromkeys(GONE, 0), **dict.fromkeys(OPEN, 1)}.items():
        found = page.locator(boxes).evaluate_all(SEEN)
        assert not visible or found, boxes
        assert all(seen == visible for seen in found), boxes
    cut = page.locator("article pre").evaluate_all(
        "boxes => boxes.filter(box => box.scrollWidth > box.clientWidth + 1).length"
    )
    assert cut == 0
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.fixture(scope="module")
def tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        patch.syspath_prepend(str(ROOT / "book" / "_ext"))
        yield importlib.import_module("build_pdf")


def small_site(folder: Path, text: str) -> Path:
    """Write a site of three pages, the second of which leads to the third."""
    pages = {
        "book/index.html": ("Tiny", "<p>A book.</p>"),
        "chapters/one.html": ("1. One", text),
        "chapters/two.html": ("2. Two", '<h2 id="end">End</h2><p>The last words.</p>'),
    }
    for name, (title, body) in pages.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAGE.format(menu=MENU, title=title, text=body))
    styles = folder / "_static"
    styles.mkdir(exist_ok=True)
    for name in ("book.css", "print.css"):
        (styles / name).write_bytes((ROOT / "book/_static" / name).read_bytes())
    return folder


def test_pages_are_bound_to_one_pdf(tool, browser, tmp_path):
    text = '<p>An opening, see <a href="two.html#end">the end</a>.</p>'
    long = "<p>And so on.</p>" * 90
    site = small_site(tmp_path, text + long)
    path = tmp_path / "book.pdf"
    book = tool.edition()
    assert tool.press(browser, site, path, book) == []
    reader = pypdf.PdfReader(path)
    texts = [page.extract_text() for page in reader.pages]
    first = next(i for i, x in enumerate(texts) if "An opening" in x)
    last = next(i for i, x in enumerate(texts) if "The last words" in x)
    # Cover, title, contents; the first chapter takes more than one sheet.
    assert first == 3
    assert last > first + 1
    assert len(texts) == last + 1
    assert f"{first + 1}" in texts[2]
    assert f"{last + 1}" in texts[2]
    assert all(str(i + 1) in texts[i].split() for i in (first, last))
    assert [x.title for x in reader.outline if not isinstance(x, list)][-2:] == [
        "1. One",
        "2. Two",
    ]
    links = [x.get_object() for x in reader.pages[first].get("/Annots", ())]
    assert any("--end" in str(x.get("/Dest", "")) for x in links)
    assert tool.numbers_in(reader)["chapters-two--end"] == last + 1
    assert reader.metadata.creation_date == book.date
    assert {round(float(x)) for x in reader.pages[first].mediabox[2:]} == {595, 842}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '<p style="width: 2000px">Too wide.</p>',
            "cut off: chapters-one: <p> Too wide.",
        ),
        ('<img src="gone.svg" alt="x"/>', "not loaded"),
        ('<img src="https://example.invalid/a.svg" alt="x"/>', "not loaded"),
        ('<a href="two.html#lost">x</a>', "no anchor: #chapters-two--lost"),
    ],
)
def test_what_would_be_lost_on_paper_is_told(
    tool, browser, tmp_path, text: str, said: str
):
    site = small_site(tmp_path, text)
    wrong = tool.press(browser, site, tmp_path / "book.pdf", tool.edition())
    assert any(line.startswith(said) for line in wrong), wrong
