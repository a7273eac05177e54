"""The builder of tools/build_book.py, on a book of a few lines."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "build_book.py"
CONF = """\
project = "Tiny"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
html_copy_source = False
html_theme_options = {"globaltoc_collapse": False}


def fill_in(app, docname, source):
    # What Sphinx can't know that a page depends on.
    with open(f"{app.srcdir}/data.txt") as data:
        source[0] = source[0].replace("@data@", data.read())
    with open(f"{app.srcdir}/_build/read.log", "a") as log:
        print(docname, file=log)


def setup(app):
    app.connect("source-read", fill_in)
"""
HANG = """

def hang(app, docname, source):
    import time
    if docname == "b":
        open("hanging", "w").close()
        time.sleep(60)


def setup(app):
    app.connect("source-read", fill_in)
    app.connect("source-read", hang)
"""

pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_book", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def book(tmp_path: Path) -> Path:
    folder = tmp_path / "book"
    folder.mkdir()
    (folder / "conf.py").write_text(CONF)
    (folder / "index.md").write_text("# Tiny\n\n```{toctree}\na\nb\n```\n")
    (folder / "a.md").write_text("# A\n\nalpha @data@\n")
    (folder / "b.md").write_text("# B\n\nbeta\n")
    (folder / "data.txt").write_text("1.0")
    return folder


def build(book: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), str(book), "--jobs", "1"]
    return subprocess.run(command, cwd=book, capture_output=True, text=True)


def read_by_sphinx(book: Path) -> set[str]:
    """The pages read since last asked."""
    log = book / "_build" / "read.log"
    names = set(log.read_text().split()) if log.exists() else set()
    log.unlink(missing_ok=True)
    return names


def site_of_clean_build(book: Path) -> dict[str, bytes]:
    shutil.rmtree(book / "_build")
    assert build(book).returncode == 0
    return site(book)


def site(book: Path) -> dict[str, bytes]:
    html = book / "_build" / "html"
    return {
        str(path.relative_to(html)): path.read_bytes()
        for path in html.rglob("*")
        if path.is_file()
    }


def test_a_build_says_where_the_book_is(book):
    done = build(book)
    assert done.returncode == 0, done.stderr
    assert (book / "_build" / "html" / "index.html").as_uri() in done.stdout


def test_a_removed_page_does_not_linger(book):
    assert build(book).returncode == 0
    assert "b.html" in site(book)
    (book / "b.md").unlink()
    (book / "index.md").write_text("# Tiny\n\n```{toctree}\na\n```\n")
    assert build(book).returncode == 0
    assert "b.html" not in site(book)


def test_a_warning_fails_each_time_and_leaves_the_last_good_site(book):
    assert build(book).returncode == 0
    good = site(book)
    (book / "a.md").write_text("# A\n\n[nowhere](missing.md)\n")
    for _ in range(2):
        done = build(book)
        assert done.returncode != 0
        assert "missing.md" in done.stderr
        assert site(book) == good
    (book / "a.md").write_text("# A\n\nalpha @data@\n")
    assert build(book).returncode == 0
    assert site(book) == good


def test_an_edited_page_alone_is_read_again_and_every_page_written(book):
    assert build(book).returncode == 0
    assert read_by_sphinx(book) == {"index", "a", "b"}
    (book / "b.md").write_text("# A new title, in every page's menu\n\nbeta\n")
    assert build(book).returncode == 0
    assert read_by_sphinx(book) == {"b"}
    edited = site(book)
    assert b"A new title" in edited["a.html"]
    assert edited == site_of_clean_build(book)


def test_nothing_is_done_where_nothing_changed(book):
    # As the reference is: a page that is made when the build begins.
    conf = CONF.replace("def setup(app):", "def setup(app):\n    make_page(app)")
    make = """

def make_page(app):
    with open(f"{app.srcdir}/made.md", "w") as page:
        page.write("---\\norphan: true\\n---\\n# Made\\n")
"""
    (book / "conf.py").write_text(conf + make)
    assert build(book).returncode == 0
    assert "made.html" in site(book)
    again = build(book)
    assert again.returncode == 0
    assert "Nothing changed" in again.stdout
    assert (book / "_build" / "html" / "index.html").as_uri() in again.stdout

    shutil.rmtree(book / "_build" / "html")
    assert build(book).returncode == 0
    assert "made.html" in site(book)


def test_a_page_restored_with_its_old_time_is_read(book):
    page = book / "a.md"
    old, times = page.read_text(), (page.stat().st_atime, page.stat().st_mtime)
    page.write_text("# A\n\nanother\n")
    assert build(book).returncode == 0
    page.write_text(old)
    os.utime(page, times)
    assert build(book).returncode == 0
    assert b"alpha 1.0" in site(book)["a.html"]


@pytest.mark.parametrize("what", ["file", "setting"])
def test_all_is_read_again_when_anything_but_a_page_changes(book, monkeypatch, what):
    assert build(book).returncode == 0
    assert b"alpha 1.0" in site(book)["a.html"]
    read_by_sphinx(book)
    if what == "file":
        (book / "data.txt").write_text("2.0")
    else:
        monkeypatch.setenv("TILEBOOK_DEVICE", "cpu")
    assert build(book).returncode == 0
    assert read_by_sphinx(book) == {"index", "a", "b"}
    assert (b"alpha 2.0" in site(book)["a.html"]) is (what == "file")


def test_a_killed_build_leaves_the_next_one_clean(book):
    assert build(book).returncode == 0
    clean = site(book)

    (book / "conf.py").write_text(CONF + HANG)
    command = [sys.executable, str(TOOL), str(book), "--jobs", "1"]
    running = subprocess.Popen(
        command, cwd=book, stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (book / "hanging").exists():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert site(book) == clean

    (book / "conf.py").write_text(CONF)
    assert build(book).returncode == 0
    assert site(book) == clean


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"chapters/a": "2"}, True),
        ({"chapters/new": "1"}, True),
        ({"chapters/a": None}, True),
        ({"book/api/a": "2"}, False),
        ({"book/api/new": "1"}, False),
        ({"": "2"}, False),
    ],
)
def test_pages_of_source_code_stay_where_neither_code_nor_reference_changed(
    tool, tmp_path, change, kept
):
    html, new = tmp_path / "html", tmp_path / "html.new"
    page = html / "_modules" / "a.html"
    page.parent.mkdir(parents=True)
    page.write_text("code")
    os.utime(page, (1000, 1000))
    old = {"": "1", "chapters/a": "1", "book/api/a": "1"}
    now = {name: x for name, x in (old | change).items() if x is not None}
    tool.keep_sources(html, new, old, now)
    copy = new / "_modules" / "a.html"
    assert copy.exists() is kept
    if kept:
        assert copy.stat().st_mtime == 1000
        copy.write_text("another")
        assert page.read_text() == "code"


def test_no_page_of_source_code_stays_after_a_build_that_failed(tool, tmp_path):
    (tmp_path / "html" / "_modules").mkdir(parents=True)
    tool.keep_sources(tmp_path / "html", tmp_path / "new", {}, {"": "1", "a": "1"})
    assert not (tmp_path / "new").exists()
    tool.keep_sources(tmp_path / "nothing", tmp_path / "new", {"": "1"}, {"": "1"})
    assert not (tmp_path / "new").exists()


def test_live_forgets_what_was_executed(book, tool, monkeypatch):
    cache = book / "_build" / ".jupyter_cache"
    monkeypatch.setattr(tool, "sphinx", lambda *_: 1)
    for live in (False, True):
        (cache / "live").mkdir(parents=True, exist_ok=True)
        (cache / "live" / "record.json").write_text("{}")
        assert tool.build(book, live=live) == 1
        assert cache.exists() is not live


def test_only_torn_notebooks_leave_the_cache(tmp_path, tool):
    executed = tmp_path / "executed"
    for name in ("whole", "torn", "empty"):
        (executed / name).mkdir(parents=True)
    (executed / "whole" / "base.ipynb").write_text('{"cells": []}')
    (executed / "torn" / "base.ipynb").write_text('{"cells": [')
    assert tool.drop_torn(tmp_path) == [executed / "empty", executed / "torn"]
    assert [path.name for path in executed.iterdir()] == ["whole"]
    assert tool.drop_torn(tmp_path / "nothing") == []


def test_a_build_that_did_not_end_well_has_the_cache_looked_through(book, tool):
    torn = book / "_build" / ".jupyter_cache" / "executed" / "torn"
    for seal, status in (("kept", 0), ("broken", 0)):
        assert build(book).returncode == status
        torn.mkdir(parents=True)
        if seal == "broken":
            (book / "_build" / ".seal").unlink()
        assert build(book).returncode == 0
        assert torn.exists() is (seal == "kept")
        shutil.rmtree(torn, ignore_errors=True)


def test_torn_entries_are_what_jupyter_cache_fails_on(tmp_path, tool):
    """Without the mend a kill between two writes would fail every later build."""
    jupyter_cache = pytest.importorskip("jupyter_cache")
    nbformat = pytest.importorskip("nbformat")
    from jupyter_cache.cache.main import CacheBundleIn

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("1", execution_count=1)]
    )
    cache = jupyter_cache.get_cache(tmp_path)
    cache.cache_notebook_bundle(CacheBundleIn(notebook, "n"))
    (path,) = tmp_path.glob("executed/*/base.ipynb")

    path.write_text("{")
    with pytest.raises(nbformat.reader.NotJSONError):
        cache.merge_match_into_notebook(notebook)
    path.unlink()
    with pytest.raises(FileExistsError):
        cache.cache_notebook_bundle(CacheBundleIn(notebook, "n"))

    tool.drop_torn(tmp_path)
    with pytest.raises(KeyError):
        cache.merge_match_into_notebook(notebook)
    cache.cache_notebook_bundle(CacheBundleIn(notebook, "n"))
    assert cache.merge_match_into_notebook(notebook)


def test_a_second_build_waits_for_the_first(tmp_path, tool):
    entered = threading.Event()

    def second() -> None:
        with tool.alone(tmp_path):
            entered.set()

    with tool.alone(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    thread.join()


def test_a_gpu_is_part_of_the_machine(tool, tmp_path, monkeypatch):
    fake = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path))
    without = tool.machine()
    fake.write_text("#!/bin/sh\necho 'GPU 0: a card'\n")
    fake.chmod(0o755)
    assert "GPU 0: a card" in tool.machine()
    assert "GPU 0" not in without
