"""Lists of figures, exercises and claims; pages as Markdown; what lists the pages."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx import addnodes

ROOT = Path(__file__).resolve().parents[1]
BASE = "https://example.invalid/tiny/"

BUILD = """\
import sys
from sphinx.cmd.build import main
args = ["-q", "-n", "-W", "--keep-going", "-j", "2", "src", sys.argv[1]]
sys.exit(main(args))
"""
CONF = """\
import os, sys
sys.path[:0] = [{ext!r}]
project, author, version = "Tiny", "A", "1"
html_baseurl = {base!r}
book_repository = "https://example.invalid/repository"
html_theme, root_doc = "basic", "book/index"
extensions = ["bookext", "sphinx_sitemap"]
include_patterns = ["book/**", "chapters/**"]
exclude_patterns = ["chapters/draft.md"]
source_suffix = {{".md": "myst-nb"}}
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["toc.excluded"]
numfig = True
exercise_style = "solution_follow_exercise"
nb_execution_mode = "off"
os.environ["IPYTHONDIR"] = "ipython"
{sitemap}
"""
INDEX = """\
# Tiny

All of it in one line. And more.

```{toctree}
:caption: Chapters
/chapters/one
/chapters/two
/chapters/draft
```

```{toctree}
:caption: Reference
indexes
verification
```
"""
ONE = """\
---
needs: none
---
# The first chapter

It moves {measured}`one-speed.best:,.0f` GB/s. That is all.

What a tile is. How it moves.

```python
x = 1  # a_b
```

```{figure} picture.svg
:name: fig-tile
:alt: Four cells in a row.

A tile of $2^n$ cells at 2.5 GB/s. A second sentence.
```

```{provenance} one-speed
```

```{claims} one-speed
```
"""
TWO = """\
---
needs: none
---
# The second chapter

Nothing but an exercise.

```{exercise} Back to front
:label: ex-two-reverse

Turn a vector round.
```

```{dropdown} Hint
Count from the end.
```

```{solution} ex-two-reverse
:label: sol-two-reverse
:class: dropdown

The secret is minus one.
```

## A puzzle of a kind

```{exercise} two-kind
:label: ex-two-kind
:nonumber:

Another one.
```
"""
DRAFT = ONE.replace("fig-tile", "fig-draft").replace("A tile", "A draft")
VERIFICATION = """\
# Verification

What was measured.

```{verification} records
```
"""
MEASURE = """\
class registry:
    def values(name):
        return {"best": None}

class Claim:
    def __init__(self, name, text):
        self.name, self.text = name, text

class Record:
    name, slug, gpu, live = "one-speed", "g1", "Tiny GPU", False
    rows, provenance, confirmed = [], {}, None
    def value(self, name):
        return 1234.5
    def stale(self):
        return ["tilebook.one"]
    def stamp(self):
        return "Recorded on Tiny GPU, 2026-11-23."
    def broken_claims(self):
        return [(CLAIMS[1], "it is 3")]

CLAIMS = [Claim("a", "It is ahead."), Claim("b", "It is two")]

def claims(name):
    return CLAIMS

def load(name, gpu=None):
    if name != "one-speed":
        raise ValueError(f"{name} has not been recorded")
    return Record()
"""


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the extension importable, as conf.py does."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))


def part(name: str) -> ModuleType:
    """Return one module of the extension."""
    return importlib.import_module(f"bookext.{name}")


def settings() -> str:
    """Return what the book's conf.py says of its sitemap."""
    conf = (ROOT / "conf.py").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^sitemap_.*$", conf, re.M))


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files into a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def build(folder: Path, out: str) -> Path:
    """Build a book's sources into a new folder."""
    paths = [str(folder / "code"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-c", BUILD, out],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return folder / out


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A book of two chapters and a draft, built; then again with a third chapter."""
    folder = tmp_path_factory.mktemp("texts")
    ext = str(ROOT / "book" / "_ext")
    write(
        folder,
        {
            "src/conf.py": CONF.format(ext=ext, base=BASE, sitemap=settings()),
            "src/book/index.md": INDEX,
            "src/book/indexes.md": (ROOT / "book/indexes.md")
            .read_text(encoding="utf-8")
            .replace("{term}`record`", "record"),
            "src/book/verification.md": VERIFICATION,
            "src/chapters/one.md": ONE,
            "src/chapters/two.md": TWO,
            "src/chapters/draft.md": DRAFT,
            "src/chapters/picture.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
            "code/tilebook/__init__.py": "",
            "code/tilebook/device.py": "def interpreting():\n    return True\n",
            "code/tilebook/measure.py": MEASURE,
            "code/tilebook/one.py": "x = 1\n",
        },
    )
    first = build(folder, "first")
    third = TWO.replace("two-", "three-").replace("second", "third")
    index = INDEX.replace("/chapters/draft", "/chapters/three\n/chapters/draft")
    write(folder, {"src/chapters/three.md": third, "src/book/index.md": index})
    return SimpleNamespace(first=first, second=build(folder, "second"))


def listed(site: Path, name: str) -> BeautifulSoup:
    """Return one section of the page with the lists."""
    page = (site / "book/indexes.html").read_bytes()
    return BeautifulSoup(page, "html.parser").select_one(f"section#{name}")


def lines(soup: BeautifulSoup) -> list[str]:
    """Return a list's items."""
    return [" ".join(x.get_text().split()) for x in soup.select(".listing li")]


def test_figures_are_listed_with_number_sentence_and_link(built: SimpleNamespace):
    soup = listed(built.first, "figures")
    [line] = soup.select(".listing li")
    assert line.a["href"] == "../chapters/one.html#fig-tile"
    assert line.a.get_text() in ("Fig. 1", "Fig. 1.1")
    said = line.get_text()
    assert "cells at 2.5 GB/s." in said
    assert "second sentence" not in said
    assert line.select_one(".math")
    assert "1 figure on 1 page." in soup.get_text()


def test_exercises_are_listed_with_title_name_and_link(built: SimpleNamespace):
    soup = listed(built.first, "exercises")
    first, second = soup.select(".listing li")
    assert first.a["href"] == "../chapters/two.html#ex-two-reverse"
    assert re.fullmatch(
        r"Exercise [\d.]+: Back to front, two-reverse", lines(soup)[0]
    ), lines(soup)
    assert second.a["href"] == "../chapters/two.html#ex-two-kind"
    assert lines(soup)[1] == "A puzzle of a kind, two-kind"
    assert soup.select_one(".listing-page").get_text() == "The second chapter"


def test_claims_are_listed_with_their_verdicts(built: SimpleNamespace):
    soup = listed(built.first, "claims")
    good, bad = soup.select(".listing li")
    assert "It is ahead. Holds on Tiny GPU. one-speed" in lines(soup)[0]
    assert "It is two. Does not hold on Tiny GPU (it is 3)." in lines(soup)[1]
    assert ("holds" in good["class"], "broken" in bad["class"]) == (True, True)
    assert "earlier version" in good.get_text()
    place, record = good.select("a")
    assert place["href"] == "../chapters/one.html#claims-one-speed"
    assert record["href"] == "verification.html#record-one-speed-g1"


def test_every_link_of_the_lists_leads_somewhere(built: SimpleNamespace):
    pages: dict[Path, set[str]] = {}
    for link in BeautifulSoup(
        (built.first / "book/indexes.html").read_bytes(), "html.parser"
    ).select(".listing a, section li > p > a"):
        target, _, name = link["href"].partition("#")
        path = (built.first / "book" / target).resolve()
        assert path.is_file(), link
        if path not in pages:
            soup = BeautifulSoup(path.read_bytes(), "html.parser")
            pages[path] = {tag["id"] for tag in soup.select("[id]")}
        # The table of records is empty here: no file of records is in this package.
        known = pages[path] | {"", "record-one-speed-g1"}
        assert name in known, link
    assert len(pages) >= 5


def test_a_draft_is_left_out_and_a_new_chapter_comes_in(built: SimpleNamespace):
    assert "draft" not in (built.first / "book/indexes.html").read_text().lower()
    assert "draft" not in (built.first / "llms.txt").read_text().lower()
    more = lines(listed(built.second, "exercises"))
    assert [x.rpartition(", ")[2] for x in more] == [
        *["two-reverse", "two-kind", "three-reverse", "three-kind"]
    ]
    assert f"- [The third chapter]({BASE}chapters/three.md): Nothing but" in (
        built.second / "llms.txt"
    ).read_text(encoding="utf-8")


def test_a_page_is_markdown_with_provenance(built: SimpleNamespace):
    text = (built.first / "chapters/one.md").read_text(encoding="utf-8")
    head = text.split("\n\n")
    assert head[0] == "# The first chapter"
    # The first paragraph has a number, which needs more than a line.
    assert head[1] == "> What a tile is."
    assert f"{BASE}chapters/one.html" in head[2]
    row = f"{BASE}book/verification.html#record-one-speed-g1"
    stamp = "Recorded on Tiny GPU, 2026-11-23."
    assert f'It moves [1,234]({row} "{stamp}") (older code) GB/s.' in text
    assert "```python\nx = 1  # a_b\n```" in text
    assert "*[A picture. Four cells in a row.]*" in text
    assert re.search(r"\*Fig\. [\d.]+: A tile of \$2\^n\$ cells", text)
    assert f"[{stamp}]({row})" in text
    assert "Does not hold on Tiny GPU" in text
    assert "Runs anywhere" not in text
    assert text.count("# The first chapter") == 1


def test_a_page_has_hints_and_no_solution(built: SimpleNamespace):
    text = (built.first / "chapters/two.md").read_text(encoding="utf-8")
    assert "Turn a vector round." in text
    assert "Count from the end." in text
    assert part("texts").NO_SOLUTION in text
    assert "secret" not in text
    assert "secret" in (built.first / "chapters/two.html").read_text(encoding="utf-8")


def test_each_page_names_its_markdown(built: SimpleNamespace):
    pages = [p for x in ("book", "chapters") for p in (built.first / x).rglob("*.html")]
    assert len(pages) >= 5
    for page in pages:
        soup = BeautifulSoup(page.read_bytes(), "html.parser")
        link = soup.select_one("link[rel=alternate][type='text/markdown']")
        assert (page.parent / link["href"]).is_file(), page


def test_llms_txt_has_every_page_once_in_order(built: SimpleNamespace):
    text = (built.first / "llms.txt").read_text(encoding="utf-8")
    blocks = text.split("\n\n")
    assert blocks[:2] == ["# Tiny", "> All of it in one line."]
    entries = re.findall(rf"^- \[[^]]+\]\({BASE}(\S+)\): \S.*$", text, re.M)
    assert entries[:3] == ["book/index.md", "chapters/one.md", "chapters/two.md"]
    written = {p.relative_to(built.first).as_posix() for p in built.first.rglob("*.md")}
    assert sorted(entries) == sorted(written - {"tutor.md"})
    assert re.findall(r"^## (.*)$", text, re.M)[:3] == [
        *["Start", "Chapters", "Reference"]
    ]


def test_the_tutors_rules_name_what_is_there(built: SimpleNamespace):
    text = (built.first / "tutor.md").read_text(encoding="utf-8")
    assert "{" not in text.replace("`", "")
    for address in re.findall(rf"{BASE}([\w/.]+\w)", text):
        assert (built.first / address).is_file(), address
    for word in ("Never write a solution", "hint(", "check(", "older code"):
        assert word in text
    assert part("records").OLDER in text


def test_what_was_written_is_the_same_again(built: SimpleNamespace):
    for name in ("tutor.md", "chapters/one.md"):
        one, two = ((x / name).read_bytes() for x in (built.first, built.second))
        assert one == two
    for path in (*built.first.rglob("*.md"), built.first / "llms.txt"):
        text = path.read_text(encoding="utf-8")
        assert "0x" not in text, path
        assert str(built.first.parent) not in text, path


def test_the_sitemap_has_every_page_under_the_base_url(built: SimpleNamespace):
    assert "sitemap_url_scheme" in settings()
    tree = ElementTree.parse(built.first / "sitemap.xml")
    found = [x.text for x in tree.iter() if x.tag.endswith("}loc")]
    assert len(set(found)) == len(found)
    assert all(x.startswith(BASE) for x in found), found
    pages = {x.removeprefix(BASE) for x in found}
    for name in ("index", "indexes", "verification"):
        assert f"book/{name}.html" in pages
    assert {"chapters/one.html", "chapters/two.html"} <= pages
    assert not pages & {"search.html", "404.html", "genindex.html"}
    assert "chapters/draft.html" not in pages


def test_a_cell_is_its_source_and_what_came_out():
    source = nodes.container(nb_element="cell_code_source")
    source += nodes.literal_block("", "add(1, 2)", language="ipython3")
    output = nodes.container(nb_element="cell_code_output")
    output += nodes.literal_block("", "3", language="myst-ansi")
    output += nodes.raw("", '<svg aria-label="Two &lt; three">', format="html")
    cell = nodes.container("", source, output, nb_element="cell_code", cell_index=0)
    assert part("texts").Reader("").blocks(cell) == [
        "```python\nadd(1, 2)\n```",
        "Output:",
        "```text\n3\n```",
        "*[A table or a drawing. Two < three]*",
    ]


def test_a_page_that_was_not_written_ends_the_build(tmp_path: Path):
    texts = part("texts")
    env = SimpleNamespace(
        found_docs={"one", "two"},
        toctree_includes={},
        config=SimpleNamespace(root_doc="one"),
    )
    app = SimpleNamespace(
        env=env, outdir=tmp_path, builder=SimpleNamespace(name="html")
    )
    (tmp_path / "one.md").write_text("# One\n\n> Of one.\n\nText.\n")
    with pytest.raises(texts.SphinxError, match=r"not written: two$"):
        texts.write_lists(app, None)


def test_a_reference_entry_is_its_signature_and_its_text():
    entry = addnodes.desc()
    link = nodes.reference("", "", nodes.inline("", "[source]"), refuri="x")
    signature = addnodes.desc_signature("", "", addnodes.desc_name("", "add"), link)
    marked = nodes.inline("", "[source]", classes=["viewcode-link"])
    signature += [addnodes.desc_parameterlist("", "x, y"), marked]
    entry += [signature, addnodes.desc_content("", nodes.paragraph("", "Adds."))]
    assert part("texts").Reader("").blocks(entry) == ["`add(x, y)`", "Adds."]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("At 2.5 GB/s. More.", "At 2.5 GB/s."),
        ("Some, e.g. one, of them.", "Some, e.g. one, of them."),
        ("No stop", "No stop"),
        ("Is it? It is.", "Is it?"),
        ("By J. S. Bach. More.", "By J. S. Bach."),
    ],
)
def test_a_first_sentence_ends_where_it_does(text: str, first: str):
    found = part("listings").first_sentence(nodes.caption(text, text))
    assert "".join(x.astext() for x in found) == first


def test_nothing_of_a_second_sentence_is_kept_and_links_become_text():
    link = nodes.reference("", "a tile", refuri="x")
    parts = [nodes.Text("This is "), link, nodes.Text(". Not "), nodes.literal("", "y")]
    found = part("listings").first_sentence(nodes.caption("", "", *parts))
    assert [x.astext() for x in found] == ["This is ", "a tile", "."]
    assert all(isinstance(x, nodes.Text) for x in found)


def test_a_figure_that_has_no_number_yet_is_the_one_above():
    link = addnodes.pending_xref("", nodes.literal("", "fig-x"), reftype="numref")
    found = part("listings").first_sentence(
        nodes.caption("", "", nodes.Text("Of "), link, nodes.Text(", again."))
    )
    assert "".join(x.astext() for x in found) == "Of the figure above, again."


def test_every_claim_and_every_exercise_of_a_shown_chapter_has_a_place():
    from tilebook import measure
    from tilebook.testing.edge import exercises

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    drafts = project["tool"]["tilebook"]["drafts"]
    experiments = {x.name for x in measure.registry.experiments()}
    seen = 0
    for path in sorted((ROOT / "chapters").glob("*.md")):
        if path.stem in drafts:
            continue
        text = path.read_text(encoding="utf-8")
        labels = set(re.findall(r"^:label: ex-([\w-]+)$", text, re.M))
        assert labels == set(exercises(path.stem))
        placed = re.findall(r"^`+\{claims\} ([\w-]+)$", text, re.M)
        declared = {
            name
            for name in experiments
            if name.startswith(f"{path.stem}-") and measure.claims(name)
        }
        assert set(placed) == declared
        seen += len(labels) + len(placed)
    assert seen
