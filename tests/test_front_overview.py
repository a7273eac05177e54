"""The front page's figure: every case has its dot, and losses are losses."""

import importlib
import re
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from docutils import nodes

from tilebook import measure
from tilebook.measure import Budget, RecordError, overview, runner
from tilebook.measure.record import Ratio
from tilebook.measure.simulated import Simulated
from tilebook.measure.timing import Timing

ROOT = Path(__file__).resolve().parents[1]
INDEX = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
# Over the peer: twice as fast, level within the spread, half as fast.
TIMES = {16: 2.0, 32: 4.0, 64: 8.0}


def sample(bench):
    for n, ms in TIMES.items():
        for impl, took in (("ours", 4.0), ("peer", ms), ("slow peer", 9.0)):
            bench.row(
                impl=impl,
                ours=impl == "ours",
                shape={"n": n},
                dtype=torch.float32,
                regime="steady",
                timing=Timing(
                    took, 0.9 * took, 1.1 * took, (took, 0.9 * took, 1.1 * took)
                ),
                bytes=n,
                flops=n,
            )


@pytest.fixture(scope="module")
def record():
    made = measure.Experiment("sample-add", "Why?", "add", ("check",), "gpu", sample)
    return runner.measure(made, Simulated(), Budget(3))


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The figure's module of the book's extension."""
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    return importlib.import_module("bookext.overview")


def wanted(extension: ModuleType) -> list[tuple[str, str, str]]:
    """The lines of the front page's figure."""
    [body] = re.findall(r"^```\{overview\}\n(.*?)^```", INDEX, re.M | re.S)
    return extension.parsed(body.splitlines())


def test_a_case_is_ahead_or_behind_by_more_than_the_spread():
    assert overview.kind(Ratio(1.1, 1.01, 1.2)) == "ahead"
    assert overview.kind(Ratio(1.1, 1.0, 1.2)) == "level"
    assert overview.kind(Ratio(0.9, 0.8, 1.0)) == "level"
    assert overview.kind(Ratio(0.9, 0.8, 0.99)) == "behind"


def test_each_case_is_held_against_the_fastest_peer(record):
    line = overview.line_of(record, "ours", "a line")
    assert [x.median for x in line.ratios] == pytest.approx([0.5, 1.0, 2.0])
    assert line.counts() == {"ahead": 1, "level": 1, "behind": 1}
    with pytest.raises(RecordError, match="no row has impl=theirs"):
        overview.line_of(record, "theirs", "a line")


def test_every_case_has_a_dot_on_its_side(record):
    one = overview.line_of(record, "ours", "one")
    many = overview.Line("many", tuple(Ratio(1.5, 1.4, 1.6) for _ in range(40)))
    figure = overview.draw([one, many])
    [axes] = figure.axes
    dots = [line for line in axes.lines if line.get_label() in overview.KINDS]
    assert sum(len(x.get_xdata()) for x in dots) == 43
    for line in dots:
        for x in line.get_xdata():
            assert {"ahead": x > 1, "behind": x < 1, "level": True}[line.get_label()]
    low, high = axes.get_xlim()
    assert low < 0.5
    assert high > 2
    heights = [y for line in dots for y in line.get_ydata()]
    assert min(heights) >= -0.5
    assert max(heights) <= 1.5
    assert len({round(y, 6) for y in heights if y > 0.5}) == 40, "dots hide others"
    words = [text.get_text() for text in axes.texts]
    assert words.count("40") == 1
    assert {"one", "many", "ahead", "level", "behind"} <= set(words)
    with pytest.raises(ValueError, match="no line"):
        overview.draw([])


def test_losses_look_like_losses():
    looks = [(x["marker"], x["color"]) for x in overview.KINDS.values()]
    assert len(set(looks)) == 3
    assert overview.KINDS["ahead"]["marker"] != overview.KINDS["behind"]["marker"]


def test_the_front_page_holds_every_shown_chapter_with_a_record(extension):
    lines = wanted(extension)
    records = [record for _, record, _ in lines]
    stems = {record.partition("-")[0] for record in records}
    tree = re.findall(r"^/chapters/(\w+)$", INDEX, re.M)
    recorded = {path.stem.partition("-")[0] for path in measure.committed()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    # A chapter without an operator: its record has edits of one kernel beside it.
    without = {"compiler", *project["tool"]["tilebook"]["drafts"]}
    assert stems == (set(tree) & recorded) - without
    assert len(set(records)) == len(records)


def test_the_figure_has_the_losses_that_the_chapters_quote(extension):
    found = {
        record: overview.line_of(measure.load(record), impl, label)
        for label, record, impl in wanted(extension)
    }
    for name, quoted in {
        "softmax-forward": "over_peers_worst",
        "softmax-backward": "gradient_worst",
    }.items():
        worst = min(ratio.median for ratio in found[name].ratios)
        assert worst == pytest.approx(measure.load(name).value(quoted))
    assert all(sum(x.counts().values()) == len(x.ratios) for x in found.values())


def test_the_figure_is_said_in_words_and_numbers(extension):
    counts = [
        {"ahead": 5, "level": 2, "behind": 1},
        {"ahead": 0, "level": 1, "behind": 3},
    ]
    lines = [("add", "one-speed", "add"), ("copy", "two-speed", "copy")]
    text = extension.said(lines, counts)
    assert "add 5 ahead, 2 level, 1 behind; copy 0 ahead, 1 level, 3 behind" in text
    assert "12 cases" in extension.caption(counts)
    assert "faster, in 5 cases" in extension.caption(counts)
    assert "the library is, in 4 cases." in extension.caption(counts)


def test_records_of_one_stamp_are_named_by_their_days(extension, monkeypatch):
    made = {"a": ("G, x 1", "2026-01-01"), "b": ("G, x 1", "2026-01-02")}
    made |= {"c": ("G, x 2", "2026-01-02"), "d": ("G, x 1", "2026-01-01")}
    quotes = [
        SimpleNamespace(name=name, stamp=f"{by}, {day}.", provenance={"date": day})
        for name, (by, day) in made.items()
    ]
    fill = extension.FillIn.__new__(extension.FillIn)
    monkeypatch.setattr(fill, "named", lambda quote: [nodes.Text(quote.name)], False)
    text = fill.provenance(quotes).astext()
    assert text == "G, x 1; 2026-01-01: a, d; 2026-01-02: b. G, x 2; 2026-01-02: c."


def test_a_record_that_is_missing_is_warned_of_where_it_is_asked_for(
    extension, monkeypatch: pytest.MonkeyPatch
):
    said = []
    monkeypatch.setattr(extension.log, "warning", lambda *x, **more: said.append(more))
    fill = extension.FillIn.__new__(extension.FillIn)
    assert fill.filled([("add", "no-such-record", "add")], "page:7") == []
    assert [x["location"] for x in said] == ["page:7"]


def test_lines_of_the_directive_are_read(extension):
    lines = extension.parsed(["its gradient: softmax-backward gradient, deep"])
    assert lines == [("its gradient", "softmax-backward", "gradient, deep")]
    for wrong in ([], ["add parallel-add add"], ["add: parallel-add"], [": a b"]):
        with pytest.raises(ValueError, match="overview wants"):
            extension.parsed(wrong)


def test_it_is_drawn_once_for_each_state_of_code_and_records(
    extension, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    quotes = importlib.import_module("bookext.quotes")
    state = ["first"]
    monkeypatch.setattr(quotes, "state", lambda: state[0])
    drawn = []
    for now in ("first", "first", "second"):
        state[0] = now
        store = quotes.Store()
        store.open(tmp_path / "quotes.json")
        store.once("figure", lambda now=now: drawn.append(now) or {"svg": now})
    assert drawn == ["first", "second"]
