"""The build's promises, on a book of two chapters about a package of two modules."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

# One worker makes the book, and changes it from test to test.
pytestmark = pytest.mark.xdist_group("book")

ROOT = Path(__file__).resolve().parents[1]

CONF = """\
import os, sys
from pathlib import Path
HERE = Path(__file__).parent
sys.path[:0] = [{ext!r}]
project, author, version = "Tiny", "A", "1"
html_baseurl = "https://example.invalid/"
book_repository = "https://example.invalid/tiny"
html_theme = "basic"
extensions = ["bookext"]
root_doc = "book/index"
include_patterns = ["book/**", "chapters/**"]
source_suffix = {{".md": "myst-nb"}}
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / ".jupyter_cache")
nb_execution_show_tb = True
nb_execution_in_temp = True
os.environ["IPYTHONDIR"] = str(HERE / "_build" / ".ipython")
"""
CHAPTER = """\
---
file_format: mystnb
needs: none
kernelspec: {{name: python3, display_name: Python 3, language: python}}
---

# Chapter {name}

{prose}

```{{code-cell}} python
import os
from tilebook.{name} import value

with open(os.environ["TINY_LOG"], "a") as log:
    log.write("{name}\\n")
value()
```
"""
MEASURE = """\
class registry:
    def values(name):
        return {"best": None, "lost": None}

class Record:
    name, slug, gpu, live = "one-speed", "g1", "Tiny GPU", False
    rows, provenance, confirmed = [], {}, None
    def value(self, name):
        if name == "lost":
            raise ValueError("no row has impl=lost")
        return 1234.5
    def stale(self):
        return []
    def stamp(self):
        return "Recorded on Tiny GPU, 2026-11-23."
    def broken_claims(self):
        return []

def claims(name):
    return []

def load(name, gpu=None):
    if name != "one-speed" or gpu not in (None, "g1"):
        raise ValueError(f"{name} has not been recorded")
    return Record()
"""
BUILD = """\
import sys
from pathlib import Path
sys.path.insert(0, {tools!r})
import build_book
sys.exit(build_book.build(Path({source!r}), "2"))
"""


class Book:
    """A tiny book in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "ran.txt"
        self.write("conf.py", CONF.format(ext=str(ROOT / "book" / "_ext")))
        tree = "```{toctree}\n/chapters/one\n/chapters/two\nverification\n```\n"
        self.write("book/index.md", f"# Tiny\n\n{tree}")
        self.write("book/verification.md", "# Verification\n")
        self.write("code/tilebook/__init__.py", "")
        self.write("code/tilebook/device.py", "def interpreting():\n    return True\n")
        self.write("code/tilebook/measure.py", MEASURE)
        for name in ("one", "two"):
            self.write(f"code/tilebook/{name}.py", "def value():\n    return 41\n")
            self.chapter(name, "Text.")

    def write(self, name: str, text: str) -> None:
        """Write one file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def chapter(self, name: str, prose: str) -> None:
        """Write one chapter."""
        self.write(f"chapters/{name}.md", CHAPTER.format(name=name, prose=prose))

    def build(self) -> tuple[int, str, list[str]]:
        """Build it; return the status, what was printed, and which chapters ran."""
        self.log.write_text("")
        paths = [str(self.folder / "code"), os.environ.get("PYTHONPATH", "")]
        script = BUILD.format(tools=str(ROOT / "tools"), source=str(self.folder))
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(paths), "TINY_LOG": str(self.log)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout, sorted(self.log.read_text().split())

    def page(self, name: str) -> str:
        """Return one built page."""
        return (self.folder / "_build/html/chapters" / f"{name}.html").read_text()


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """A tiny book that was built once, both chapters executed."""
    tiny = Book(tmp_path_factory.mktemp("book"))
    status, said, ran = tiny.build()
    assert status == 0, said
    assert ran == ["one", "two"]
    return tiny


@pytest.mark.slow
def test_edited_prose_runs_nothing_again(book: Book):
    quotes = "{measured}`one-speed.best:,.0f` and {measured}`one-speed@g1.best`"
    book.chapter("one", f"Other words, {quotes}.")
    status, said, ran = book.build()
    assert status == 0, said
    assert ran == []
    page = book.page("one")
    assert "Other words" in page
    link = re.search(r'<a class="[^"]*measured[^>]*>1,234</a>', page)
    assert link, page
    assert re.search(r"measured[^>]*>1234.5</a>", page), page
    assert "Recorded on Tiny GPU, 2026-11-23." in link[0]
    assert "verification.html#record-one-speed-g1" in link[0]


@pytest.mark.slow
def test_an_edited_module_runs_only_the_chapters_that_import_it(book: Book):
    book.write("code/tilebook/two.py", "def value():\n    return 42\n")
    status, said, ran = book.build()
    assert status == 0, said
    assert ran == ["two"]
    assert "42" in book.page("two")
    assert "42" not in book.page("one")


@pytest.mark.slow
def test_each_unmeasured_number_fails_at_its_line(book: Book):
    prose = [
        f"A paragraph\nof three lines with\n{{measured}}`{wanted}` in it."
        for wanted in (
            *("no-record.best", "one-speed.none", "one-speed.lost", "one-speed"),
            "one-speed@g9.best",
        )
    ]
    book.chapter("one", "\n\n".join(prose))
    written = book.folder.joinpath("chapters/one.md").read_text().splitlines()
    status, said, _ = book.build()
    assert status != 0
    for paragraph in prose:
        line = 1 + written.index(paragraph.splitlines()[2])
        at = rf"chapters/one\.md:{line}: WARNING: nothing measured"
        assert re.search(at, said), said
    book.chapter("one", "Text.")


@pytest.mark.slow
def test_a_chapter_that_raises_fails_the_first_and_the_second_time(book: Book):
    sound = "def value():\n    return 41\n"
    book.write("code/tilebook/one.py", 'def value():\n    raise KeyError("lost")\n')
    for _ in range(2):
        status, said, ran = book.build()
        assert status != 0
        assert ran == ["one"]
        assert "chapters/one.md" in said
        assert "KeyError" in said
        assert "lost" in said
    book.write("code/tilebook/one.py", sound)
    status, said, ran = book.build()
    assert status == 0, said


@pytest.mark.slow
def test_a_picture_without_words_and_a_chapter_without_needs_fail(book: Book):
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>'
    book.write("chapters/dot.svg", svg)
    book.chapter("one", "![](dot.svg)")
    two = book.folder / "chapters/two.md"
    two.write_text(two.read_text().replace("needs: none\n", ""))
    status, said, _ = book.build()
    assert status != 0
    assert "a figure has no alternative text" in said
    assert "front matter says needs: ''; allowed: none, gpu, sm90" in said
    book.chapter("one", "Text.")
    book.chapter("two", "Text.")


def test_conf_says_how_and_nothing_else():
    text = (ROOT / "conf.py").read_text(encoding="utf-8")
    assert not re.search(r"^(def|class) ", text, re.M)
    assert textwrap.dedent(text) == text
