"""The ladder of `add`, and the operator at its top."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import device as here
from tilebook import ops, parallel, testing
from tilebook.parallel import (
    add,
    grid,
    masked,
    operands,
    public,
    single,
    strided,
    whole,
    wide,
)
from tilebook.parallel.public import add_operator

ANY_LENGTH = (masked, strided, wide, whole)
SHORT = whole.config_for(4, 0)
LENGTHS = testing.lengths(2100)
# Of these under compute-sanitizer, where a launch takes its time: either side of a
# tile's ends.
WATCHED = (0, 1, 511, 512, 513, 1023, 1024, 1025, 2049)


def rung_name(rung):
    return rung.__name__.rpartition(".")[2]


def pair(n, dtype, device):
    shape = (n,) if isinstance(n, int) else n
    if dtype.is_floating_point:
        return [torch.randn(shape, device=device).to(dtype) for _ in range(2)]
    limits = torch.iinfo(dtype)
    return [
        torch.randint(limits.min, limits.max, shape, dtype=dtype, device=device)
        for _ in range(2)
    ]


def assert_same(out, expected):
    """Equal in every bit, NaN for NaN."""
    assert out.dtype == expected.dtype
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


def test_the_ladder_is_what_the_package_says_it_is():
    told = [
        line.split("`")[1] for line in parallel.__doc__.splitlines() if "* `" in line
    ]
    assert told == [rung_name(rung) for rung in parallel.LADDER]
    assert ops.add is add


@pytest.mark.parametrize("rung", ANY_LENGTH, ids=rung_name)
@pytest.mark.parametrize(
    "n",
    [
        pytest.param(n, marks=pytest.mark.sanitize) if n in WATCHED else n
        for n in LENGTHS
    ],
)
def test_any_length(rung, n, device):
    x, y = pair(n, torch.float32, device)
    with testing.guarded():
        out = rung.add(x, y)
    testing.assert_close(out, testing.reference(torch.add, x, y), dtype=x.dtype)
    assert_same(out, x + y)


@pytest.mark.parametrize("n", [0, 1, 2, 64, 4096])
def test_single(n, device):
    x, y = pair(n, torch.float32, device)
    with testing.guarded():
        assert_same(single.add(x, y), x + y)


@pytest.mark.parametrize("n", [0, 1024, 5120])
def test_grid(n, device):
    x, y = pair(n, torch.float32, device)
    with testing.guarded():
        assert_same(grid.add(x, y), x + y)


@pytest.mark.parametrize("programs", [1, 2, 3, 7, 100])
def test_strided_with_any_number_of_programs(programs, device):
    x, y = pair(5 * strided.BLOCK + 17, torch.float32, device)
    with testing.guarded():
        assert_same(strided.add(x, y, programs=programs), x + y)


@pytest.mark.parametrize("rung", [*ANY_LENGTH, parallel], ids=rung_name)
@pytest.mark.parametrize("dtype", operands.DTYPES, ids=str)
def test_every_dtype_bit_for_bit(rung, dtype, device):
    x, y = pair(1111, dtype, device)
    edges = testing.extremes(dtype, device)
    # Every edge value meets every other: infinities cancel, integers wrap round.
    a, b = (t.flatten() for t in torch.meshgrid(edges, edges, indexing="ij"))
    with testing.guarded():
        assert_same(rung.add(x, y), x + y)
        assert_same(rung.add(a.contiguous(), b.contiguous()), a + b)


@pytest.mark.parametrize(
    "name", ["contiguous", "offset", "strided", "sliced", "transposed"]
)
def test_any_strides(name, device):
    x, y = pair((37, 41), torch.float32, device)
    for other in (y, y.t().contiguous().t()):
        laid = dict(testing.layouts(x))[name]
        with testing.guarded():
            out = add(laid, other)
        assert_same(out, x + y)
        assert out.stride() == torch.empty_like(laid).stride()


@pytest.mark.parametrize("shape", testing.shapes(3, 1200), ids=str)
def test_any_shape(shape, device):
    x, y = pair(shape, torch.bfloat16, device)
    with testing.guarded():
        assert_same(add(x, y), x + y)


def test_no_dimensions(device):
    x, y = pair((), torch.float64, device)
    assert_same(add(x, y), x + y)


def test_stride_zero(device):
    x, y = pair((5, 300), torch.float32, device)
    for name, wide_x in testing.expanded(x):
        assert_same(add(wide_x, y), wide_x + y)
        assert_same(add(y, wide_x), y + wide_x)
        assert_same(add(wide_x, wide_x), wide_x + wide_x), name


def test_operands_in_one_order_are_added_where_they_are(device, monkeypatch):
    x, y = (t.t() for t in pair((30, 50), torch.float32, device))
    monkeypatch.setattr(torch.Tensor, "copy_", None)
    assert_same(add(x, y), x + y)


@given(data=st.data())
def test_views_of_any_kind(data):
    """Random views of one buffer, so that operands overlap each other too."""
    base = torch.arange(400, dtype=torch.int32, device=here.torch_device())
    h, w = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))

    def view():
        strides = [data.draw(st.integers(0, 11)) for _ in range(2)]
        start = data.draw(st.integers(0, 200))
        return base.as_strided((h, w), strides, start)

    x, y = view(), view()
    assert_same(add(x, y), x + y)


@given(n=st.integers(0, 3000), shift=st.integers(0, 3), programs=st.integers(1, 6))
def test_random_lengths_and_alignments(n, shift, programs):
    base = torch.randn(2 * n + 8, device=here.torch_device())
    x, y = base[shift : shift + n], base[n + 4 : 2 * n + 4]
    for rung in ANY_LENGTH:
        extra = {"programs": programs} if rung is strided else {}
        assert torch.equal(rung.add(x, y, **extra), x + y)


class TestOut:
    def test_fresh(self, device):
        x, y = pair(777, torch.float32, device)
        out = testing.guard(torch.empty_like(x))
        assert add(x, y, out=out.tensor) is out.tensor
        out.check()
        assert_same(out.tensor, x + y)

    def test_is_an_operand(self, device):
        x, y = pair(777, torch.float32, device)
        expected = x + y
        assert_same(add(x, y, out=x), expected)
        assert_same(x, expected)

    @pytest.mark.parametrize("shift", [-300, -1, 1, 300])
    def test_overlaps_an_operand(self, shift, device):
        # Programs run in any order: what one writes another may still have to read.
        base = torch.randn(6000, device=device)
        for which in (0, 1):
            buffer = base.clone()
            x, other = buffer[500:5500], base[:5000].clone()
            out = buffer[500 + shift : 5500 + shift]
            pair = (x, other) if which == 0 else (other, x)
            expected = x + other
            assert_same(add(*pair, out=out), expected)

    def test_is_an_operand_turned_round(self, device):
        square = torch.randn(40, 40, device=device)
        expected = square + square
        assert_same(add(square, square, out=square.t()), expected)
        expected = square + square.t()
        assert_same(add(square, square.t(), out=square), expected)

    @pytest.mark.parametrize("name", ["offset", "strided", "sliced", "transposed"])
    def test_any_strides(self, name, device):
        x, y = pair((37, 41), torch.float32, device)
        laid = dict(testing.layouts(torch.zeros_like(x)))[name]
        out = testing.guard(laid)
        assert_same(add(x, y, out=out.tensor), x + y)
        out.check()

    def test_elements_that_share_a_place_are_refused(self, device):
        x, y = pair((3, 4), torch.float32, device)
        with pytest.raises(RuntimeError, match="single memory location"):
            add(x, y, out=torch.zeros(4, device=device).expand(3, 4))

    def test_takes_no_part_in_a_gradient(self, device):
        x, y = pair(5, torch.float32, device)
        x.requires_grad_()
        with pytest.raises(ValueError, match="out can't take part in a gradient"):
            add(x, y, out=torch.empty_like(y))
        with torch.no_grad():
            assert_same(add(x, y, out=torch.empty_like(y)), x + y)

    def test_autograd_notices_what_was_written(self, device):
        x, y = pair(5, torch.float32, device)
        product = y.clone().requires_grad_() * x
        with torch.no_grad():
            add(x, y, out=x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.sum().backward()

    @pytest.mark.parametrize(
        ("out", "error", "message"),
        [
            (3, TypeError, "out must be a torch.Tensor, got int"),
            (torch.empty(4), ValueError, r"out must have shape \(5,\), got \(4,\)"),
            (torch.empty(5, dtype=torch.int8), TypeError, "out must be float32"),
            (torch.empty(5, device="meta"), ValueError, "out must be on .*, got meta"),
        ],
    )
    def test_unfit(self, out, error, message, device):
        if isinstance(out, torch.Tensor) and not out.is_meta:
            out = out.to(device)
        x, y = pair(5, torch.float32, device)
        with pytest.raises(error, match=message):
            add(x, y, out=out)


class TestRefused:
    @pytest.mark.parametrize("rung", [*parallel.LADDER, parallel], ids=rung_name)
    @pytest.mark.parametrize(
        ("x", "y", "error", "message"),
        [
            (1.5, torch.ones(4), TypeError, "x must be a torch.Tensor, got float"),
            (torch.ones(4), None, TypeError, "y must be a torch.Tensor, got None"),
            (torch.ones(4).bool(), torch.ones(4).bool(), TypeError, "x must be .*bool"),
            (torch.ones(4), torch.ones(4).int(), TypeError, "y .*dtype of x, float32"),
            (torch.ones(4), torch.ones(8), ValueError, r"y .*shape of x, \(4,\)"),
            (torch.ones(4), torch.ones(1, 4), ValueError, "y .*shape of x"),
        ],
    )
    def test_unfit_operands(self, rung, x, y, error, message, device):
        there = [t.to(device) if isinstance(t, torch.Tensor) else t for t in (x, y)]
        with pytest.raises(error, match=message):
            rung.add(*there)

    @pytest.mark.parametrize("rung", [*parallel.LADDER, parallel], ids=rung_name)
    def test_another_device(self, rung, device):
        here, meta = torch.ones(4, device=device), torch.ones(4, device="meta")
        with pytest.raises(ValueError, match="y must have the device of x"):
            rung.add(here, meta)
        with pytest.raises(ValueError, match=r"x must be on .*, got meta"):
            rung.add(meta, meta)

    @pytest.mark.gpu
    @pytest.mark.parametrize("rung", [*parallel.LADDER, parallel], ids=rung_name)
    def test_cpu_tensors_where_kernels_are_compiled(self, rung):
        with pytest.raises(ValueError, match="x must be on cuda"):
            rung.add(torch.ones(4), torch.ones(4))

    @pytest.mark.parametrize("rung", parallel.LADDER, ids=rung_name)
    def test_strides_by_a_rung(self, rung, device):
        x = torch.ones(64, 64, device=device)
        with pytest.raises(ValueError, match="y must be contiguous"):
            rung.add(x, x.t())

    @pytest.mark.parametrize("n", [3, 1000, 2 * single.LARGEST])
    def test_a_length_by_single(self, n, device):
        x = torch.ones(n, device=device)
        with pytest.raises(ValueError, match=f"x has {n} elements; one tile takes"):
            single.add(x, x)

    def test_a_length_by_grid(self, device):
        x = torch.ones(1025, device=device)
        with pytest.raises(ValueError, match=r"1025 elements; .* a multiple of 1024"):
            grid.add(x, x)

    @pytest.mark.parametrize(
        ("programs", "error"), [(0, ValueError), (2.0, TypeError), (True, TypeError)]
    )
    def test_programs_by_strided(self, programs, error, device):
        x = torch.ones(4, device=device)
        with pytest.raises(error, match="programs must be"):
            strided.add(x, x, programs=programs)

    @pytest.mark.parametrize(
        ("n", "step", "fits"),
        [
            (2**31, 1024, True),
            (2**31 - 1023, 1024, True),
            (2**31 + 1, 1024, False),
            (2**31 - 1, 3 * 1024, False),
            (0, 1024, True),
        ],
    )
    def test_offsets_that_would_wrap_round(self, n, step, fits):
        x = torch.empty(n, dtype=torch.int8, device="meta")
        if fits:
            operands.check_int32_offsets(x, step)
        else:
            with pytest.raises(ValueError, match=f"x has {n} elements: offsets of 32"):
                operands.check_int32_offsets(x, step)


class TestGradient:
    def test_against_differences(self, device):
        x, y = (t.requires_grad_() for t in pair((3, 7), torch.float64, device))
        assert torch.autograd.gradcheck(add, (x, y))
        assert torch.autograd.gradgradcheck(add, (x, y))

    def test_of_one_operand(self, device):
        x, y = pair(9, torch.float32, device)
        add(x, y.requires_grad_()).sum().backward()
        assert_same(y.grad, torch.ones_like(y))
        assert x.grad is None

    def test_forward_mode_is_refused_rather_than_forgotten(self, device):
        x, y = pair(9, torch.float32, device)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, y)
            with pytest.raises(NotImplementedError, match="no forward-mode"):
                add(dual, y)
            assert_same(add(x, y), x + y)


class TestOperator:
    @pytest.mark.parametrize("n", [0, 1, 1000])
    def test_registration(self, n, device):
        x, y = (t.requires_grad_() for t in pair(n, torch.float32, device))
        testing.opcheck(add_operator, x, y)

    def test_registration_of_strides(self, device):
        x, y = pair((6, 4), torch.bfloat16, device)
        testing.opcheck(add_operator, x.t(), y[:, ::1].t())
        testing.opcheck(add_operator, x[:, ::2], y[:, ::2])

    def test_torch_compile(self, device):
        @torch.compile(fullgraph=True, backend="aot_eager")
        def twice(x, y):
            return add(add(x, y), y)

        x, y = pair((4, 9), torch.float32, device)
        assert_same(twice(x, y), x + y + y)
        x.requires_grad_()
        twice(x, y).sum().backward()
        assert_same(x.grad, torch.ones_like(x))

    def test_torch_compile_into_an_output(self, device):
        @torch.compile(fullgraph=True, backend="aot_eager")
        def into(x, y, out):
            return add(x, y, out=out)

        x, y = pair(50, torch.float32, device)
        out = torch.empty_like(x)
        into(x, y, out)
        assert_same(out, x + y)

    @pytest.mark.gpu
    @pytest.mark.parametrize("n", [1000, 98_432])
    def test_inductor(self, n, device):
        fused = torch.compile(lambda x, y: add(x, y) * 2, fullgraph=True)
        x, y = pair(n, torch.float32, device)
        assert_same(fused(x, y), (x + y) * 2)

    def test_fake_tensors(self, device):
        x, y = pair((4, 9), torch.float32, device)
        with torch._subclasses.FakeTensorMode() as mode:
            out = add(mode.from_tensor(x).t(), mode.from_tensor(y).t())
        assert (out.shape, out.stride()) == ((9, 4), (1, 9))

    def test_negated_view(self, device):
        z = torch.randn(12, 2, device=device)
        negated = torch.view_as_complex(z).conj().imag
        assert negated.is_neg()
        assert_same(add(negated, negated), -2 * z[:, 1])

    def test_vmap(self, device):
        x, y = pair((3, 40), torch.float32, device)
        assert_same(torch.vmap(add)(x, y), x + y)


MISTAKES = {
    (masked, "mask = offs < n  #", "mask = offs <= n  #"),
    (masked, "mask = offs < n  #", "mask = offs < n - 1  #"),
    (
        masked,
        "tl.store(out_ptr + offs, x + y, mask=mask)",
        "tl.store(out_ptr + offs, x + y)",
    ),
    (masked, "y = tl.load(y_ptr", "y = tl.load(x_ptr"),
    (masked, "pid * BLOCK + tl", "pid * (BLOCK - 1) + tl"),
    (masked, "triton.cdiv(n, BLOCK)", "n // BLOCK"),
    (strided, "tl.num_programs(0) * BLOCK", "(tl.num_programs(0) + 1) * BLOCK"),
    (strided, "tl.program_id(0) * BLOCK", "tl.program_id(0)"),
    (strided, "range(first, n, step,", "range(first, n - BLOCK, step,"),
    (wide, "mask = offs < n", "mask = offs < n + 1"),
    (whole, "start + BLOCK <= n", "start + BLOCK <= n + 1"),
    (whole, "start + BLOCK <= n", "start <= n"),
    (whole, "tl.num_programs(0), pid) - 1", "tl.num_programs(0), pid)"),
    (whole, "tl.where(pid == 0", "tl.where(pid == 1"),
    (whole, "range(start, n, TAIL)", "range(start, n, 2 * TAIL)"),
    (whole, "first + tl.arange(0, TAIL)", "start + tl.arange(0, TAIL)"),
}


@pytest.mark.parametrize(
    ("rung", "old", "new"),
    sorted(MISTAKES, key=lambda m: (rung_name(m[0]), *m[1:])),
    ids=lambda x: x if isinstance(x, str) else rung_name(x),
)
def test_planted_mistakes_are_found(rung, old, new, device):
    """The test of lengths, on few of them, is red for each mistake."""
    block = SHORT.block if rung is whole else rung.BLOCK
    few = (block - 1, block + 1, 2 * block, 3 * block + block // 4 + 5)
    x, y = pair(few[-1], torch.float32, device)
    extra = {"programs": 2} if rung is strided else {}

    def passes(n):
        guards = [testing.guard(t[:n]) for t in (x, y)]
        with testing.guarded():
            out = rung.add(guards[0].tensor, guards[1].tensor, **extra)
        testing.assert_close(out, testing.reference(torch.add, x[:n], y[:n]))

    for n in few:
        passes(n)
    with testing.mutated_module(rung, old, new):
        assert not all(holds(passes, n) for n in few)


def holds(test, *args):
    try:
        test(*args)
    except (AssertionError, IndexError):
        return False
    return True


WRAPPER_MISTAKES = [
    ("if y.stride() != order:", "if False:"),
    ("_overlaps(out, x) or", ""),
    ("if not _dense(out):", "if False:"),
]


@pytest.mark.parametrize(("old", "new"), WRAPPER_MISTAKES)
def test_planted_mistakes_in_the_wrapper_are_found(old, new, device):
    square = torch.randn(40, 40, device=device)
    # So far apart on a GPU that what is written has long not been read yet.
    n, shift = here.sizes((2**25, 2**22), (3000, 1))

    def passes():
        assert_same(add(square, square.t()), square + square.t())
        buffer = torch.randn(n + shift, device=device)
        other = torch.ones(n, device=device)
        expected = buffer[:-shift] + other
        assert_same(add(buffer[:-shift], other, out=buffer[shift:]), expected)
        gaps = torch.zeros(80, device=device)[::2]
        assert_same(add(square[0], square[1], out=gaps), square[0] + square[1])

    passes()
    with testing.mutated_module(public, old, new):
        assert not holds(passes)


@pytest.mark.sanitize
@pytest.mark.parametrize("gpu", whole.CAPS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.int64], ids=str)
def test_large_vectors_are_launched_otherwise_and_right(
    dtype, gpu, device, monkeypatch
):
    (_, cap), *_ = whole.CAPS[gpu]
    monkeypatch.setitem(whole.CAPS, gpu, ((1, cap),))
    monkeypatch.setattr(whole, "_here", lambda: (gpu, 32))
    large = whole.config_for(dtype.itemsize, 1, gpu=gpu)
    assert (large.maxnreg, large.tail) == (cap, whole.TAIL)
    block = large.block
    for n in (1, block - 1, block, 2 * block + block // 2 + 3):
        x, y = pair(n, dtype, device)
        assert_same(add(x, y), x + y)


def test_the_larger_the_vectors_the_fewer_the_threads():
    for gpu, caps in whole.CAPS.items():
        assert sorted(caps, reverse=True) == list(caps)
        for least, cap in caps:
            assert whole.config_for(4, least, gpu=gpu).maxnreg == cap
            assert whole.config_for(4, least - 1, gpu=gpu).maxnreg != cap
    assert whole.config_for(4, 2**40, gpu="another").maxnreg is None


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("rung", [wide, whole, parallel], ids=rung_name)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16], ids=str)
def test_more_than_2_to_the_31_elements(rung, dtype, device):
    n = 2**31 + 12_345
    x = torch.empty(n, dtype=dtype, device=device)
    y = torch.empty_like(x)
    for t in (x, y):
        t.view(torch.uint8).random_(0, 100)
    out = rung.add(x, y)
    # In pieces: a reference of all of it at once might not fit.
    for start in range(0, n, 2**28):
        piece = slice(start, start + 2**28)
        assert torch.equal(out[piece], x[piece] + y[piece])


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("rung", [masked, strided], ids=rung_name)
def test_narrow_rungs_refuse_more_than_2_to_the_31_elements(rung, device):
    x = torch.empty(2**31 + 1, dtype=torch.uint8, device=device)
    with pytest.raises(ValueError, match="wide has 64"):
        rung.add(x, x)


@pytest.mark.parametrize("rung", [*ANY_LENGTH, parallel], ids=rung_name)
def test_repeats_are_equal(rung, device):
    x, y = pair(3001, torch.bfloat16, device)
    testing.deterministic(lambda: rung.add(x, y))


@pytest.mark.gpu
def test_launches_where_the_tensors_are():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x, y = pair(1000, torch.float32, torch.device("cuda", 1))
    assert_same(add(x, y), x + y)
    with pytest.raises(ValueError, match="launched on the current device, cuda:0"):
        masked.add(x, y)
