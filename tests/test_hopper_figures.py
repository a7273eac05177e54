"""Pictures show the schedules that the kernels keep."""

import io
import itertools

import matplotlib
import pytest
import torch

from tilebook import schedules
from tilebook.hopper import cooperative, figures, folded, pingpong
from tilebook.hopper.figures import Span
from tilebook.hopper.launching import describe

FIRST, SECOND, PRODUCER = figures.WHO
MODULES = {"cooperative": cooperative, "folded": folded, "pingpong": pingpong}
PARTS = {"cooperative": 2, "folded": 2, "pingpong": 1}


def drawn(picture):
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "a constant"}):
        picture.figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def of(spans, who, what):
    return sorted(
        (s for s in spans if (s.who, s.what) == (who, what)), key=lambda s: s[2:]
    )


def test_draws_twice_alike_and_speaks():
    picture, again = figures.plans(256, 2), figures.plans(256, 2)
    assert drawn(picture) == drawn(again)
    assert picture.alt.endswith(".")
    assert "pingpong: somebody multiplies 1.00" in picture.alt
    assert "cooperative: somebody multiplies 0.85" in figures.plans(512, 2).alt or (
        "cooperative: somebody multiplies 0.9" in figures.plans(512, 2).alt
    )


def test_clocks_of_the_plans():
    # 2 * 128 * 256 * 512 operations at 4,096 a clock.
    plain = figures.planned("cooperative", 512, 3, end=1000)
    begun = [s.begin for s in of(plain, FIRST, "multiply")]
    assert [b - a for a, b in itertools.pairwise(begun)] == [9192, 9192]
    under = figures.planned("folded", 512, 3, end=1000)
    begun = [s.begin for s in of(under, FIRST, "multiply")]
    assert [b - a for a, b in itertools.pairwise(begun)] == [8192, 8192]
    turns = figures.planned("pingpong", 512, 3, end=1000)
    assert [s.tile for s in of(turns, SECOND, "multiply")] == [1, 3, 5]
    assert {s.end - s.begin for s in turns if s.what == "multiply"} == {4096}
    assert {s.end - s.begin for s in turns if s.what == "store"} == {500}


@pytest.mark.parametrize("name", MODULES)
def test_nobody_multiplies_what_was_not_asked_for(name):
    spans = figures.planned(name, 512, 3)
    for who in (FIRST, SECOND):
        for span in of(spans, who, "multiply"):
            (asked,) = [s for s in of(spans, PRODUCER, "ask") if s.tile == span.tile]
            assert asked.begin < span.begin
            assert asked.end < span.end
        ends = {s.tile: s.end for s in of(spans, who, "multiply")}
        for store in of(spans, who, "store"):
            assert store.begin >= ends[store.tile]


def test_shares_of_time():
    spans = [
        Span(FIRST, "multiply", 0, 0, 10),
        Span(SECOND, "multiply", 0, 5, 12),
        Span(FIRST, "store", 0, 10, 14),
        Span(FIRST, "multiply", 1, 16, 20),
    ]
    assert figures.busy(spans) == pytest.approx((12 + 4) / 20)
    assert figures.hidden(spans) == pytest.approx(2 / 4)
    # A store after the last product can't be hidden, and doesn't count.
    assert figures.hidden([*spans, Span(FIRST, "store", 1, 20, 30)]) == 0.5
    assert figures.hidden(spans[:2]) == 0


def test_clocks_of_products_and_of_what_is_between():
    spans = [
        Span(FIRST, "multiply", 0, 0, 50),
        Span(FIRST, "store", 0, 50, 64),
        Span(FIRST, "multiply", 2, 66, 76),
        Span(FIRST, "multiply", 4, 100, 120),
        Span(SECOND, "multiply", 1, 5, 10),
        Span(SECOND, "multiply", 3, 12, 42),
    ]
    # Its first tile waits for memory. After it 10, 20 and 30; between, 16, 24 and 2.
    assert figures.clocks(spans) == (20, 16)
    assert figures.clocks(figures.planned("cooperative")) == (8192, figures.END)
    assert figures.clocks(figures.planned("folded")) == (8192, 0)
    assert figures.clocks(figures.planned("pingpong", 1024)) == (8192, 8192)


def test_what_the_plans_say_of_hidden_ends():
    hidden = {n: figures.hidden(figures.planned(n)) for n in MODULES}
    assert hidden == {"cooperative": 0, "folded": 1, "pingpong": 1}
    busy = {n: figures.busy(figures.planned(n, 512, 100)) for n in MODULES}
    assert busy["folded"] == busy["pingpong"] == 1
    assert busy["cooperative"] == pytest.approx(8192 / 9692, rel=0.01)


@pytest.mark.parametrize("wrong", [("other",), ("folded", 0), ("folded", 512, 0)])
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError, match=r"no schedule|must be"):
        figures.planned(*wrong)


def events(name, seed):
    """Run a kernel in some order; what each partition did, and to what."""
    m, n, k = 128, 64, 64
    a, b, out = (torch.zeros(s).bfloat16() for s in ((m, k), (k, n), (m, n)))
    parts = PARTS[name]
    block_m = 64 * parts
    described = (
        describe(a, 64, 16, False),
        describe(b, 16, 32, False),
        describe(out, 64, 32, False),
    )
    meta = {"BLOCK_M": block_m, "BLOCK_N": 32, "BLOCK_K": 16, "STAGES": 2, "GROUP": 8}
    meta |= {"A_TURNED": False, "B_TURNED": False, "REGISTERS": 232}
    kernel = MODULES[name].matmul_kernel
    (found,) = schedules.run(kernel, (1,), *described, None, m, n, k, **meta, seed=seed)
    return [event for event in found if not event.who.startswith(("copy", "tensor"))]


@pytest.mark.parametrize("seed", [0, 10])
def test_ping_pong_takes_turns_as_drawn(seed):
    who = [e.who for e in events("pingpong", seed) if e.what == "multiply"]
    # Four chunks a tile, and the second group's first comes after the first's last.
    assert who == ["consume 0"] * 4 + ["consume 1"] * 4 + (
        ["consume 0"] * 4 + ["consume 1"] * 4
    )


@pytest.mark.parametrize("seed", [0, 10])
@pytest.mark.parametrize("name", ["cooperative", "folded"])
def test_stores_lie_where_they_are_drawn(name, seed):
    mine = [e for e in events(name, seed) if e.who == "consume 0"]
    steps = [e.what for e in mine if e.what in ("multiply", "store")]
    if name == "cooperative":
        assert steps == (["multiply"] * 4 + ["store"]) * 2
    else:
        # The first is of no tile, past the last row; the others one chunk late.
        assert steps == (["multiply", "store"] + ["multiply"] * 3) * 2 + ["store"]


def test_nothing_is_drawn_too_wide_for_a_telephone():
    """At 390 px a digit of 8 points has to stay 6 px high."""
    points = 72 * figures.plans(256, 1).figure.get_size_inches()[0]
    assert 8 * 390 / points >= 6
