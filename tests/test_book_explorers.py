"""Figures that a reader operates: what a page holds for who can, and for who can't."""

import importlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup

from tilebook.softmax import recurrence
from tilebook.tiling import linear, orders
from tilebook.tiling.layouts import Blocked

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "book" / "_static" / "explorers"
SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("launch-orders", "layouts", "online-softmax", "phases")
BASE = "https://example.invalid/tiny/"
CONF = """\
import os, sys
sys.path[:0] = [{ext!r}]
project, author, version, copyright = "Tiny", "A", "1", "A"
html_baseurl = {base!r}
book_repository = "https://example.invalid/repository"
html_theme, root_doc = "basic", "book/index"
html_static_path = [{static!r}]
extensions = ["bookext"]
# Without the reference of the package, which takes longest to read.
include_patterns = ["book/*.md"]
source_suffix = {{".md": "myst-nb"}}
myst_enable_extensions = ["dollarmath"]
numfig = True
nb_execution_mode = "off"
epub_show_urls = "no"
suppress_warnings = ["epub"]
os.environ["IPYTHONDIR"] = "ipython"
"""
INDEX = """\
# Tiny

Text.

```{toctree}
one
two
indexes
```
"""
LISTS = """\
# Lists

## Figures

```{listing} figures
```
"""
FIGURE = """
```{{explorer}} {name}
:name: fig-{name}

What `{name}` shows, $x_1$. And more of it.
```
"""
BUILD = """\
import sys
from sphinx.cmd.build import main
strict = ["-q", "-n", "-W", "--keep-going"]
sys.exit(max(main([*strict, "-b", name, ".", name]) for name in sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the extension importable, as conf.py does."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


def explored(name: str):
    """Return what a figure is made of."""
    return importlib.import_module("bookext.explored").FIGURES[name]()


def page_of(body: str) -> str:
    return f"# A page\n\nText.\n{body}"


def build(folder: Path, *builders: str) -> subprocess.CompletedProcess[str]:
    """Build what lies in a folder, with one builder after another."""
    paths = [str(ROOT / "code"), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-c", BUILD, *builders],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def write(folder: Path, one: str) -> None:
    """Write a book of two pages, of which one has figures."""
    ext = str(ROOT / "book" / "_ext")
    static = str(ROOT / "book" / "_static")
    for name, text in {
        "conf.py": CONF.format(ext=ext, base=BASE, static=static),
        "book/index.md": INDEX,
        "book/indexes.md": LISTS,
        "book/one.md": page_of(one),
        "book/two.md": page_of("Nothing to operate."),
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The book as a site and as an EPUB."""
    folder = tmp_path_factory.mktemp("explorers")
    said = "{numref}`fig-layouts` is operated.\n"
    write(folder, said + "".join(FIGURE.format(name=name) for name in NAMES))
    done = build(folder, "html", "epub")
    assert done.returncode == 0, done.stdout

    def page(name: str) -> BeautifulSoup:
        return BeautifulSoup((folder / "html" / name).read_bytes(), "html.parser")

    return SimpleNamespace(folder=folder, page=page)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_holds_a_still_figure_and_its_data(built: SimpleNamespace, name: str):
    figure = built.page("book/one.html").select_one(f"figure#fig-{name}")
    box = figure.select_one(f'.explorer[data-explorer="{name}"]')
    made = explored(name)
    assert box.select_one(".explorer-still svg path")
    assert made.words in box.select_one(".explorer-words").get_text()
    rows = [
        [cell.get_text().strip() for cell in row.select("th, td")]
        for row in box.select("tr")
    ]
    assert rows == made.rows
    held = json.loads(box.select_one('script[type="application/json"]').string)
    assert held == json.loads(json.dumps(made.data))
    assert figure.select_one("figcaption code").get_text() == name


def test_figures_are_numbered_and_listed(built: SimpleNamespace):
    page = built.page("book/one.html")
    numbers = [x.get_text().strip() for x in page.select("figcaption .caption-number")]
    assert numbers == [f"Fig. {i}" for i in range(1, len(NAMES) + 1)]
    assert page.select_one('p a[href="#fig-layouts"]').get_text() == "Fig. 2"
    lines = [
        " ".join(line.get_text().split())
        for line in built.page("book/indexes.html").select("#figures li")
    ]
    assert lines[1] == r"Fig. 2: What layouts shows, \(x_1\)."


def test_only_pages_with_figures_load_scripts(built: SimpleNamespace):
    def loaded(name: str) -> list[str]:
        page = built.page(name)
        links = [x["src"] for x in page.select("script[src]")]
        links += [x["href"] for x in page.select('link[rel="stylesheet"]')]
        return [x.partition("?")[0] for x in links if "explorers/" in x]

    names = [*(f"{name}.js" for name in ("frame", *NAMES)), "explorers.css"]
    assert loaded("book/one.html") == [f"../_static/explorers/{x}" for x in names]
    assert loaded("book/two.html") == []
    for name in names:
        assert (built.folder / "html/_static/explorers" / name).is_file()


def test_the_markdown_has_words_table_and_caption(built: SimpleNamespace):
    text = (built.folder / "html/book/one.md").read_text(encoding="utf-8")
    for number, name in enumerate(NAMES, 1):
        made = explored(name)
        assert f"*[A figure to operate in a browser. {made.words}]*" in text
        for row in made.rows:
            assert f"| {' | '.join(row)} |" in text
        assert f"*Fig. {number}: What `{name}` shows, $x_1$. And more of it.*" in text
    assert "<svg" not in text


def test_an_epub_has_the_still_figures_alone(built: SimpleNamespace):
    (path,) = (built.folder / "epub").glob("*.epub")
    with zipfile.ZipFile(path) as book:
        page = book.read("book/one.xhtml").decode()
    figures = re.findall(r"<figure.*?</figure>", page, re.S)
    assert len(figures) == len(NAMES)
    for figure in figures:
        root = ElementTree.fromstring(figure)
        (picture,) = root.findall(f".//{SVG}svg")
        # Without the book's style sheet a shape has the colour that it says itself.
        shapes = picture.findall(f".//{SVG}path")
        assert shapes
        assert all(shape.get("fill") for shape in shapes)
        assert not root.findall(".//script")


def test_a_wrong_figure_fails_at_its_line(tmp_path: Path):
    fences = (
        "{explorer} nothing\n:name: fig-a\n\nText.",
        "{explorer} layouts\n:name: fig-b",
        "{explorer} layouts\n\nText.",
    )
    write(tmp_path, "".join(f"\n```{fence}\n```\n" for fence in fences))
    done = build(tmp_path, "html")
    assert done.returncode != 0
    said = dict(re.findall(r"one\.md:(\d+): ERROR: (.+)", done.stdout))
    assert said.keys() == {"5", "11", "15"}, done.stdout
    assert said["5"].startswith("choose one of launch-orders, layouts")
    assert said["11"].startswith("a figure needs a caption and a name")
    assert said["15"] == said["11"]


def test_every_order_is_the_packages():
    data = explored("launch-orders").data
    for grid in data["grids"]:
        shape = (grid["rows"], grid["columns"])
        # The first is what the others are compared with.
        assert grid["groups"][0] == 1
        for group, order in zip(grid["groups"], grid["orders"], strict=True):
            wanted = orders.order(*shape, group)
            assert order == (wanted[:, 0] * shape[1] + wanted[:, 1]).tolist()
    assert len(json.dumps(data)) < 20_000


def test_the_still_orders_are_counted():
    made = explored("launch-orders")
    assert made.rows[1] == ["1", "1", "9", "90", "810"]
    assert made.rows[3] == ["3", "3", "3", "54", "486"]
    assert ">90</text>" in made.svg
    assert ">54</text>" in made.svg


def test_the_still_layout_is_that_of_the_chapter():
    made = explored("layouts")
    data = made.data
    layout = Blocked(*data["layout"].values())
    found = linear.bases(layout, data["shape"])
    assert made.rows[1][1:] == [str(list(step)) for step in found.register]
    assert found.place(4, 9, 1) == data["element"]
    assert "register 4 of lane 9 of warp 1, thread 41" in made.words
    for key, value in data["layout"].items():
        assert list(value) in data["choices"][key]


def test_the_still_recurrence_is_the_packages():
    made = explored("online-softmax")
    lines = recurrence.trace(made.data["row"], made.data["chunk"])
    assert [row[4] for row in made.rows[1:-1]] == [f"{d:.7g}" for d in lines["d"]]
    assert made.rows[-1][3:] == made.rows[-2][3:]


def test_the_still_ring_is_the_packages():
    from tilebook.hopper import moments, phases

    made = explored("phases")
    setting = phases.Setting(**made.data["chosen"])
    ring = moments.Ring(phases.PLANS[setting.kernel], setting.stages)
    for moment in phases.every()[setting].moments[: made.data["at"] + 1]:
        ring.happen(moment)
    seen = ring.seen()
    slots = [
        [f"slot {i}", f"chunk {x}", y, ""] for i, (x, y) in enumerate(seen["slots"])
    ]
    assert made.rows[1 : setting.stages + 1] == slots
    barriers = made.rows[setting.stages + 1 :]
    assert [row[0] for row in barriers] == list(seen["barriers"])
    assert [row[1] for row in barriers] == [
        f"phase {phase}" for phase, *_ in seen["barriers"].values()
    ]
    waits = {row[0]: row[3] for row in barriers if row[3]}
    assert waits == {
        on: f"{who}, for {parity}" for who, (on, parity) in seen["waits"].items()
    }
    # A product, a store, a wait: each kind of bar is drawn.
    for kind in ("bar", "need", "thick", "thin", "warp"):
        assert f'class="{kind}"' in made.svg
    assert len(json.dumps(made.data)) < 40_000


def test_the_scripts_are_few_and_ask_nobody():
    files = sorted(STATIC.glob("*.js"))
    assert {path.stem for path in files} == {"frame", *NAMES}
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    assert len(text.encode()) < 42_000
    for word in ("import ", "fetch(", "XMLHttpRequest", "eval(", "innerHTML"):
        assert word not in text
    # The one address is the name by which browsers know SVG.
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1
