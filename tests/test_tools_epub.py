"""The EPUB: a small book of every kind of content, and the checks of a book."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("sphinx_design")

# One worker makes the book.
pytestmark = pytest.mark.xdist_group("epub")

ROOT = Path(__file__).resolve().parents[1]
BASE = "https://example.invalid/tiny/"
EPOCH = 1_700_000_000
BROWSER = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))

CONF = f"""\
import sys
sys.path[:0] = [{str(ROOT / "book" / "_ext")!r}]
from docutils import nodes
project, author, version, language = "Tiny", "A", "1", "en"
root_doc, html_baseurl = "book/index", {BASE!r}
extensions = ["myst_nb", "sphinx_design", "bookext.epub"]
source_suffix = {{".md": "myst-nb"}}
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"
exclude_patterns = ["_build"]


def add(app, doctree):
    if app.env.docname == "chapters/one":
        for address in ("one.ipynb", "../_modules/tile.html#add"):
            link = nodes.reference("", "away", refuri=address, internal=True)
            doctree.next_node(nodes.section).append(nodes.paragraph("", "", link))
        html = '<table border="1"><tr><td>a&nbsp;b<br></td></tr></table>'
        html += '<svg role="img" aria-label="A square"><path d="M0 0h1v1"/></svg>'
        style = "<style scoped>td {{}}</style>"
        raw = nodes.raw("", style + html, format="html")
        doctree.next_node(nodes.section).append(raw)


def setup(app):
    app.connect("doctree-read", add)
"""
INDEX = """\
# Tiny

A book.

```{toctree}
/chapters/one
/chapters/two
```
"""
ONE = """\
---
file_format: mystnb
kernelspec:
  name: python3
  display_name: Python 3
  language: python
---
# The first

(here)=
## A section

See {ref}`there` and [outside](https://example.invalid/other).

```{figure} picture.svg
:alt: Four cells in a row.
A tile.
```

````{tab-set}
```{tab-item} One GPU
The first tab.
```
```{tab-item} Another
The second tab.
```
````

```{code-cell} python3
:tags: [hide-input]
folded_away = 1
```

```{code-cell} python3
shown_here = 1
```
"""
TWO = """\
# The second

(there)=
## Another section

```{dropdown} Hint
Count from the end.
```

Back to {ref}`here`. @formula@
"""
PICTURE = """\
<?xml version="1.0"?>
<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN"
  "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">
<svg xmlns="http://www.w3.org/2000/svg"><path id="space"/></svg>
"""


@pytest.fixture(scope="module")
def tools() -> Callable[[str], ModuleType]:
    """Import a tool by its name, as one that is run imports others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        patch.syspath_prepend(str(ROOT / "book" / "_ext"))
        yield importlib.import_module


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small book; with a formula where there is a browser to set it."""
    folder = tmp_path_factory.mktemp("epub")
    formula = "$\\frac{a}{b} < c$" if BROWSER else ""
    files = {
        "conf.py": CONF,
        "book/index.md": INDEX,
        "chapters/one.md": ONE,
        "chapters/two.md": TWO.replace("@formula@", formula),
        "chapters/picture.svg": PICTURE,
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-b", "epub", "-q", "-n", "-W"]
    done = subprocess.run(
        [
            *command,
            "-d",
            str(folder / "_build"),
            str(folder),
            str(folder / "_build/epub"),
        ],
        env=os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return folder / "_build" / "epub" / "thinking-in-tiles.epub"


def text_of(path: Path, name: str) -> str:
    with zipfile.ZipFile(path) as file:
        return file.read(name).decode()


def test_a_small_book_is_sound(book, tools):
    assert tools("check_epub").problems(book) == []


def test_tabs_and_folds_are_open_and_hidden_code_is_left_out(book):
    page = text_of(book, "chapters/one.xhtml")
    titles = re.findall(r'<p class="tab">([^<]*)</p>', page)
    assert titles == ["One GPU", "Another"]
    assert page.index("The first tab.") < page.index("The second tab.")
    assert "shown_here" in page
    assert "folded_away" not in page
    other = text_of(book, "chapters/two.xhtml")
    assert '<p class="admonition-title">Hint</p>' in other
    assert "<details" not in page + other


def test_links_lead_to_pages_or_to_the_site(book):
    page = text_of(book, "chapters/one.xhtml")
    assert 'href="two.xhtml#there"' in page
    assert f'href="{BASE}chapters/one.ipynb"' in page
    assert f'href="{BASE}_modules/tile.html#add"' in page


def test_what_cells_drew_becomes_xml(book):
    page = text_of(book, "chapters/one.xhtml")
    assert "<style" not in page
    assert 'border="1"' not in page
    assert "a\N{NO-BREAK SPACE}b<br />" in page
    assert '<svg xmlns="http://www.w3.org/2000/svg"' in page


def test_pictures_lose_what_a_book_may_not_hold(book):
    with zipfile.ZipFile(book) as file:
        [name] = [x for x in file.namelist() if x.endswith(".svg")]
        picture = file.read(name).decode()
    assert "DOCTYPE" not in picture
    assert re.search(r'<path d=""\s+id="space"', picture)


def test_the_book_says_what_it_is_and_when_its_source_is_from(book):
    package = text_of(book, "content.opf")
    assert "<dc:title>Thinking in Tiles: " in package
    assert "CC BY 4.0" in package
    date = datetime.fromtimestamp(EPOCH, UTC)
    assert f"<dc:date>{date:%Y-%m-%dT%H:%M:%SZ}</dc:date>" in package
    with zipfile.ZipFile(book) as file:
        dates = {info.date_time for info in file.infolist()}
    assert dates == {date.timetuple()[:6]}


@pytest.mark.skipif(not BROWSER, reason="formulas are set by Chromium")
def test_formulas_are_mathml_that_says_its_tex(book, tools):
    page = text_of(book, "chapters/two.xhtml")
    assert '<math alttext="\\frac{a}{b} &lt; c"' in page
    assert "<mfrac><mi>a</mi><mi>b</mi></mfrac>" in page
    formulas = tools("bookext.formulas")
    lines = (r"a &= b \\ c &= d", True)
    made = formulas.marked_up([(r"\unheard{x}", False), (r"\frac{a", False), lines])
    assert "unheard" in formulas.error_in(made[r"\unheard{x}", False])
    assert formulas.error_in(made[r"\frac{a", False])
    from docutils import nodes

    split = formulas.formula_of(nodes.math_block("", lines[0]))
    assert split == (rf"\begin{{split}}{lines[0]}\end{{split}}", True)


def swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("chapters/one.xhtml", swap("two.xhtml#there", "two.xhtml#lost"), "no anchor"),
        ("chapters/one.xhtml", swap("two.xhtml#there", "six.xhtml#there"), "no file"),
        ("chapters/one.xhtml", swap("<h2>", "<h2><script></script>"), "<script> needs"),
        ("chapters/one.xhtml", swap("<h2>", '<h2 onclick="x()">'), "<h2> needs"),
        ("chapters/one.xhtml", swap('alt="Four', 'title="Four'), "no alternative"),
        ("chapters/one.xhtml", swap("aria-label", "data-label"), "a drawing"),
        ("chapters/one.xhtml", swap("<h2>", "<h2><br>"), "no XML"),
        ("chapters/one.xhtml", swap("<h2>", '<h2 id="here">'), "2 times the id"),
        ("chapters/one.xhtml", swap('lang="en"', ""), "no language"),
        ("chapters/one.xhtml", swap('<svg xmlns="', '<svg data-x="'), "namespace"),
        (
            "chapters/one.xhtml",
            swap('src="../_images', 'src="https://example.invalid'),
            "<img> loads",
        ),
        ("content.opf", swap(' properties="svg"', ""), "svg is not said"),
        ("content.opf", swap(' properties="nav"', ""), "0 items are its nav"),
        ("content.opf", swap(' properties="cover-image"', ""), "its cover-image"),
        ("content.opf", swap("CC BY 4.0", ""), ""),
        (
            "content.opf",
            lambda x: re.sub(r"<dc:rights>.*?</dc:rights>", "", x),
            "rights",
        ),
        ("content.opf", swap('href="chapters/two.xhtml"', 'href="x"'), "missing: x"),
        (
            "content.opf",
            swap('href="chapters/two.xhtml"', 'href="x"'),
            "not listed: chapters/two.xhtml",
        ),
        ("content.opf", swap('<itemref idref="', '<itemref idref="x'), "no such page"),
        ("META-INF/container.xml", swap("content.opf", "gone.opf"), "no package"),
    ],
)
def test_checks_find_what_is_wrong(book, tools, tmp_path, name, change, said):
    spoiled = tmp_path / "spoiled.epub"
    with zipfile.ZipFile(book) as old, zipfile.ZipFile(spoiled, "w") as new:
        for info in old.infolist():
            text = old.read(info)
            if info.filename == name:
                text = change(text.decode()).encode()
                assert text != old.read(info)
            new.writestr(info, text)
    found = tools("check_epub").problems(spoiled)
    assert any(said in line for line in found) if said else not found, found


def test_a_book_without_its_type_first_or_torn_is_refused(book, tools, tmp_path):
    problems = tools("check_epub").problems
    packed = tmp_path / "packed.epub"
    with zipfile.ZipFile(book) as old, zipfile.ZipFile(packed, "w") as new:
        for info in reversed(old.infolist()):
            new.writestr(info, old.read(info))
    assert [x for x in problems(packed) if "mimetype" in x]
    torn = tmp_path / "torn.epub"
    torn.write_bytes(book.read_bytes()[:5000])
    assert problems(torn)
    assert problems(tmp_path / "none.epub")


def test_only_a_sound_book_takes_the_last_ones_place(
    book, tools, tmp_path, monkeypatch, capsys
):
    tool = tools("build_epub")
    assert tool.build(tmp_path) == 1
    assert "make html" in capsys.readouterr().err

    doctrees = tmp_path / "_build" / "doctrees"
    doctrees.mkdir(parents=True)
    (doctrees / "environment.pickle").touch()
    last = tmp_path / "_build" / tool.NAME
    last.write_text("the last")

    def sphinx(source: Path, folder: Path, doctrees: Path, jobs: str) -> int:
        folder.mkdir()
        shutil.copy(made, folder / tool.NAME)
        return status

    monkeypatch.setattr(tool, "sphinx", sphinx)
    monkeypatch.setattr(tool, "epubcheck", lambda path: complaints)
    made, status, complaints = book, 2, []
    assert tool.build(tmp_path) == 2
    complaints, status = ["ERROR(RSC-005)"], 0
    assert tool.build(tmp_path) == 1
    assert "RSC-005" in capsys.readouterr().err
    assert last.read_text() == "the last"
    complaints = []
    assert tool.build(tmp_path) == 0
    assert last.read_bytes() == book.read_bytes()
