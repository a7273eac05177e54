"""The ladder of `matmul`, rung by rung, against float64."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tilebook import device as here
from tilebook import matmul as chapter
from tilebook import testing
from tilebook.matmul import (
    described,
    descriptors,
    fitting,
    naive,
    operands,
    ordered,
    outer,
    persistent,
    tile,
)
from tilebook.matmul.operands import Task

INF = math.inf
DTYPES = operands.DTYPES
# Small tiles, so that small matrices have several, each way and in strips.
SMALL = {
    naive: None,
    outer: outer.Config(32, 16, 1),
    tile: tile.Config(16, 16, 32, 1),
    ordered: fitting.Config(16, 16, 32, 1, 1, group=2),
    persistent: fitting.Config(16, 16, 32, 1, 1, group=2),
    described: described.Config(16, 32, 32, 1, 1, group=2),
}
SHAPES = (
    *((1, 1, 1), (1, 19, 3), (17, 1, 5), (19, 23, 1), (3, 5, 7), (33, 47, 65)),
    *((16, 16, 32), (31, 40, 64), (64, 32, 16)),
)
WATCHED = ((1, 1, 1), (33, 47, 65))


def name(value):
    text = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    return text.rpartition(".")[2]


each_rung = pytest.mark.parametrize("rung", chapter.LADDER, ids=name)
dot_rungs = pytest.mark.parametrize(
    "rung", [tile, ordered, persistent, described], ids=name
)
full_rungs = pytest.mark.parametrize("rung", [ordered, persistent, described], ids=name)


def draw(shape, dtype, device, factor=1.0):
    """Numbers about zero, of int8 with both its ends among them."""
    if dtype == torch.int8:
        return torch.randint(-128, 128, shape, device=device).to(dtype)
    return (torch.randn(shape, dtype=torch.float64, device=device) * factor).to(dtype)


def roomy(x):
    """The same matrix in rows with room to spare, as descriptors want them."""
    wide = torch.zeros(x.shape[0], (x.shape[1] // 16 + 2) * 16, dtype=x.dtype)
    view = wide.to(x.device)[:, : x.shape[1]]
    return view.copy_(x)


def launched(rung, make, config=None):
    """What a rung makes of a task, over poison and between guards."""
    with testing.guarded():
        task = make()
        config = config or SMALL[rung]
        rung.launch(task, *([config] if config else []))
    return task.out


def run(rung, a, b, precision="ieee", config=None):
    """A rung's product in small tiles; `described` gets operands that it takes."""
    if not a.numel() or not b.numel():
        return rung.matmul(a, b, precision=precision)
    if rung is described:
        a, b = (x if descriptors.turned(x) or not descriptors.unfit(x) else roomy(x)
                for x in (a, b))  # fmt: skip
    return launched(
        rung, lambda: operands.task_of(a, b, precision=precision)[0], config
    )


def assert_right(out, a, b, *, precision="ieee"):
    """Within what k roundings of the terms' absolute values allow, in any order."""
    assert out.dtype == operands.result_dtype(a.dtype)
    if a.dtype == torch.int8:
        assert torch.equal(out.long().cpu(), a.long().cpu() @ b.long().cpu())
        return
    a, b = a.double(), b.double()
    terms = a.shape[1] + 1
    tf32 = out.dtype == torch.float32 and precision == "tf32"
    testing.assert_close(
        out, a @ b, length=terms, factor=terms, scale=a.abs() @ b.abs(),
        operand="tf32" if tf32 else None,
    )  # fmt: skip


def test_the_ladder_is_what_the_package_says_it_is():
    lines = chapter.__doc__.splitlines()
    told = [line.split("`")[1] for line in lines if line.startswith("* `")]
    assert told[: len(chapter.LADDER)] == [name(rung) for rung in chapter.LADDER]


@each_rung
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(s, marks=pytest.mark.sanitize) if s in WATCHED else s
        for s in SHAPES
    ],
    ids=str,
)
def test_any_shape(rung, shape, device):
    m, n, k = shape
    a = testing.guard(draw((m, k), torch.float32, device))
    b = testing.guard(draw((k, n), torch.float32, device))
    assert_right(run(rung, a.tensor, b.tensor), a.tensor, b.tensor)
    a.check()
    b.check()


@each_rung
@pytest.mark.parametrize(
    "shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (1, 1, 0)], ids=str
)
def test_nothing_to_multiply(rung, shape, device):
    m, n, k = shape
    for dtype in (torch.bfloat16, torch.int8):
        a = torch.empty(m, k, dtype=dtype, device=device)
        b = torch.empty(k, n, dtype=dtype, device=device)
        with testing.guarded():
            out = rung.matmul(a, b)
        assert out.shape == (m, n)
        assert out.dtype == operands.result_dtype(dtype)
        assert not out.any()


@each_rung
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(rung, dtype, device):
    m, n, k = 18, 21, 70
    a, b = draw((m, k), dtype, device), draw((k, n), dtype, device)
    assert_right(run(rung, a, b), a, b)


@each_rung
def test_int8_at_its_ends(rung, device):
    a = torch.full((17, 65), -128, dtype=torch.int8, device=device)
    for other in (-128, 127):
        b = torch.full((65, 3), other, dtype=torch.int8, device=device)
        assert (run(rung, a, b) == -128 * other * 65).all()


@dot_rungs
@pytest.mark.parametrize("precision", operands.PRECISIONS)
def test_precisions(rung, precision, device):
    a, b = draw((20, 50), torch.float32, device), draw((50, 20), torch.float32, device)
    assert_right(run(rung, a, b, precision), a, b, precision=precision)


def test_the_default_precision_is_pytorchs(device):
    kept = torch.get_float32_matmul_precision()
    a = torch.ones(2, 2, device=device)
    try:
        for setting, expected in (("highest", "ieee"), ("high", "tf32")):
            torch.set_float32_matmul_precision(setting)
            assert operands.task_of(a, a)[0].precision == expected
    finally:
        torch.set_float32_matmul_precision(kept)


@dot_rungs
def test_any_scale(rung, device):
    for dtype in (torch.float32, torch.bfloat16):
        for first, second in ((1e-4, 1e-4), (1e4, 1e4), (1e4, 1e-4)):
            a, b = draw((17, 40), dtype, device, first), draw((40, 9), dtype, device)
            b = (b.double() * second).to(dtype)
            assert_right(run(rung, a, b), a, b)


@each_rung
def test_terms_that_cancel_are_added_in_float32(rung, device):
    """In bfloat16 the ones would vanish beside 512."""
    a = torch.ones(1, 66, dtype=torch.bfloat16, device=device)
    a[0, 0], a[0, -1] = 512, -512
    b = torch.ones(66, 1, dtype=torch.bfloat16, device=device)
    assert float(run(rung, a, b)) == 64


@each_rung
def test_infinities_and_nan_stay_in_their_row_and_column(rung, device):
    a, b = draw((19, 40), torch.float32, device), draw((40, 18), torch.float32, device)
    a[3, 5], a[17, 39], b[7, 2], b[39, 16] = INF, math.nan, math.nan, -INF
    a[18] = INF
    assert_right(run(rung, a, b), a, b)


@each_rung
def test_any_strides(rung, device):
    a, b = (
        draw((18, 40), torch.bfloat16, device),
        draw((40, 19), torch.bfloat16, device),
    )
    for x, put in ((a, lambda view: (view, b)), (b, lambda view: (a, view))):
        views = [view for _, view in (*testing.layouts(x), *testing.expanded(x))]
        views += [x[:1].expand_as(x)[:, :1].expand_as(x)]
        for view in views:
            assert_right(run(rung, *put(view)), *put(view))


@full_rungs
@pytest.mark.parametrize("turn", ["NN", "NT", "TN", "TT"])
def test_rows_and_columns_that_are_multiples_of_16_bytes(rung, turn, device):
    """What takes whole vectors, and a number of terms that blocks divide."""
    a, b = draw((24, 64), torch.float16, device), draw((64, 40), torch.float16, device)
    a = a.t().contiguous().t() if turn[0] == "T" else a
    b = b.t().contiguous().t() if turn[1] == "T" else b
    if rung is described:
        assert described.refusal(operands.task_of(a, b)[0]) is None
        assert (descriptors.turned(a), descriptors.turned(b)) == tuple(
            t == "T" for t in turn
        )
    assert_right(run(rung, a, b), a, b)


@settings(max_examples=12)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 70)),
    steps=st.tuples(*[st.integers(1, 3)] * 4),
    starts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    columns=st.tuples(st.booleans(), st.booleans()),
    rung=st.sampled_from((tile, ordered, persistent)),
)
def test_matrices_of_any_kind(sizes, steps, starts, columns, rung):
    m, n, k = sizes

    def matrix(rows, width, step, inner, start, column):
        if column:
            return matrix(width, rows, step, inner, start, False).t()
        row = width * inner + step
        base = torch.randn(rows * row + start, dtype=torch.float32)
        base = base.to(here.torch_device(), torch.bfloat16)
        return base.as_strided((rows, width), (row, inner), start)

    a = matrix(m, k, *steps[:2], starts[0], columns[0])
    b = matrix(k, n, *steps[2:], starts[1], columns[1])
    assert_right(run(rung, a, b), a, b)


def expected_of(task):
    """What a task asks for, in float64."""
    acc = task.scale * (task.a.double() @ task.b.double())
    if task.bias is not None:
        acc = acc + task.bias.double()
    functions = {
        "relu": torch.relu,
        "gelu": torch.nn.functional.gelu,
        "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "silu": torch.nn.functional.silu,
        "silu_and_mul": lambda x: torch.nn.functional.silu(x[:, ::2]) * x[:, 1::2],
    }
    acc = functions.get(task.activation, lambda x: x)(acc)
    return acc if task.residual is None else acc + task.residual.double()


@full_rungs
@pytest.mark.parametrize("activation", operands.ACTIVATIONS)
@pytest.mark.parametrize("residual", [False, True], ids=["", "residual"])
def test_what_a_product_ends_in(rung, activation, residual, device):
    m, n, k = 19, 48, 40
    a, b = (draw(s, torch.float32, device, 0.5) for s in ((m, k), (k, n)))
    columns = n // 2 if activation == "silu_and_mul" else n
    config = SMALL[rung]._replace(block_n=32)

    def make():
        return Task(
            a, b, torch.empty(m, columns, device=device),
            scale=0.5, bias=biases[::2], activation=activation,
            residual=rest if residual else None,
        )  # fmt: skip

    biases = draw((2 * n,), torch.float32, device)
    rest = draw((columns, m), torch.float32, device).t()
    out, task = launched(rung, make, config), make()
    # No activation is steeper than 1.2, and the product of two is as either.
    scale = 0.5 * (a.double().abs() @ b.double().abs()) + task.bias.double().abs()
    scale = 2 * scale[:, ::2] * (1 + scale[:, 1::2]) if columns < n else 2 * scale
    testing.assert_close(
        out,
        expected_of(task),
        length=k + 16,
        factor=k,
        scale=scale + rest.double().abs(),
    )


@full_rungs
def test_a_result_of_any_strides(rung, device):
    a, b = draw((24, 64), torch.float16, device), draw((64, 40), torch.float16, device)
    makes = (
        lambda: torch.empty(40, 24, dtype=a.dtype, device=device).t(),
        lambda: torch.empty(24, 90, dtype=a.dtype, device=device)[:, 5:85:2],
        lambda: torch.empty(24, 48, dtype=a.dtype, device=device)[:, 8:],
    )
    for make in makes:
        assert_right(launched(rung, lambda make=make: Task(a, b, make())), a, b)


class TestRefusals:
    @each_rung
    def test_operands(self, rung, device):
        a = torch.zeros(3, 4, device=device)
        with pytest.raises(TypeError, match=r"a must be a torch\.Tensor, got list"):
            rung.matmul([1], a)
        with pytest.raises(TypeError, match="a must be bfloat16, float16, float32 or"):
            rung.matmul(a.double(), a.double())
        with pytest.raises(TypeError, match="b must have the dtype of a, float32"):
            rung.matmul(a, a.t().half())
        with pytest.raises(ValueError, match="b must have 2 dimensions, got 1"):
            rung.matmul(a, a[0])
        with pytest.raises(ValueError, match="as many columns as b has rows, got 4 an"):
            rung.matmul(a, a)
        with pytest.raises(ValueError, match="precision must be 'tf32', 'tf32x3' or"):
            rung.matmul(a, a.t(), precision="high")

    def test_what_cannot_be_described(self, device):
        good = torch.zeros(16, 16, dtype=torch.bfloat16, device=device)
        wide = torch.zeros(16, 40, dtype=torch.bfloat16, device=device)
        for bad, match in (
            (wide[:, ::2][:, :16], "its last stride must be 1, got 2"),
            (wide[:, 3:19], "it must start at a multiple of 16 bytes"),
            (wide.flatten()[: 16 * 18].view(16, 18)[:, :16], "16 bytes apart, got 36"),
            (good[:1].expand(16, 16), "16 bytes apart, got 0"),
        ):
            with pytest.raises(
                ValueError, match=f"a can't be described: .*{match}.*ord"
            ):
                described.matmul(bad, good)
            with pytest.raises(ValueError, match=f"b can't be described: .*{match}"):
                described.matmul(good, bad)

    def test_more_tiles_than_a_grid_has_programs(self):
        a = torch.empty(1, 1, device="meta").expand(2**31, 1)
        b = torch.empty(1, 1, device="meta").expand(1, 2**31)
        out = torch.empty(1, 1, device="meta").expand(2**31, 2**31)
        for rung in (outer, tile, ordered, persistent):
            with pytest.raises(ValueError, match=r"the product has \d+ tiles"):
                rung.launch(Task(a, b, out))


class TestConfigurations:
    def test_large_products_get_the_largest_tiles(self):
        a = torch.empty(8192, 8192, dtype=torch.bfloat16, device="meta")
        for rung in (ordered, persistent, described):
            config = rung.config_for(Task(a, a, a))
            assert config.block_m * config.block_n >= 128 * 128

    def test_small_products_get_tiles_enough(self):
        for m, n in ((64, 4096), (4096, 64), (512, 512), (1, 4096)):
            a = torch.empty(m, 4096, dtype=torch.bfloat16, device="meta")
            b = torch.empty(4096, n, dtype=torch.bfloat16, device="meta")
            task = Task(a, b, torch.empty(m, n, dtype=a.dtype, device="meta"))
            config = ordered.config_for(task)
            assert operands.tiles(task, config.block_m, config.block_n) >= 64

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("limit", [64 * 1024, 99 * 1024], ids=str)
    def test_less_shared_memory_gets_fewer_stages(self, dtype, limit, monkeypatch):
        there = here.current()
        small = type(there)("cuda", "a GPU", "gpu", "cuda", capability=(8, 6), sms=60,
                            shared_memory_per_block=limit)  # fmt: skip
        monkeypatch.setattr(here, "current", lambda: small)
        a = torch.empty(4096, 4096, dtype=dtype, device="meta")
        for rung in (ordered, described):
            config = rung.config_for(Task(a, a, a))
            sides = config.block_m + config.block_n
            used = sides * config.block_k * dtype.itemsize * config.num_stages
            assert used <= limit
            assert config.num_stages >= 2

    def test_what_the_compiler_may_not_assume(self):
        a = torch.empty(64, 4098, dtype=torch.bfloat16, device="meta")
        b = torch.empty(4098, 64, dtype=torch.bfloat16, device="meta")
        assert fitting.width(Task(a, b, a)) == 4
        assert fitting.width(Task(a[:, :4096], b[:4096], a)) == 4
        assert fitting.width(Task(a[:, ::2], b, a)) == 2
        aligned = b[:4096]
        assert fitting.width(Task(aligned, aligned.t(), a)) == 16


@dot_rungs
def test_repeats_are_equal(rung, device):
    a, b = (draw(s, torch.bfloat16, device) for s in ((40, 64), (64, 40)))
    testing.deterministic(lambda: run(rung, a, b), 2)


@pytest.mark.gpu
@each_rung
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_20_repeats_on_a_gpu(rung, dtype, device):
    a, b = draw((1024, 2048), dtype, device), draw((2048, 1040), dtype, device)
    out = testing.deterministic(lambda: rung.matmul(a, b, precision="ieee"))
    assert_right(out, a, b)


@pytest.mark.gpu
@dot_rungs
@pytest.mark.parametrize("turn", ["NN", "NT", "TN", "TT"])
@pytest.mark.parametrize("size", [1000, 1024, 2046, 2047], ids=str)
@pytest.mark.parametrize(
    ("dtype", "precision"),
    [*((d, "ieee") for d in DTYPES), *((torch.float32, p) for p in ("tf32", "tf32x3"))],
    ids=str,
)
def test_tiles_as_they_ship(rung, turn, size, dtype, precision, device):
    """The configuration that the module chooses, in every order of memory."""
    a, b = draw((size, size - 8), dtype, device), draw((size - 8, size), dtype, device)
    a = a.t().contiguous().t() if turn[0] == "T" else a
    b = b.t().contiguous().t() if turn[1] == "T" else b
    task, _ = operands.task_of(a, b, precision=precision)
    if rung is described and described.refusal(task):
        # Some versions of Triton turn `a` in registers there, and get it wrong.
        doubt = precision == "tf32x3" and turn[0] == "T" and described.in_doubt(task)
        said = "may turn a in registers" if doubt else "[ab] can't be described"
        with pytest.raises(ValueError, match=said):
            rung.matmul(a, b, precision=precision)
        return
    assert_right(rung.matmul(a, b, precision=precision), a, b, precision=precision)


@pytest.mark.gpu
@pytest.mark.large
@each_rung
@pytest.mark.parametrize("side", ["a", "b", "out"])
def test_more_than_2_to_the_31_elements(rung, side, device):
    far = 2**31 // 64 + 128
    m, n, k = {"a": (far, 16, 64), "b": (16, far, 64), "out": (far, 64, 16)}[side]
    a = draw((m, k), torch.bfloat16, device)
    b = draw((k, n), torch.bfloat16, device)
    out = rung.matmul(a, b)
    if m == far:
        assert_right(out[-100:], a[-100:], b)
        assert_right(out[:100], a[:100], b)
    else:
        assert_right(out[:, -100:], a, b[:, -100:])
        assert_right(out[:, :100], a, b[:, :100])
