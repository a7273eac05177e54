"""The online recurrence on the host: states, merging, bounds, and what it shows."""

import math
import struct

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import testing
from tilebook.softmax import recurrence
from tilebook.softmax.recurrence import State, bound, empty, logarithm, merge, online
from tilebook.softmax.recurrence import state as state_of

NONE = -math.inf
# Finite terms far apart, and now and then -inf.
TERMS = st.lists(
    st.one_of(st.floats(-200, 200, width=32), st.just(NONE)), min_size=1, max_size=40
)


def row(terms, dtype=torch.float64):
    return torch.tensor(terms, dtype=dtype)


def exact(x):
    return state_of(x.double())


def assert_states_agree(a, b, error):
    assert torch.equal(a.m, b.m)
    assert bool(((a.d - b.d).abs() <= error * b.d.abs()).all()), (a, b)


@given(terms=TERMS, cuts=st.lists(st.integers(0, 40), max_size=6), wide=st.booleans())
def test_a_row_may_be_cut_anywhere(terms, cuts, wide):
    x = row(terms, torch.float64 if wide else torch.float32)
    cuts = sorted(min(cut, len(terms)) for cut in cuts)
    error = bound(len(terms), len(cuts) + 1, x.dtype)
    # What holds for float32 holds against float64; that has nothing finer to compare.
    assert_states_agree(online(x, cuts), state_of(x), 2 * error)
    found = online(x, cuts)
    whole = exact(x)
    assert_states_agree(State(found.m.double(), found.d.double()), whole, 2 * error)


@given(terms=st.tuples(TERMS, TERMS, TERMS))
def test_merging_is_associative_and_commutative(terms):
    a, b, c = (state_of(row(part)) for part in terms)
    error = 2 * bound(sum(map(len, terms)), 2, torch.float64)
    assert_states_agree(merge(merge(a, b), c), merge(a, merge(b, c)), error)
    assert_states_agree(merge(a, b), merge(b, a), error)


@given(terms=TERMS)
def test_no_terms_are_neutral_to_the_bit(terms):
    x = row(terms)
    found = state_of(x)
    for other in (merge(found, empty(x)), merge(empty(x), found)):
        assert torch.equal(found.m, other.m)
        assert torch.equal(found.d, other.d)


def test_no_terms_at_all():
    nothing = merge(empty(torch.ones(2, 3)), empty(torch.ones(2, 3)))
    assert nothing.m.tolist() == [NONE, NONE]
    assert nothing.d.tolist() == [0.0, 0.0]
    assert logarithm(nothing).tolist() == [NONE, NONE]
    assert state_of(torch.empty(2, 0)).m.tolist() == [NONE, NONE]


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2, 3), (0, 4)], ids=str)
def test_nan_and_infinities_end_as_in_pytorch(cuts):
    inf, nan = math.inf, math.nan
    x = row(
        [
            [1.0, nan, 2.0, 3.0],
            [nan, nan, nan, nan],
            [NONE, NONE, nan, NONE],
            [inf, nan, 1.0, 2.0],
            [1.0, inf, 2.0, NONE],
            [inf, inf, inf, inf],
            [NONE, NONE, NONE, NONE],
            [NONE, NONE, 1.0, NONE],
            [NONE, -1e300, NONE, 1e300],
        ]
    )
    found = logarithm(online(x, cuts))
    testing.assert_close(found, torch.logsumexp(x, dim=-1), length=8)


def test_the_softmax_follows_from_the_state():
    x = torch.randn(5, 31, dtype=torch.float64)
    m, d = online(x, (7, 20))
    out = (x - m[:, None]).exp() / d[:, None]
    testing.assert_close(out, torch.softmax(x, dim=-1), length=40)


def test_the_bound_is_not_idle():
    """A sum in half precision, and one wrong factor, are beyond it."""
    x = torch.randn(300)
    good, error = exact(x), bound(300, 3, torch.float32)
    half = state_of(x.half())
    assert abs(float(half.d) / float(good.d) - 1) > error
    a, b = state_of(x[:100]), state_of(x[100:] + 0.01)
    m = torch.maximum(a.m, b.m)
    turned = a.d * (m - a.m).exp() + b.d * (m - b.m).exp()
    true = exact(torch.cat([x[:100], x[100:] + 0.01]))
    if a.m != b.m:
        assert abs(float(turned) / float(true.d) - 1) > error


def test_a_trace_shows_each_step():
    frame = recurrence.trace([1.0, 3.0, NONE, 2.0, 5.0], chunk=2)
    assert list(frame.columns) == ["chunk", "largest", "m", "d", "rescale"]
    assert frame["chunk"].tolist() == [0, 1, 2]
    assert frame["largest"].tolist() == [3.0, 2.0, 5.0]
    assert frame["m"].tolist() == [3.0, 3.0, 5.0]
    e = math.exp
    assert frame["d"].tolist() == pytest.approx(
        [
            1 + e(-2),
            1 + e(-2) + e(-1),
            (1 + e(-2) + e(-1)) * e(-2) + 1,
        ]
    )
    # The first chunk has nothing to make smaller, the second brings no new maximum.
    assert frame["rescale"].tolist() == pytest.approx([0.0, 1.0, e(-2)])


def test_a_trace_of_what_begins_with_nothing():
    frame = recurrence.trace(torch.tensor([NONE, NONE, 1.0]), chunk=1)
    assert frame["m"].tolist() == [NONE, NONE, 1.0]
    assert frame["d"].tolist() == [0.0, 0.0, 1.0]
    assert not frame["rescale"].isna().any()


MISTAKES = {
    "factor turned round": ("a.d * (a.m - base).exp()", "a.d * (base - a.m).exp()"),
    "not rescaled": ("a.d * (a.m - base).exp()", "a.d"),
    "infinity less itself": ("base = _base(m)\n", "base = m\n"),
    "smaller maximum": ("torch.maximum(a.m, b.m)", "torch.minimum(a.m, b.m)"),
    "second forgotten": (" + b.d * (b.m - base).exp()", ""),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistakes_are_found(mistake):
    x = row([[NONE, NONE, 3.0, 1.0, 5.0, 2.0]])
    want = state_of(x)

    def right():
        error = bound(6, 3, x.dtype)
        try:
            assert_states_agree(online(x, (1, 2, 4)), want, 2 * error)
        except AssertionError:
            return False
        return True

    assert right()
    with testing.mutated_module(recurrence, *MISTAKES[mistake]):
        assert not right()


def test_the_order_changes_bits_and_no_more():
    """What the bound allows does happen: the reason to fix the order in kernels."""
    cuts = ((), (500,), (100, 200, 300), tuple(range(1, 1000, 7)))
    # In one row they may agree by chance, and which one depends on the processor.
    found = [
        {struct.pack("f", float(online(x, each).d)) for each in cuts}
        for x in torch.randn(16, 1000)
    ]
    assert max(map(len, found)) > 1
