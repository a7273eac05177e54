"""The printed book: pages made into one, its contents, what a PDF says of itself."""

import importlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[1]
BASE = "https://example.invalid/tiny/"
MENU = """<nav class="bd-links">
<ul><li class="toctree-l1"><a href="#">Tiny</a></li></ul>
<p class="caption"><span class="caption-text">I Chapters</span></p>
<ul><li class="toctree-l1"><a href="../chapters/one.html">1. The first</a></li></ul>
<p class="caption"><span class="caption-text">Reference</span></p>
<ul><li class="toctree-l1"><a href="api.html">API</a>
<ul><li class="toctree-l2"><a href="api/one.html">one</a></li></ul></li>
<li class="toctree-l1"><a href="glossary.html">Glossary</a></li></ul></nav>"""
ONE = """<section id="first">
<h1>1. The first<a class="headerlink" href="#first">#</a></h1>
<section id="part"><h2>1.1. A part &amp; more</h2>
<p>See <a href="../book/glossary.html#tile">tile</a>, <a href="#part">above</a>,
<a href="../book/api/one.html#add">add</a>, <a href="https://example.invalid/">out</a>,
<a href="../book/glossary.html">all</a>.</p>
<div class="sd-tab-set"><input checked id="t0" type="radio"/><label class="sd-tab-label"
for="t0" aria-controls="c0">One GPU</label>
<div class="sd-tab-content" id="c0">x</div></div>
<details class="sd-dropdown"><summary><span>Hint</span></summary><p>Count.</p></details>
<details class="admonition hide above-input"><summary>Show</summary>
<div class="cell_input">folded away</div></details>
<details class="admonition hide below-input"><summary>Show</summary>
<div class="cell_output">printed</div></details>
<svg><rect id="r" fill="url(#g)"/><linearGradient id="g"/></svg>
<img src="../_images/a.svg" alt="A"/>
<pre>short</pre><pre>{long}</pre></section></section>"""
GLOSSARY = """<section id="glossary"><h1>Glossary</h1><p id="tile">A block.
<a href="../chapters/one.html#part">there</a></p></section>"""


@pytest.fixture(scope="module")
def tools() -> Callable[[str], ModuleType]:
    """Import a tool by its name, as one that is run imports others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        patch.syspath_prepend(str(ROOT / "book" / "_ext"))
        yield importlib.import_module


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Pages like the site's."""
    pages = {
        "book/index.html": '<section id="tiny"><h1>Tiny</h1></section>',
        "chapters/one.html": ONE.format(long="line\n" * 40),
        "book/glossary.html": GLOSSARY,
    }
    for name, text in pages.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "<html><head><script>window.MathJax = {}</script></head><body>"
            f'{MENU}<article class="bd-article">{text}</article></body></html>'
        )
    return tmp_path


def test_pages_come_in_the_menus_order_without_the_reference(site, tools):
    tool = tools("bind_pages")
    entries = list(tool.in_order(tool.read(site, tool.FIRST)))
    assert [tuple(x) for x in entries] == [
        ("book/index.html", ""),
        ("chapters/one.html", "I Chapters"),
        ("book/glossary.html", "Reference"),
    ]


def test_links_stay_inside_where_they_can(site, tools):
    bound = tools("bind_pages").bind(site, BASE)
    page = BeautifulSoup(bound.articles, "html.parser")
    assert [x["href"] for x in page.select("#chapters-one a")] == [
        "#book-glossary--tile",
        "#chapters-one--part",
        f"{BASE}book/api/one.html#add",
        "https://example.invalid/",
        "#book-glossary",
    ]
    ids = [x["id"] for x in page.select("[id]")]
    assert len(ids) == len(set(ids))
    assert page.rect["fill"] == "url(#chapters-one--g)"
    assert page.img["src"] == "/_images/a.svg"
    assert bound.wrong == []
    assert bound.settings == "window.MathJax = {}"


def test_what_is_folded_is_open_and_what_a_screen_needs_is_gone(site, tools):
    bound = tools("bind_pages").bind(site, BASE)
    page = BeautifulSoup(bound.articles, "html.parser")
    assert not page.select("details, summary, input, label, .headerlink")
    assert page.select_one("p.tab").get_text() == "One GPU"
    assert page.select_one("p.admonition-title").get_text() == "Hint"
    text = page.get_text()
    assert "printed" in text
    assert "folded away" not in text
    assert [x.get("class") for x in page.select("pre")] == [["short"], None]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("#tile", "#lost", "no anchor: #book-glossary--lost"),
        ('id="part"', 'id="first"', "twice: chapters-one--first"),
    ],
)
def test_a_broken_link_and_a_second_id_are_told(site, tools, old, new, said):
    path = site / "chapters" / "one.html"
    path.write_text(path.read_text().replace(old, new))
    assert said in tools("bind_pages").bind(site, BASE).wrong


def test_a_page_without_a_title_is_refused(site, tools):
    path = site / "book" / "glossary.html"
    path.write_text(path.read_text().replace("h1>", "p>"))
    with pytest.raises(ValueError, match=r"book/glossary\.html has no title"):
        tools("bind_pages").bind(site, BASE)


def test_contents_name_parts_pages_and_sections(site, tools):
    tool = tools("bind_pages")
    bound = tool.bind(site, BASE)
    assert [tuple(x) for x in bound.contents] == [
        (0, "", "I Chapters"),
        (1, "chapters-one", "1. The first"),
        (2, "chapters-one--part", "1.1. A part & more"),
        (0, "", "Reference"),
        (1, "book-glossary", "Glossary"),
    ]
    numbers = {"chapters-one": 4, "book-glossary": 17}
    page = BeautifulSoup(tool.contents_html(bound.contents, numbers), "html.parser")
    assert [x.get_text() for x in page.select(".number")] == ["4", "000", "17"]
    assert [x["href"] for x in page.select("a")] == [
        f"#{x.name}" for x in bound.contents if x.name
    ]
    assert "A part & more" in page.get_text()
    heads = tool.running_heads({"one": 'A "quoted" \\ title'})
    assert '@page one { @top-left { content: "A \\"quoted\\" \\\\ title"; } }' in heads


def small_pdf(path: Path) -> None:
    """Write a PDF of one empty page, dated by the clock, as Chromium lays it out."""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>",
        "<< /Title (Old) /CreationDate (D:20300101000000+00'00') >>",
    ]
    text, places = "%PDF-1.4\n", []
    for number, said in enumerate(objects, 1):
        places.append(len(text))
        text += f"{number} 0 obj\n{said}\nendobj\n"
    start = len(text)
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    text += (
        f"xref\n0 5\n0000000000 65535 f \n{table}"
        "trailer\n<< /Size 5\n/Root 1 0 R\n/Info 4 0 R >>\n"
        f"startxref\n{start}\n%%EOF\n"
    )
    path.write_text(text)


def test_a_pdf_says_what_it_is_and_when_its_source_is_from(tools, tmp_path):
    pypdf = pytest.importorskip("pypdf")
    tool, book = tools("build_pdf"), tools("bookext.edition").edition()
    path = tmp_path / "small.pdf"
    small_pdf(path)
    assert pypdf.PdfReader(path).metadata.title == "Old"
    tool.describe(path, book)
    reader = pypdf.PdfReader(path, strict=True)
    assert reader.metadata.title == f"{book.title}: {book.subtitle}"
    assert reader.metadata.author == ", ".join(book.authors)
    assert reader.metadata.creation_date == book.date
    assert "CC BY 4.0" in reader.metadata.subject
    assert len(reader.pages) == 1


def test_without_pages_nothing_is_printed(tools, tmp_path, capsys):
    pytest.importorskip("pypdf")
    assert tools("build_pdf").build(tmp_path) == 1
    assert "make html" in capsys.readouterr().err


def test_the_date_is_the_sources(tools, tmp_path, monkeypatch):
    edition = tools("bookext.edition")
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert edition.changed(tmp_path) == max(edition.measured())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert edition.changed(tmp_path) == datetime(1970, 1, 2, tzinfo=UTC)


def test_the_cover_is_the_same_each_time(tools):
    edition = tools("bookext.edition")
    book = edition.edition()._replace(title="A title", date=datetime.now(UTC))
    png = edition.cover(book, "png")
    assert png == edition.cover(book, "png")
    assert png[16:24] == (1600).to_bytes(4, "big") + (2400).to_bytes(4, "big")
    assert png != edition.cover(book._replace(title="Another"), "png")
    assert re.search(rb"<svg\b", edition.cover(book, "svg"))
    with pytest.raises(ValueError, match="form: got 'gif'"):
        edition.cover(book, "gif")
