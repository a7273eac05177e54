"""Launches: descriptors, chains of dependent kernels, graphs."""

import itertools

import pytest
import torch

from tilebook import device as here
from tilebook import testing
from tilebook.parallel import launch

DTYPES = (torch.float32, torch.bfloat16, torch.int32)


def vectors(count, n, dtype, device):
    return [(100 * torch.randn(n, device=device)).to(dtype) for _ in range(count)]


def in_turn(x, terms):
    return list(itertools.accumulate([x, *terms], torch.add))[-1]


def test_kernels_that_do_nothing_do_nothing(device):
    x = torch.arange(16.0, device=device)
    launch.empty_kernel[(3,)]()
    launch.four_kernel[(3,)](x, x, x, 16)
    launch.sixteen_kernel[(3,)](*(x,) * 12, 16, 32, 48, 64)
    assert torch.equal(x, torch.arange(16.0, device=device))


class TestDescriptors:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(
        "n", [0, 1, 4, 1000, 1024, pytest.param(3001, marks=pytest.mark.sanitize)]
    )
    def test_any_length(self, n, dtype, device):
        x, y = vectors(2, n, dtype, device)
        with testing.guarded():
            out = launch.add_described(x, y)
        assert torch.equal(out, x + y)

    @pytest.mark.parametrize("which", [0, 1])
    def test_an_address_off_16_bytes_is_refused(self, which, device):
        x, y = vectors(2, 101, torch.float32, device)
        operands = [x[:100], y[:100]]
        operands[which] = (x, y)[which][1:]
        message = f"{'xy'[which]} must start at a multiple of 16 bytes .* got 4 bytes"
        with pytest.raises(ValueError, match=message):
            launch.add_described(*operands)

    def test_two_dimensions_are_refused(self, device):
        x = torch.zeros(4, 4, device=device)
        with pytest.raises(ValueError, match="x must have 1 dimension, got 2"):
            launch.add_described(x, x)


class TestChain:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(
        "n", [0, 1, 1023, 1024, pytest.param(2500, marks=pytest.mark.sanitize)]
    )
    def test_is_a_sum_rounded_after_every_term(self, n, dtype, device):
        x, *terms = vectors(5, n, dtype, device)
        before = [t.clone() for t in (x, *terms)]
        with testing.guarded():
            out = launch.add_chain(x, terms)
        assert torch.equal(out, in_turn(x, terms))
        assert all(map(torch.equal, before, (x, *terms)))

    def test_one_term(self, device):
        x, y = vectors(2, 99, torch.float32, device)
        assert torch.equal(launch.add_chain(x, [y], dependent=False), x + y)

    @pytest.mark.gpu
    @pytest.mark.parametrize("n", [1000, 2**16, 2**22])
    def test_dependent_launch_waits_where_it_must(self, n, device):
        here.has("pdl") or pytest.skip("needs programmatic dependent launch")
        x, *terms = vectors(33, n, torch.float32, device)
        expected = in_turn(x, terms)
        testing.deterministic(lambda: launch.add_chain(x, terms, dependent=True))
        graph_out = []
        graph = launch.capture(
            lambda: graph_out.append(launch.add_chain(x, terms, dependent=True))
        )
        for _ in range(20):
            # The terms are written just before: no link may read them too early.
            for term in terms:
                term.mul_(-1)
            graph.replay()
            assert torch.equal(graph_out[-1], in_turn(x, terms))
        assert torch.equal(launch.add_chain(x, terms, dependent=True), expected)

    def test_dependent_launch_needs_hardware(self, device):
        x, y = vectors(2, 99, torch.float32, device)
        if here.has("pdl"):
            assert torch.equal(launch.add_chain(x, [y], dependent=True), x + y)
        else:
            with pytest.raises(here.HardwareError, match="dependent launch"):
                launch.add_chain(x, [y], dependent=True)

    @pytest.mark.parametrize(
        ("x", "terms", "error", "message"),
        [
            (None, [], TypeError, "x must be a torch.Tensor"),
            (torch.ones(4), [], ValueError, "terms must hold at least one tensor"),
            (torch.ones(4), [1.0], TypeError, r"terms\[0\] must be a torch.Tensor"),
            (torch.ones(4), [torch.ones(5)], ValueError, r"terms\[0\] must have shape"),
            (
                torch.ones(4),
                [torch.ones(4), torch.ones(4).int()],
                TypeError,
                r"terms\[1\] must be float32, got int32",
            ),
        ],
    )
    def test_unfit(self, x, terms, error, message, device):
        def there(t):
            return t.to(device) if isinstance(t, torch.Tensor) else t

        with pytest.raises(error, match=message):
            launch.add_chain(there(x), [there(t) for t in terms])

    def test_terms_with_gaps_are_refused(self, device):
        x, gaps = torch.ones(4, device=device), torch.ones(8, device=device)[::2]
        with pytest.raises(ValueError, match=r"terms\[0\] must be contiguous"):
            launch.add_chain(x, [gaps])
        with pytest.raises(ValueError, match="x must be contiguous"):
            launch.add_chain(gaps, [x])


class TestGraph:
    @pytest.mark.gpu
    def test_replays_what_was_launched(self, device):
        x, y = vectors(2, 5000, torch.float32, device)
        out = torch.empty_like(x)
        graph = launch.capture(lambda: torch.add(x, y, out=out))
        x.fill_(2)
        graph.replay()
        assert torch.equal(out, 2 + y)

    def test_needs_a_gpu(self):
        if here.has("gpu"):
            pytest.skip("there is one")
        with pytest.raises(here.HardwareError, match="needs a GPU"):
            launch.capture(lambda: None)


MISTAKES = [
    ("mask = offs < n", "mask = offs <= n"),
    ("tl.load(total_ptr", "tl.load(out_ptr"),
    ("total + term, mask", "total, mask"),
    ("total = out", "total = x"),
    ("x_desc.load([start])", "x_desc.load([0])"),
    ("out_desc.store([start]", "out_desc.store([start + 4]"),
]


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    x, *terms = vectors(4, 2100, torch.float32, device)

    def right():
        try:
            with testing.guarded():
                return torch.equal(
                    launch.add_chain(x, terms), in_turn(x, terms)
                ) and torch.equal(launch.add_described(x, terms[0]), x + terms[0])
        except (AssertionError, IndexError):
            return False

    assert right()
    with testing.mutated_module(launch, old, new):
        assert not right()
