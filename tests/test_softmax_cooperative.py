"""Rows in the registers of programs that wait for one another; the gradient, too."""

import math

import pytest
import torch

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.softmax import (
    accuracy,
    backward_cooperative,
    cooperative,
    evidence,
    letters,
    words,
)
from tilebook.softmax.operands import PLAIN, Task

DTYPES = tuple(words.MINUS_INFINITY)
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
BOTH = pytest.mark.parametrize("log", [False, True], ids=["softmax", "log"])
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=str)
# Aligned and not, of one part and of many, the last one full and nearly empty.
SHAPES = (
    *((1, 1), (5, 7), (3, 64), (2, 1001), (300, 8192), (7, 8200), (1000, 4097)),
    *((9, 16385), (133, 65536), (70, 50257), (5, 2**19)),
)
WATCHED = ((5, 7), (2, 1001), (7, 8200))
shapes = pytest.mark.parametrize(
    "shape",
    [
        pytest.param(s, marks=pytest.mark.sanitize) if s in WATCHED else s
        for s in SHAPES
    ],
    ids=str,
)


def assert_right(out, x, *, log=False, temperature=1.0):
    fn = torch.log_softmax if log else torch.softmax
    expected = testing.reference(lambda x: fn(x / temperature, -1), x)
    scale, length = accuracy.forward(
        x, -1, log=log, temperature=temperature, chunks=letters.most_parts()
    )
    testing.assert_close(out, expected, length=length, factor=length, scale=scale)


def formula(y, grad, log, temperature):
    if log:
        return (grad - y.exp() * grad.sum(-1, keepdim=True)) / temperature
    return y * (grad - (y * grad).sum(-1, keepdim=True)) / temperature


def assert_gradient(dx, y, grad, *, log=False, temperature=1.0):
    expected = testing.reference(formula, y, grad, log, temperature)
    scale, length = accuracy.backward(y, grad, -1, log=log, temperature=temperature)
    testing.assert_close(dx, expected, length=length, factor=length, scale=scale)


def result(shape, log, dtype, device):
    x = torch.randn(shape, device=device)
    return (torch.log_softmax if log else torch.softmax)(x, -1).to(dtype)


def forward(x, config=None, task=PLAIN):
    config = config or cooperative.config_for(x.shape[1], x.itemsize)
    with testing.guarded():
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        cooperative.launch_as(config, x, out, task)
    return out


def backward(y, grad, config=None, task=PLAIN):
    config = config or backward_cooperative.config_for(y.shape[1], y.itemsize)
    with testing.guarded():
        dx = torch.empty_like(y)
        backward_cooperative.launch_as(config, y, grad, dx, task)
    return dx


@pytest.mark.gpu
@dtypes
@shapes
def test_any_shape(shape, dtype, device):
    x = testing.guard(torch.randn(shape, device=device).to(dtype))
    with testing.guarded():
        out = cooperative.softmax(x.tensor)
    x.check()
    assert_right(out, x.tensor)


@pytest.mark.gpu
@dtypes
@shapes
def test_gradients_of_any_shape(shape, dtype, device):
    y = testing.guard(result(shape, False, dtype, device))
    grad = testing.guard(torch.randn(shape, device=device).to(dtype))
    dx = backward(y.tensor, grad.tensor)
    y.check()
    grad.check()
    assert_gradient(dx, y.tensor, grad.tensor)


@pytest.mark.gpu
@BOTH
@pytest.mark.parametrize("n", [5000, 5003, 40000])
def test_logarithm_temperature_and_strides(n, log, device):
    for dtype in DTYPES:
        whole = torch.randn(40, n + 16, device=device).to(dtype)
        x = whole[1::2, 8 : 8 + n] if n % 8 == 0 else whole[::2, :n].contiguous()
        assert_right(
            forward(x, task=Task(1 / 3, log)), x, log=log, temperature=3.0
        )  # fmt: skip
        y = result((20, n), log, dtype, device)
        dx = backward(y, x, task=Task(1 / 3, log))
        assert_gradient(dx, y, x, log=log, temperature=3.0)


@pytest.mark.gpu
@pytest.mark.parametrize("per_sm", [1, 2, 3])
@pytest.mark.parametrize("block", [512, 1024, 2048, 4096])
def test_every_way_to_cut_a_row(block, per_sm, device):
    config = cooperative.Config(block, max(block // 512, 1), per_sm)
    for n in (block - 8, block, block + 8, 3 * block + 1, 40 * block, 130 * block):
        x = torch.randn(11, n, device=device, dtype=torch.bfloat16)
        assert_right(forward(x, config), x)
        y, grad = result((11, n), False, x.dtype, device), torch.randn_like(x)
        assert_gradient(backward(y, grad, config), y, grad)


@pytest.mark.gpu
def test_infinities_and_nan(device):
    for n in (40000, 40003):
        x = torch.randn(12, n, device=device)
        x[0, 0], x[1, -1], x[2, n // 2] = math.inf, math.inf, math.inf
        x[3, 0], x[4, -1], x[5, n // 2] = math.nan, math.nan, math.nan
        x[6, : n // 2], x[7, n // 2 :], x[8] = -math.inf, -math.inf, -math.inf
        x[9, :-1], x[10, 1:] = -math.inf, -math.inf
        x[11] = -3.4e38
        theirs = torch.softmax(x.double(), 1).float()
        mine = cooperative.softmax(x)
        torch.testing.assert_close(mine, theirs, equal_nan=True)


@pytest.mark.gpu
def test_20_repeats(device):
    for n, dtype in ((50257, torch.bfloat16), (131072, torch.float32)):
        x = torch.randn(2**24 // n, n, device=device, dtype=dtype)
        testing.deterministic(lambda x=x: cooperative.softmax(x))
        y = torch.softmax(x, -1)
        testing.deterministic(lambda x=x, y=y: backward(y, x))


@pytest.mark.gpu
def test_beside_another_kernel(device):
    """Programs that find the multiprocessors taken wait for their turn."""
    x = torch.randn(300, 65536, device=device)
    busy = torch.randn(8192, 8192, device=device)
    expected = torch.softmax(x, -1)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(20):
            busy = busy @ busy * 1e-4
    for _ in range(20):
        mine = cooperative.softmax(x)
    torch.cuda.synchronize()
    torch.testing.assert_close(mine, expected)


@pytest.mark.gpu
def test_in_a_graph(device):
    """Recorded once, replayed on other numbers; its mailbox is emptied each time."""
    x = torch.randn(70, 65536, device=device)
    grad = torch.randn_like(x)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        backward(cooperative.softmax(x), grad)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = cooperative.softmax(x)
        dx = torch.empty_like(y)
        config = backward_cooperative.config_for(y.shape[1], y.itemsize)
        backward_cooperative.launch_as(config, y, grad, dx)
    for _ in range(5):
        x.normal_()
        grad.normal_()
        graph.replay()
        torch.cuda.synchronize()
        assert_right(y, x)
        assert_gradient(dx, y, grad)


@pytest.mark.gpu
@pytest.mark.large
def test_more_than_2_to_the_31_elements(device):
    m, n = 2**31 // 50257 + 2, 50257
    x = torch.randn(m, n, dtype=torch.bfloat16, device=device)
    out = cooperative.softmax(x)
    for row in (0, m // 2, m - 1):
        assert_right(out[row : row + 1], x[row : row + 1])


def test_interpreted_they_would_wait_for_ever(device):
    if here.has("gpu"):
        pytest.skip("compiled here")
    with pytest.raises(here.HardwareError, match=r"compute capability 8\.0"):
        cooperative.softmax(torch.zeros(2, 64, device=device))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.empty(2, 8, dtype=torch.float64, device="meta"), "up to 4 bytes, got 8"),
        (torch.empty(2, 2**26, device="meta"), "a row must have at most"),
        (torch.empty(2, 107, device="meta")[:, :100], "followed by a multiple of 4"),
    ],
)
def test_what_can_not_be_taken(x, message):
    assert message in cooperative.refusal(x)
    assert message in backward_cooperative.refusal(
        torch.empty(x.shape, dtype=x.dtype, device="meta"), x,
        torch.empty(x.shape, dtype=x.dtype, device="meta"),
    ) or x.itemsize == 8  # fmt: skip


def test_dtypes_that_differ_are_refused():
    y, grad = (torch.empty(2, 64, dtype=d, device="meta") for d in DTYPES[:2])
    assert "one dtype" in backward_cooperative.refusal(y, grad, y)
    assert backward_cooperative.refusal(y, y, y) is None


@pytest.mark.parametrize("itemsize", [2, 4])
def test_parts_cover_a_row(itemsize):
    vector = 16 // itemsize
    for module in (cooperative, backward_cooperative):
        most = module.longest(itemsize)
        for n in sorted({1, 7, 511, 512, 8192, 8193, 50257, 65536, most - 1, most}):
            config = module.config_for(min(n, most), itemsize)
            parts = letters.parts_of(min(n, most), config.block)
            share = letters.share_of(min(n, most), parts, vector) * vector
            assert share <= config.block
            assert share * parts >= min(n, most)
            assert parts <= letters.most_parts()
            assert letters.registers(config) >= 64


def test_no_program_holds_two_parts_of_a_row():
    """Else it would wait for a letter that it has not sent."""
    for m in (1, 2, 1000):
        for parts in (1, 2, letters.most_parts()):
            programs = letters.together(m, parts, 1)
            assert programs >= min(parts, m * parts)
            assert programs <= m * parts


def test_more_parts_than_programs_are_refused():
    """They would wait for letters of programs that can't begin."""
    most = letters.most_parts()
    assert letters.together(3, 2 * most, 2) == 2 * most
    with pytest.raises(
        ValueError, match=f"config must .* {2 * most}, got {2 * most + 1}"
    ):
        letters.together(3, 2 * most + 1, 2)
    for rung, count in ((cooperative, 2), (backward_cooperative, 3)):
        x, out = (torch.empty(2, 1024 * most, device="meta") for _ in range(2))
        args = (x, out) if count == 2 else (x, x, out)
        with pytest.raises(ValueError, match="config must leave a row"):
            rung.launch_as(letters.Config(512, 1, 1), *args)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rung", [cooperative, backward_cooperative])
def test_compiles_everywhere(rung, target):
    for dtype in DTYPES:
        for n in (65536, 50257):
            x, out = (torch.empty(8, n, dtype=dtype, device="meta") for _ in range(2))
            config = rung.config_for(n, dtype.itemsize)
            args = (x, out) if rung is cooperative else (x, x, out)
            # Rows that start anywhere have more code, logarithms other formulas.
            for log in {n % 2 == 1, target == "sm_90"}:
                ((kernel, given, meta),) = evidence.launches(
                    lambda task, a=args, c=config: rung.launch_as(c, *a, task), log=log
                )
                if target == "gfx942":
                    meta.pop("maxnreg")
                found = compile_only.compile(kernel, *given, target=target, **meta)
                if target == "sm_90":
                    # A few bytes, where a quarter more programs are worth it.
                    assert found.evidence.spill_store_bytes <= 64
                    assert found.evidence.global_loads[128] >= 2
                    assert found.evidence.global_stores[128] >= 1


def test_registers_and_parts_are_those_the_chapter_counts():
    config = cooperative.config_for(262144)
    assert letters.parts_of(262144, config.block) == 32
    assert (32 * config.num_warps, config.per_sm) == (512, 2)
    assert letters.registers(config) == 64
    gradient = backward_cooperative.config_for(131072)
    assert letters.parts_of(131072, gradient.block) == 32
    assert (32 * gradient.num_warps, gradient.per_sm) == (256, 3)
    assert letters.registers(gradient) == 80
    for rung, m, n in ((cooperative, 256, 262144), (backward_cooperative, 512, 131072)):
        (found,) = evidence.compiled(rung, m, n)
        assert found.evidence.spill_store_bytes == 0
    # With one register for each element that waits, nothing would fit.
    waiting = 3 * config.block // (32 * config.num_warps)
    assert waiting == 48
    assert letters.most_parts() != 132 or cooperative.longest(2) == 1056 * 1024
