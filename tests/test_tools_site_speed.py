"""The benchmark of site and builds: its server, statistics, verdicts and report."""

import gzip
import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console

TOOLS = Path(__file__).resolve().parent.parent / "tools"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    import page_loads

    return page_loads


@pytest.fixture
def tool(loads: ModuleType) -> ModuleType:
    import site_speed

    return site_speed


def one(loads: ModuleType, loaded: float, typeset: float | None, weight: int):
    """A visit of a page that is nothing but a document."""
    sent = dict.fromkeys((*loads.KINDS, "Other"), 0) | {"Document": weight}
    twice = {kind: 2 * size for kind, size in sent.items()}
    return loads.Visit(loaded, typeset, sent, twice, 3)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in ("book/index.html", "chapters/long.html", "chapters/short.html"):
        path = tmp_path / "html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<p>{name}</p>" * 100)
    (tmp_path / "html" / "font.woff").write_bytes(bytes(1000))
    (tmp_path / "secret.html").write_text("not of the site")
    return tmp_path / "html"


def asked(address: str, **headers: str):
    request = urllib.request.Request(address, headers=headers)
    return urllib.request.urlopen(request, timeout=10)


def test_the_server_compresses_text_for_those_who_can_read_it(loads, site):
    body = (site / "book" / "index.html").read_bytes()
    with loads.served(site) as address:
        page = f"{address}book/index.html"
        with asked(page) as plain:
            assert plain.read() == body
            assert plain.headers["Content-Encoding"] is None
        with asked(page, **{"Accept-Encoding": "gzip, br"}) as small:
            sent = small.read()
            assert small.headers["Content-Encoding"] == "gzip"
            assert small.headers["Content-Type"] == "text/html"
        assert len(sent) < len(body)
        assert gzip.decompress(sent) == body
        with asked(f"{address}font.woff", **{"Accept-Encoding": "gzip"}) as font:
            assert font.headers["Content-Encoding"] is None
            assert len(font.read()) == 1000


@pytest.mark.parametrize(
    "name", ["nowhere.html", "book", "../secret.html", "%2e%2e/secret.html"]
)
def test_the_server_has_the_site_and_nothing_else(loads, site, name):
    with loads.served(site) as address:
        with pytest.raises(urllib.error.HTTPError) as caught:
            asked(address + name)
        assert caught.value.code == 404


def test_a_page_is_ready_when_its_formulas_are_set(loads):
    assert one(loads, 0.5, 0.9, 1).ready == 0.9
    assert one(loads, 0.5, 0.2, 1).ready == 0.5
    assert one(loads, 0.5, None, 1).ready == 0.5


def test_times_are_medians_and_bytes_those_of_the_heaviest(loads):
    visits = [one(loads, x, 2 * x, w) for x, w in ((1.0, 10), (9.0, 30), (2.0, 20))]
    found = loads.middle(visits)
    assert (found.loaded, found.typeset, found.weight) == (2.0, 4.0, 30)
    assert found.unpacked["Document"] == 60
    assert loads.middle([one(loads, 1.0, None, 1)] * 3).typeset is None


def test_the_front_page_and_the_heaviest_chapter_are_measured(loads, site):
    weights = {"chapters/long.html": 900, "chapters/short.html": 1000}
    asked_for = []

    def load(name: str):
        asked_for.append(name)
        return one(loads, 0.1, None, weights.get(name, 50))

    found = loads.pages(site, 4, load)
    assert list(found) == ["book/index.html", "chapters/short.html"]
    assert asked_for.count("book/index.html") == 4
    assert asked_for.count("chapters/short.html") == 5
    assert asked_for.count("chapters/long.html") == 1


@pytest.mark.parametrize("lost", ["book/index.html", "chapters/*.html"])
def test_without_a_site_nothing_is_measured(loads, site, lost):
    for path in site.glob(lost):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="run make html first"):
        loads.pages(site, 1, lambda name: pytest.fail(name))


def test_a_target_is_missed_at_its_limit_and_beyond(tool):
    under = {
        "front page, loaded": 1.49,
        "front page, weight": 1.49,
        "cold build": 359.0,
    }
    assert tool.missed(under) == []
    for name, value in {"front page, loaded": 1.5, "live build": 541.0}.items():
        assert tool.missed(under | {name: value}) == [name]
    limits = {name: target.limit for name, target in tool.TARGETS.items()}
    assert tool.missed(limits) == list(limits)


def test_values_are_in_the_targets_units(loads, tool):
    found = {"a": one(loads, 0.5, 0.75, 900_000), "b": one(loads, 2.0, None, 1_600_000)}
    assert tool.values(found, {"cold build": 12.0}) == {
        "front page, loaded": 0.75,
        "front page, weight": 0.9,
        "largest chapter, loaded": 2.0,
        "largest chapter, weight": 1.6,
        "cold build": 12.0,
    }


def shown(tables: list) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.export_text()


def test_the_tables_name_what_is_missed_and_what_pages_are_made_of(loads, tool):
    found = {"a": one(loads, 0.5, None, 900_000), "b": one(loads, 2.0, 2.5, 1_600_000)}
    lines = shown(tool.tables(found, tool.values(found, {}))).splitlines()
    [front] = [line for line in lines if "front page, weight" in line]
    [late] = [line for line in lines if "largest chapter, loaded" in line]
    assert "0.90 MB" in front
    assert "holds" in front
    assert "2.50 s" in late
    assert "MISSED" in late
    [document] = [line for line in lines if "Document" in line]
    assert "900 (1800)" in document
    assert "1600 (3200)" in document
    [formula] = [line for line in lines if "last formula" in line]
    assert "none" in formula
    assert "2.50 s" in formula


def test_builds_are_timed_in_a_copy_that_no_build_has_seen(tool, tmp_path, monkeypatch):
    root = tmp_path / "root"
    for name in ("chapters", "_build", ".git", ".venv", "code/tilebook/__pycache__"):
        (root / name).mkdir(parents=True)
    (root / "chapters" / "a.md").write_text("# A\n")
    (root / "chapters" / "b.md").write_text("# B\n\nThe longer one.\n")
    monkeypatch.setattr(tool, "ROOT", root)
    seen = []

    def run(tree: Path, live: bool) -> float:
        built = (tree / "_build").exists()
        (tree / "_build").mkdir(exist_ok=True)
        texts = [path.read_text() for path in sorted(tree.glob("chapters/*.md"))]
        left = [x for x in (".git", ".venv") if (tree / x).exists()]
        left += [str(x) for x in tree.rglob("__pycache__")]
        seen.append((built, live, texts, left))
        return float(len(seen))

    assert list(tool.builds(False, run).items()) == [
        ("cold build", 1.0),
        ("unchanged build", 2.0),
        ("build of one chapter", 3.0),
    ]
    cold, unchanged, edited = seen
    assert cold[:2] == (False, False)
    assert unchanged[:2] == (True, False)
    assert cold[2] == unchanged[2]
    assert edited[2][0] == cold[2][0]
    assert edited[2][1].startswith(cold[2][1])
    assert edited[2][1] != cold[2][1]
    assert all(left == [] for *_, left in seen)
    assert (root / "chapters" / "b.md").read_text() == "# B\n\nThe longer one.\n"
    seen.clear()
    assert "live build" in tool.builds(True, run)
    assert [live for _, live, *_ in seen] == [False, False, False, True]


def test_a_build_is_run_by_this_python_with_the_copys_package(tool, tmp_path):
    (tmp_path / "tree" / "tools").mkdir(parents=True)
    (tmp_path / "tree" / "tools" / "build_book.py").write_text(
        "import json, os, sys, pathlib\n"
        "said = {'args': sys.argv[1:], 'path': os.environ['PYTHONPATH'],\n"
        "        'triton': os.environ['TRITON_CACHE_DIR'], 'python': sys.executable}\n"
        "pathlib.Path('said.json').write_text(json.dumps(said))\n"
        "sys.exit('--live' in sys.argv)\n"
    )
    tree = tmp_path / "tree"
    assert 0 < tool.timed_build(tree, False) < 60
    said = json.loads((tree / "said.json").read_text())
    assert said["path"].split(":")[0] == str(tree / "code")
    assert said["triton"].startswith(str(tmp_path))
    assert said["python"] == sys.executable
    assert "--live" not in said["args"]
    with pytest.raises(subprocess.CalledProcessError):
        tool.timed_build(tree, True)


@pytest.fixture
def run(tool, loads, site, tmp_path, monkeypatch):
    """Run the tool on made-up visits; gives its status and report."""

    @contextmanager
    def browser():
        yield SimpleNamespace(version="1.0")

    def main(*arguments: str, loaded: float = 0.5) -> tuple[int, dict]:
        out = tmp_path / "report.json"
        out.unlink(missing_ok=True)
        monkeypatch.setattr(tool, "chromium", browser)
        monkeypatch.setattr(tool, "visit", lambda *_: one(loads, loaded, None, 1000))
        monkeypatch.setattr(
            sys, "argv", ["x", "--site", str(site), "--out", str(out), *arguments]
        )
        status = tool.main()
        return status, json.loads(out.read_text()) if out.exists() else {}

    return main


def test_the_report_says_on_what_it_was_measured(run):
    status, report = run()
    assert status == 0
    assert report["missed"] == []
    assert report["measured"]["front page, loaded"] == 0.5
    assert report["pages"]["book/index.html"]["sent"]["Document"] == 1000
    assert report["chromium"] == "1.0"
    assert report["cores"] > 0
    assert report["date"].startswith("20")
    assert {"sphinx", "triton"} <= report["versions"].keys()
    assert len(report["load_before"]) == len(report["load_after"]) == 3


def test_a_missed_target_fails_only_where_that_is_asked_for(run):
    assert run(loaded=2.0)[0] == 0
    status, report = run("--check", loaded=2.0)
    assert status == 1
    assert report["missed"] == ["front page, loaded", "largest chapter, loaded"]
    assert run("--check")[0] == 0


def test_what_can_not_be_measured_is_said(run, site, capsys):
    (site / "book" / "index.html").unlink()
    status, report = run()
    assert status == 2
    assert report == {}
    assert "run make html first" in capsys.readouterr().err


def test_a_live_build_wants_a_card(run, tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "gpus", lambda: "")
    with pytest.raises(SystemExit):
        run("--build", "--live")
    assert "--live wants --build and a GPU" in capsys.readouterr().err
