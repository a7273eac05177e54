"""The ladder of `transpose`, and the operator at its top."""

import itertools
from unittest import mock

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import device as here
from tilebook import testing, tiling
from tilebook.tiling import (
    aligned,
    described,
    explicit,
    grouped,
    naive,
    operands,
    public,
    tiled,
    transpose,
)
from tilebook.tiling.public import transpose_operator

ANY = (naive, tiled, grouped, aligned)
PICKY = (described, explicit)
DTYPES = (
    torch.bool,
    torch.uint8,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int16,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.float32,
    torch.complex64,
    torch.float64,
    torch.int64,
)
ONE_OF_EACH_SIZE = (torch.bool, torch.bfloat16, torch.float32, torch.complex64)
# Small ones, and around the sides of a tile.
SHAPES = (
    *(s for s in testing.shapes(2, 800) if s[0] < 40),
    (64, 64),
    (65, 63),
    (129, 2),
    (67, 131),
    (2, 1025),
)
WATCHED = ((1, 1), (0, 3), (33, 3), (65, 63), (67, 131))


def rung_name(rung):
    return rung.__name__.rpartition(".")[2]


def matrix(shape, dtype, device):
    """Random bits: whatever an element can be, NaN included."""
    shape = (shape,) if isinstance(shape, int) else shape
    if dtype == torch.bool:
        return torch.randint(0, 2, shape, device=device).bool()
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, 256, (count,), dtype=torch.uint8, device=device)
    return raw.view(dtype).view(shape)


def assert_same(out, expected):
    """Equal in every bit, and contiguous."""
    assert out.dtype == expected.dtype
    assert out.shape == expected.shape
    assert out.is_contiguous()
    assert torch.equal(operands.bits(out), operands.bits(expected))


def test_the_ladder_is_what_the_package_says_it_is():
    lines = tiling.__doc__.splitlines()
    told = [line.split("`")[1] for line in lines if line.startswith("* `")]
    assert told[: len(tiling.LADDER)] == [rung_name(rung) for rung in tiling.LADDER]


@pytest.mark.parametrize("rung", ANY, ids=rung_name)
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(s, marks=pytest.mark.sanitize) if s in WATCHED else s
        for s in SHAPES
    ],
    ids=str,
)
def test_any_shape(rung, shape, device):
    if rung is naive and here.interpreting() and shape[0] > 33:
        shape = (33, shape[1])  # A program for each row, and a row is like another.
    x = testing.guard(matrix(shape, torch.float32, device))
    with testing.guarded():
        out = rung.transpose(x.tensor)
    x.check()
    assert_same(out, x.tensor.t())


@pytest.mark.parametrize(
    ("rung", "dtype"),
    [(tiling, dtype) for dtype in DTYPES]
    # A rung sees integers of the same size.
    + [(rung, dtype) for rung in ANY for dtype in ONE_OF_EACH_SIZE],
    ids=lambda x: str(x) if isinstance(x, torch.dtype) else rung_name(x),
)
def test_every_dtype_bit_for_bit(rung, dtype, device):
    for shape in ((5, 70), (16, 32)):
        x = matrix(shape, dtype, device)
        with testing.guarded():
            out = rung.transpose(x)
        assert_same(out, x.t())


@pytest.mark.parametrize("rung", [*ANY, tiling], ids=rung_name)
@pytest.mark.parametrize("shape", [(8, 48), (5, 41)], ids=str)
def test_any_strides(rung, shape, device):
    x = matrix(shape, torch.int16, device)
    laid = [*testing.layouts(x), *testing.expanded(x)]
    laid += [("sliced rows", matrix((16, 60), torch.int16, device)[1::2, 8:56])]
    laid += [("backed", x.as_strided(shape, (3, 5)))] if shape[0] == 8 else []
    for name, view in laid:
        with testing.guarded():
            out = rung.transpose(view)
        assert_same(out, view.t()), name


@given(
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    strides=st.tuples(st.integers(0, 90), st.integers(0, 90)),
    start=st.integers(0, 17),
    which=st.integers(0, 3),
)
def test_views_of_any_kind(m, n, strides, start, which):
    dtype = (torch.uint8, torch.bfloat16, torch.float32, torch.int64)[which]
    base = matrix(2 * 40 * 90, dtype, here.torch_device())
    x = base.as_strided((m, n), strides, start)
    assert_same(transpose(x), x.t())


@pytest.mark.parametrize(
    "shape",
    [(3, 5, 7), (2, 1, 33), (2, 3, 17, 20), (0, 3, 4), (3, 0, 4), (5, 4, 0), (1, 1, 1)],
    ids=str,
)
def test_batches(shape, device):
    x = matrix(shape, torch.float32, device)
    with testing.guarded():
        assert_same(transpose(x), x.transpose(-2, -1))


def test_batches_of_any_strides(device):
    x = matrix((6, 5, 9), torch.bfloat16, device)
    views = [view for _, view in (*testing.layouts(x), *testing.expanded(x))]
    views += [x[::2], x[1:, 1:, 1:], x.permute(1, 0, 2), x.permute(2, 0, 1)]
    views += [x.view(2, 3, 5, 9).permute(1, 0, 3, 2)]
    for view in views:
        with testing.guarded():
            assert_same(transpose(view), view.transpose(-2, -1))


def test_views_that_are_still_to_be_conjugated_or_negated(device):
    z = torch.randn(5, 9, dtype=torch.complex64, device=device)
    assert_same(transpose(z.conj()), z.conj().resolve_conj().t())
    negated = z.conj().imag
    assert negated.is_neg()
    assert_same(transpose(negated), -z.imag.t())


def test_the_result_is_new_memory(device):
    x = matrix((1, 9), torch.float32, device)
    out = transpose(x)
    assert out.data_ptr() != x.data_ptr()
    assert_same(transpose(x.t()), x)


class TestDescribed:
    @pytest.mark.parametrize("dtype", ONE_OF_EACH_SIZE, ids=str)
    def test_what_can_be_described(self, dtype, device):
        step = 16 // dtype.itemsize
        for rows, columns in ((1, 3), (5, 2), (9, 9 if step < 16 else 5)):
            x = matrix((rows * step, columns * step), dtype, device)
            with testing.guarded():
                assert_same(described.transpose(x), x.t())
            part = x[:, : columns * step - 1]
            with testing.guarded():
                assert_same(described.transpose(part), part.t())

    def test_empty(self, device):
        assert described.transpose(torch.empty(3, 0, device=device)).shape == (0, 3)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: x.t(), "its last stride must be 1, got 64"),
            (lambda x: x[:, 1:], "start at a multiple of 16 bytes, got 4 past"),
            (lambda x: x.view(-1, 34)[:8], "a multiple of 16 bytes apart, got 136"),
            (lambda x: x[:7], "rows of its transpose .* got 7 elements"),
            (lambda x: x[:1].expand(8, 64), "16 bytes apart, got 0"),
        ],
    )
    def test_what_can_not_is_refused_by_name(self, make, message, device):
        x = make(torch.zeros(68, 64, device=device))
        with pytest.raises(ValueError, match=f"x can't be described: .*{message}"):
            described.transpose(x)

    def test_a_side_of_more_than_2_to_the_31(self):
        x = torch.empty((16, 2**31), dtype=torch.uint8, device="meta")
        assert "a side must be at most" in described.refusal(x)


class TestExplicit:
    @pytest.mark.gpu
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("sides", [(1, 1), (5, 3), (16, 9), (40, 33)])
    def test_what_is_aligned(self, sides, dtype, device):
        here.require("sm80")
        m, n = (side * 16 // dtype.itemsize for side in sides)
        x = matrix((m, n), dtype, device)
        wide = matrix((m, 2 * n), dtype, device)[:, n:]
        for view in (x, wide):
            with testing.guarded():
                assert_same(explicit.transpose(view), view.t())

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: x.t(), "its last stride must be 1, got 64"),
            (lambda x: x[:, 1:], "start at a multiple of 16 bytes, got 4 past"),
            (lambda x: x[:7], "multiples of 4 elements, got 7, 64 and 64"),
            (lambda x: x[:, :9], "multiples of 4 elements, got 68, 9 and 64"),
            (lambda x: x.view(-1, 34)[:8, :32], "got 8, 32 and 34"),
        ],
    )
    def test_what_is_not_is_refused_by_name(self, make, message, device):
        x = make(torch.zeros(68, 64, device=device))
        with pytest.raises(ValueError, match=f"x isn't aligned: .*{message}"):
            explicit.transpose(x)

    def test_a_side_of_2_to_the_31(self):
        x = torch.empty((16, 2**31), dtype=torch.uint8, device="meta")
        assert "a side must be below 2^31" in explicit.refusal(x)

    def test_without_an_nvidia_gpu(self, device):
        if here.has("sm80"):
            pytest.skip("there is one")
        with pytest.raises(here.HardwareError, match=r"compute capability 8\.0"):
            explicit.transpose(torch.zeros(8, 8, device=device))

    @pytest.mark.parametrize("size", [1, 2, 4, 8])
    def test_eight_lanes_never_meet_in_a_bank(self, size):
        """Shared memory serves eight lanes of 16 bytes at a time."""
        block, _ = explicit.SIDES[size]
        vector = 16 // size
        line = block // vector

        def banks(row, group):
            # The layout's rule: groups of `vector` elements change places by row.
            group ^= row // vector % 8
            return (row * block // vector + group) % 8

        for k in range(vector):
            for first in range(0, 32, 8):
                lanes = range(first, first + 8)
                rows = [lane % line * vector + k for lane in lanes]
                groups = [lane // line for lane in lanes]
                written = {banks(*at) for at in zip(rows, groups, strict=True)}
                read = {banks(lane // line + k, lane % line) for lane in lanes}
                assert len(written) == len(read) == 8


class TestRefused:
    @pytest.mark.parametrize("rung", [*tiling.LADDER, tiling], ids=rung_name)
    @pytest.mark.parametrize(
        ("x", "error", "message"),
        [
            (1.5, TypeError, "x must be a torch.Tensor, got float"),
            (torch.ones(4), ValueError, r"x must have .*2 dimensions, got 1"),
            (torch.ones(()), ValueError, r"x must have .*2 dimensions, got 0"),
            (
                torch.ones(2, 2, dtype=torch.complex128),
                TypeError,
                "1, 2, 4 or 8 bytes, got complex128 of 16",
            ),
            (torch.ones(2, 2, device="meta"), ValueError, "x must be on .*, got meta"),
        ],
    )
    def test_unfit(self, rung, x, error, message, device):
        if isinstance(x, torch.Tensor) and not x.is_meta:
            x = x.to(device)
        with pytest.raises(error, match=message):
            rung.transpose(x)

    @pytest.mark.parametrize("rung", tiling.LADDER, ids=rung_name)
    def test_batches_by_a_rung(self, rung, device):
        with pytest.raises(ValueError, match="x must have 2 dimensions, got 3"):
            rung.transpose(torch.ones(2, 2, 2, device=device))

    @pytest.mark.gpu
    @pytest.mark.parametrize("rung", [*tiling.LADDER, tiling], ids=rung_name)
    def test_cpu_tensors_where_kernels_are_compiled(self, rung):
        with pytest.raises(ValueError, match="x must be on cuda"):
            rung.transpose(torch.ones(4, 4))

    @pytest.mark.parametrize(("group", "error"), [(0, ValueError), (2.0, TypeError)])
    def test_group(self, group, error, device):
        with pytest.raises(error, match="group must be"):
            grouped.transpose(torch.ones(4, 4, device=device), group=group)


@pytest.mark.parametrize("group", [1, 2, 3, 5, 100])
def test_every_group_covers_every_tile(group, device):
    x = matrix((5 * grouped.BLOCK_M + 3, 3 * grouped.BLOCK_N + 1), torch.int16, device)
    with testing.guarded():
        assert_same(grouped.transpose(x, group=group), x.t())


def test_tiles_fit_the_matrix():
    for size, vector in itertools.product((1, 2, 4, 8), (1, 16)):
        wide = vector == 16
        large = (aligned.TILES if wide else aligned.NARROW_TILES)[size]
        config = aligned.config_for(size, 8192, 8192, vector)
        assert (config.block_m, config.block_n, config.num_warps) == large
        small = (aligned.SMALL_TILES if wide else aligned.SMALL_NARROW_TILES)[size]
        config = aligned.config_for(size, 512, 512, vector)
        assert (config.block_m, config.block_n, config.num_warps) == small
        tiles = (large, small, aligned.THIN_TILES[size])
        areas = {rows * columns for rows, columns, _ in tiles}
        for m, n in ((17, 10**7), (10**7, 17), (1, 10**8), (10**8, 1), (3, 3)):
            config = aligned.config_for(size, m, n, vector)
            assert config.block_m * config.block_n <= max(areas)
            assert config.block_m < 2 * m
            assert config.block_n < 2 * n
            if (m, n) != (3, 3):
                # As much work for a program as in a matrix that isn't thin.
                assert config.block_m * config.block_n in areas


class TestOperator:
    @pytest.mark.parametrize("shape", [(0, 3), (2, 3, 5)], ids=str)
    def test_registration(self, shape, device):
        x = torch.randn(shape, device=device, requires_grad=True)
        testing.opcheck(transpose_operator, x)

    def test_registration_of_strides(self, device):
        x = torch.randn(6, 5, 8, device=device)
        for view in (x[:, :, ::2], x.permute(1, 0, 2)):
            testing.opcheck(transpose_operator, view)

    def test_gradient_against_differences(self, device):
        x = torch.randn(1, 2, 3, dtype=torch.float64, device=device, requires_grad=True)
        assert torch.autograd.gradcheck(transpose, (x,))
        assert torch.autograd.gradgradcheck(transpose, (x,))

    def test_gradient_of_a_strided_one(self, device):
        x = torch.randn(3, 8, device=device, requires_grad=True)
        weights = torch.randn(4, 3, device=device)
        (transpose(x[:, ::2]) * weights).sum().backward()
        expected = torch.zeros_like(x)
        expected[:, ::2] = weights.t()
        assert torch.equal(x.grad, expected)

    def test_torch_compile(self, device):
        @torch.compile(fullgraph=True, backend="aot_eager")
        def twice(x):
            return transpose(transpose(x) + 1)

        x = torch.randn(4, 9, device=device)
        assert torch.equal(twice(x), x + 1)
        x.requires_grad_()
        twice(x).sum().backward()
        assert torch.equal(x.grad, torch.ones_like(x))

    @pytest.mark.gpu
    @pytest.mark.parametrize("shape", [(1000, 300), (257, 129)])
    def test_inductor(self, shape, device):
        fused = torch.compile(lambda x: transpose(x) * 2, fullgraph=True)
        x = torch.randn(shape, device=device)
        assert torch.equal(fused(x), x.t() * 2)

    def test_fake_tensors(self, device):
        x = torch.randn(2, 4, 9, device=device)
        with torch._subclasses.FakeTensorMode() as mode:
            out = transpose(mode.from_tensor(x).transpose(1, 2))
        assert (out.shape, out.stride()) == ((2, 4, 9), (36, 9, 1))

    def test_vmap(self, device):
        x = torch.randn(3, 4, 5, device=device)
        assert torch.equal(torch.vmap(transpose)(x), x.transpose(1, 2))
        ends = torch.vmap(transpose, in_dims=2)(x)
        assert torch.equal(ends, x.permute(2, 1, 0))


def planted(where, name, old, new):
    """Swap a kernel or function of a module for one with a mistake, for a while."""
    if not here.interpreting():
        # Kernels that inline a helper have to be compiled again.
        return testing.mutated_module(where, old, new)
    ((_, mutant),) = testing.mutants(getattr(where, name), {"planted": (old, new)})
    return mock.patch.object(where, name, mutant)


KERNEL = "transpose_kernel"
MISTAKES = [
    (naive, KERNEL, "mask = offs_n < n", "mask = offs_n <= n"),
    (naive, KERNEL, "offs_n * m + row", "offs_n * n + row"),
    (naive, KERNEL, "stride_m + offs_n * stride_n", "stride_n + offs_n * stride_m"),
    (tiled, KERNEL, "tl.trans(x),", "x,"),
    (tiled, KERNEL, "mask=tl.trans(mask)", "mask=mask"),
    (tiled, KERNEL, "offs_n[:, None] * m + offs_m", "offs_n[:, None] * n + offs_m"),
    (tiled, KERNEL, "(offs_m < m)[:, None] & ", ""),
    (tiled, KERNEL, "% tiles_n).to", "% (tiles_n + 1)).to"),
    (grouped, "grouped", "rows = tl.minimum(tiles_m - first, GROUP)", "rows = GROUP"),
    (grouped, "grouped", "% rows, within // rows", "% rows, within"),
    (grouped, "grouped", "strip = pid // (GROUP * tiles_n)", "strip = pid // GROUP"),
    (aligned, KERNEL, "tl.cast(n, tl.int64) * N_DIV", "tl.cast(n, tl.int64) * M_DIV"),
    (aligned, KERNEL, "stride_m * DIV_M", "stride_m"),
    (aligned, KERNEL, "batch * stride_b * DIV_B", "batch * stride_b"),
    (aligned, KERNEL, "batch * n * m", "batch * n"),
    (aligned, KERNEL, "tile = pid % (tiles_m * tiles_n)", "tile = pid"),
    (aligned, "arguments", "math.gcd(int(value), most)", "math.gcd(12, most)"),
]


@pytest.mark.parametrize(
    ("rung", "name", "old", "new"),
    MISTAKES,
    ids=lambda x: x if isinstance(x, str) else rung_name(x),
)
def test_planted_mistakes_are_found(rung, name, old, new, device):
    """The tests of shapes and strides, on few of them, are red for each mistake."""
    whole = matrix((2, 70, 200), torch.int16, device)
    cases = {
        naive: [matrix((3, 1030), torch.int16, device)[:, ::2], whole[0, :4, :9]],
        tiled: [whole[0, :65, :80:2], whole[1, :66, :50].t()],
        # Strips of two tiles: two whole ones and a half.
        grouped: [matrix((300, 70), torch.int16, device)],
        aligned: [whole, whole[:, :16, :24], whole[:, :7, :3]],
    }[rung]
    extra = {"group": 2} if rung is grouped else {}

    def passes(x):
        guard = testing.guard(x)
        run = transpose if rung is aligned else rung.transpose
        with testing.guarded():
            out = run(guard.tensor, **extra)
        assert_same(out, x.transpose(-2, -1))

    for x in cases:
        passes(x)
    with planted(rung, name, old, new):
        assert not all(holds(passes, x) for x in cases)


def test_planted_mistakes_in_the_operator_are_found(device):
    x = torch.randn(2, 3, 5, device=device)
    operator = TestOperator()

    def batches():
        assert_same(transpose(x), x.transpose(1, 2))
        assert_same(transpose(x[:, :1]), x[:, :1].mT)

    lazy = test_views_that_are_still_to_be_conjugated_or_negated
    for where, old, new, test, *args in (
        (operands, "x.resolve_conj().resolve_neg()", "x", lazy, device),
        (public, "x.shape[-1], x.shape[-2])", "x.shape[-2], x.shape[-1])", batches),
        (public, "m * n).t()[None]", "m * n)[None]", batches),
        (public, "movedim(in_dims[0], 0)", "movedim(0, 1)", operator.test_vmap, device),
        (
            *(public, "return transpose(grad)", "return grad"),
            *(operator.test_gradient_of_a_strided_one, device),
        ),
    ):
        assert holds(test, *args)
        with testing.mutated_module(where, old, new):
            assert not holds(test, *args)


def holds(test, *args):
    try:
        test(*args)
    except (AssertionError, IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("rung", [*ANY, described, tiling], ids=rung_name)
def test_repeats_are_equal(rung, device):
    x = matrix((80, 144), torch.bfloat16, device).nan_to_num()
    testing.deterministic(lambda: rung.transpose(x), 20 if x.is_cuda else 3)


@pytest.mark.gpu
@pytest.mark.parametrize("rung", [*tiling.LADDER, tiling], ids=rung_name)
def test_20_repeats_on_a_gpu(rung, device):
    x = matrix((1024, 2048), torch.int16, device)
    testing.deterministic(lambda: rung.transpose(x))


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("rung", [*tiling.LADDER, tiling], ids=rung_name)
@pytest.mark.parametrize(
    "shape", [(2**16, 2**15 + 16), (2**31 + 64, 1), (16, 2**27 + 16)], ids=str
)
def test_more_than_2_to_the_31_elements(rung, shape, device):
    if rung in PICKY and (shape[1] == 1 or max(shape) > described.LARGEST):
        pytest.skip("refused, as tested above")
    x = torch.empty(shape, dtype=torch.uint8, device=device).random_(0, 256)
    if rung is naive and shape[1] == 1:
        with pytest.raises(ValueError, match="pieces of rows, and a grid at most"):
            naive.transpose(x)
        return
    out = rung.transpose(x)
    step = max(1, 2**28 // shape[1])
    for start in range(0, shape[0], step):
        piece = slice(start, start + step)
        assert torch.equal(out[:, piece], x[piece].t())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_carriers_are_as_large_as_what_they_carry(dtype):
    assert operands.carrier(torch.empty(0, 0, dtype=dtype)).itemsize == dtype.itemsize
