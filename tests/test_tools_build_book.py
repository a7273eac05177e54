"""The builder of tools/build_book.py, on a book of a few lines."""

import importlib.util
import os
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
html_last_updated_fmt = None
"""
SLOW_CONF = """
def hang(app, docname, source):
    if docname == "b":
        open("hanging", "w").close()
        import time
        time.sleep(60)

def setup(app):
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
    (folder / "a.md").write_text("# A\n\nalpha\n")
    (folder / "b.md").write_text("# B\n\nbeta\n")
    return folder


def build(book: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), str(book), "--jobs", "1"]
    return subprocess.run(command, cwd=book, capture_output=True, text=True)


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
    (book / "a.md").write_text("# A\n\nalpha\n")
    assert build(book).returncode == 0
    assert site(book) == good


def test_a_killed_build_leaves_the_next_one_clean(book):
    assert build(book).returncode == 0
    clean = site(book)

    (book / "conf.py").write_text(CONF + SLOW_CONF)
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
    assert (book / "_build" / ".running").exists()
    assert site(book) == clean

    (book / "conf.py").write_text(CONF)
    assert build(book).returncode == 0
    assert site(book) == clean
    assert not (book / "_build" / ".running").exists()


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


@pytest.mark.parametrize("killed", [True, False])
def test_the_cache_is_looked_through_only_after_a_kill(book, tool, monkeypatch, killed):
    monkeypatch.setattr(tool, "sphinx", lambda *_: 1)
    torn = book / "_build" / ".jupyter_cache" / "executed" / "torn"
    torn.mkdir(parents=True)
    if killed:
        (book / "_build" / ".running").touch()
    tool.build(book)
    assert torn.exists() is not killed


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
        with tool.alone(tmp_path) as killed:
            assert not killed
            entered.set()

    with tool.alone(tmp_path) as killed:
        assert not killed
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    thread.join()


def test_a_crash_counts_as_a_kill(tmp_path, tool):
    with pytest.raises(RuntimeError), tool.alone(tmp_path):
        raise RuntimeError("a fault of Sphinx itself")
    with tool.alone(tmp_path) as killed:
        assert killed, "what it left in the cache is not known to be whole"
