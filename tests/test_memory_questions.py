"""The kernels that ask the memory questions: right answers first."""

import pytest
import torch

from tilebook import testing
from tilebook.memory import chase, contention, intensity, streams, strides, sweep

LENGTHS = (0, 1, 511, 1000, 2047, 2048, 2049, 5003)


@pytest.mark.sanitize
@pytest.mark.parametrize("n", LENGTHS)
def test_streams(n, device):
    x, y = (testing.guard(torch.randn(n, device=device)).tensor for _ in range(2))
    with testing.guarded():
        sums = streams.block_sums(x)
        filled = streams.fill(torch.empty_like(x), 2.5)
        out = streams.triad(x, y, -1.5)
    padded = torch.nn.functional.pad(x.double(), (0, -n % streams.BLOCK))
    tiles = padded.view(-1, streams.BLOCK)
    testing.assert_close(
        sums, tiles.sum(1), length=streams.BLOCK, scale=tiles.abs().sum(1)
    )
    assert torch.equal(filled, torch.full_like(x, 2.5))
    exact = x.double() - 1.5 * y.double()
    testing.assert_close(out, exact, length=2, scale=x.abs() + 1.5 * y.abs())


@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.bfloat16, torch.float8_e5m2, torch.float64, torch.complex64],
    ids=str,
)
@pytest.mark.parametrize("stride", [1, 3, 33])
@pytest.mark.parametrize("n", [1, 511, 700])
@pytest.mark.parametrize("shift", [0, 1, 5])
def test_pick(dtype, stride, n, shift, device):
    x = (100 * torch.rand(n * stride + shift, device=device)).to(dtype)
    with testing.guarded():
        out = strides.pick(x, stride, n, shift=shift)
    assert torch.equal(*map(testing.poison.flat_bytes, (out, x[shift::stride][:n])))


def test_autograd_notices_what_is_filled(device):
    x = torch.ones(4, device=device)
    product = torch.ones(4, device=device, requires_grad=True) * x
    streams.fill(x, 0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


def test_pick_takes_none_and_refuses_what_is_not_there(device):
    x = torch.zeros(10, device=device)
    assert strides.pick(x, 3, 0).shape == (0,)
    assert strides.pick(x, 3, 4).shape == (4,)
    with pytest.raises(ValueError, match=r"x must reach element 12, .* got 10"):
        strides.pick(x, 3, 5)
    with pytest.raises(ValueError, match="stride must be at least 1"):
        strides.pick(x, 0, 1)


def test_sectors():
    assert strides.sectors(1, 4) == 1 / 8
    assert strides.sectors(8, 4) == strides.sectors(100, 4) == 1
    assert strides.moved(1000, 1, 4) == 8000
    assert strides.moved(1000, 8, 4) == 36_000


@pytest.mark.parametrize("n", [1, 2047, 2048, 9999])
@pytest.mark.parametrize(("passes", "programs"), [(1, 1), (3, 2), (2, 9)])
def test_sweep(n, passes, programs, device):
    x = torch.randint(-(2**31), 2**31 - 1, (n,), device=device).to(torch.int32)
    with testing.guarded():
        out = sweep.sweep(testing.guard(x).tensor, passes, programs=programs)
    assert torch.equal(out, sweep.shares(x, passes, programs))


@pytest.mark.parametrize("lines", [2, 3, 40])
def test_a_chain_visits_every_line_once(lines, device):
    links = chase.chain(lines * chase.LINE + 8, device=device, seed=3)
    walker = torch.zeros(1, dtype=torch.int64, device=device)
    at, seen = 0, set()
    for _ in range(lines):
        seen.add(at)
        at = int(links[at])
        assert at % (chase.LINE // 8) == 0
        assert chase.chase(links, 1, walker) is walker
        assert int(walker) == at
    assert at == 0
    assert len(seen) == lines
    assert int(chase.chase(links, 2 * lines, walker)) == 0


def test_a_chain_needs_two_lines(device):
    with pytest.raises(ValueError, match="nbytes must be at least 256, got 255"):
        chase.chain(255, device=device)
    with pytest.raises(TypeError, match="links must be int64"):
        chase.chase(torch.zeros(4, device=device), 1, torch.zeros(1, device=device))
    links = chase.chain(1024, device=device)
    with pytest.raises(TypeError, match="at must be int64"):
        chase.chase(links, 1, torch.zeros(1, device=device))
    with pytest.raises(ValueError, match="hops must be at least 1"):
        chase.chase(links, 0, links[:1].clone())


@pytest.mark.sanitize
@pytest.mark.parametrize("places", [1, 7, 256, 1000])
def test_no_addition_is_lost(places, device):
    out = contention.count(places, 3, 4, device=device)
    assert int(out.sum()) == 3 * 4 * contention.BLOCK
    if places in (1, 256):
        assert int(out.max()) == int(out.min())


def test_too_many_additions_are_refused(device):
    with pytest.raises(ValueError, match="below 2"):
        contention.count(1, 2**20, 2**20, device=device)


@pytest.mark.parametrize("steps", [0, 1, 7])
@pytest.mark.parametrize("n", [0, 1, 1000, 1025])
def test_work(n, steps, device):
    x = testing.guard(torch.randn(n, device=device)).tensor
    with testing.guarded():
        out = intensity.work(x, steps)
    testing.assert_close(
        out, intensity.worked(x.double(), steps), length=4, scale=x.abs() + 2
    )


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: streams.block_sums(x.int()), "x must be float32"),
        (lambda x: streams.fill(x[::2], 1), "out must be contiguous"),
        (lambda x: streams.triad(x, x[1:], 1), "y"),
        (lambda x: sweep.sweep(x, 1), "x must be int32"),
        (lambda x: sweep.sweep(x.int(), 0), "passes must be at least 1"),
        (lambda x: sweep.sweep(x.int(), 1, programs=2**20), "programs must be at most"),
        (lambda x: intensity.work(x, -1), "steps must be at least 0, got -1"),
        (lambda x: intensity.work(x, True), "steps must be an int, got bool"),
        (lambda x: intensity.work(None, 1), "x must be a torch.Tensor"),
        (lambda x: intensity.work(x[:-1], 1, out=x[1:]), "out must not overlap"),
        (lambda x: streams.triad([1.0], x, 1), "x must be a torch.Tensor, got list"),
        (lambda x: streams.triad(x[1:], x[1:], 1, out=x[:-1]), "out must not overlap"),
        (lambda x: streams.triad(x, x, "2"), "a must be a number, got str"),
        (lambda x: streams.fill(x, 10**400), "value must fit into a float"),
        (lambda x: strides.pick(x, 1, 2, shift=-1), "shift must be at least 0"),
        (lambda x: contention.count(2**31, 1, 1, device=x.device), "places must be"),
        (lambda x: chase.chain(300.5, device=x.device), "nbytes must be an int"),
        (lambda x: intensity.work(x.double(), 1), "must be float32"),
    ],
)
def test_unfit(fn, message, device):
    with pytest.raises((TypeError, ValueError), match=message):
        fn(torch.ones(8, device=device))


MISTAKES = [
    (streams, "x + a * y, mask", "x + y, mask"),
    (streams, "tl.sum(x, 0)", "tl.max(x, 0)"),
    (strides, "x_ptr + shift + offs * stride", "x_ptr + offs * stride"),
    (strides, "offs * stride", "offs"),
    (sweep, "for _ in range(passes)", "for _ in range(1)"),
    (sweep, "step = tl.num_programs(0) * BLOCK", "step = BLOCK"),
    (chase, "range(hops)", "range(hops + 1)"),
    (contention, "(lanes + i) % places", "lanes % places + i"),
    (intensity, "x * factor + term", "x * factor"),
]


@pytest.mark.parametrize(("module", "old", "new"), MISTAKES)
def test_planted_mistakes_are_found(module, old, new, device):
    checks = {
        streams: lambda: test_streams(2049, device),
        strides: lambda: test_pick(torch.float64, 3, 511, 5, device),
        sweep: lambda: test_sweep(9999, 3, 2, device),
        chase: lambda: test_a_chain_visits_every_line_once(40, device),
        contention: lambda: test_no_addition_is_lost(7, device),
        intensity: lambda: test_work(1000, 7, device),
    }
    checks[module]()
    with (
        testing.mutated_module(module, old, new),
        pytest.raises((AssertionError, IndexError)),
    ):
        checks[module]()
