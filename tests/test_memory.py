"""The ladder of `copy`, and `copy` for use."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import device as here
from tilebook import memory, testing
from tilebook.memory import (
    capped,
    copy,
    deep,
    engine,
    hinted,
    layout,
    narrow,
    persistent,
    public,
    strided,
    vectors,
    wide,
)
from tilebook.memory.public import copy_operator

RUNGS = [narrow, wide, deep, persistent, hinted, capped]
if here.has("tma"):
    RUNGS.append(engine)
DTYPES = [
    *(torch.bool, torch.uint8, torch.float8_e4m3fn, torch.bfloat16, torch.float16),
    *(torch.int32, torch.float32, torch.float64, torch.complex64),
]
LENGTHS = testing.lengths(2100)


def rung_name(rung):
    return rung.__name__.rpartition(".")[2]


def noise(shape, dtype, device):
    """Every pattern of bits, NaNs with payloads and subnormal numbers among them."""
    if dtype == torch.bool:
        return torch.randint(2, (*shape,), device=device).bool()
    if dtype.is_complex:
        return torch.view_as_complex(noise((*shape, 2), torch.float32, device))
    raw = torch.randint(256, (*shape, dtype.itemsize), device=device)
    return raw.to(torch.uint8).view(dtype).squeeze(-1)


def same_bits(a, b):
    """Whether two tensors hold the same bits in the same order."""
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    return torch.equal(*(testing.poison.flat_bytes(t) for t in (a, b)))


def test_the_ladder_is_what_the_package_says_it_is():
    told = [line.split("`")[1] for line in memory.__doc__.splitlines() if "* `" in line]
    assert told == [rung_name(rung) for rung in memory.LADDER]


@pytest.mark.parametrize("rung", RUNGS, ids=rung_name)
@pytest.mark.parametrize(
    "n",
    [
        pytest.param(n, marks=pytest.mark.sanitize) if n in (1, 511, 513, 2049) else n
        for n in LENGTHS
    ],
)
def test_any_length(rung, n, device):
    x = testing.guard(noise((n,), torch.float32, device)).tensor
    before = x.clone()
    with testing.guarded():
        out = rung.copy(x)
    assert same_bits(out, before)
    assert same_bits(x, before)


@pytest.mark.parametrize("rung", [*RUNGS, memory], ids=rung_name)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_any_dtype(rung, dtype, device):
    x = noise((1003,), dtype, device)
    with testing.guarded():
        assert same_bits(rung.copy(x), x)


@pytest.mark.parametrize(
    "rung", [narrow, wide, deep, persistent, hinted, capped], ids=rung_name
)
@pytest.mark.parametrize("shift", [(1, 0), (0, 1), (1, 1), (3, 5), (4, 8)])
def test_any_alignment(rung, shift, device):
    for dtype in (torch.uint8, torch.bfloat16, torch.float32):
        base = noise((1200,), dtype, device)
        x = base[shift[0] : shift[0] + 1100]
        room = testing.guard(torch.zeros(1200, dtype=dtype, device=device))
        out = room.tensor[shift[1] : shift[1] + 1100]
        rung.copy(x, out=out)
        assert same_bits(out, x)
        assert not room.tensor[: shift[1]].any()
        assert not room.tensor[shift[1] + 1100 :].any()
        room.check()


@pytest.mark.parametrize("n", [1, 511, 1024, 4096, 4099, 9001])
@pytest.mark.parametrize(
    "config",
    [
        capped.Config(1, 4, 2048, 64),
        capped.Config(4, 8, 256, None, "evict_first", ""),
        capped.Config(2, 1, 64, 40, "evict_last", ".wt"),
    ],
    ids=str,
)
def test_any_way_to_launch(config, n, device):
    for dtype in (torch.int64, torch.uint8):
        x = testing.guard(noise((n,), dtype, device)).tensor
        with testing.guarded():
            out = torch.empty_like(x)
            capped.launch_as(config, x, out)
            assert same_bits(out, x)


def test_caps_grow_with_the_vector():
    for gpu, caps in capped.CAPS.items():
        sizes = [least for least, _ in caps]
        assert sizes == sorted(sizes, reverse=True)
        assert capped.config_for(0, gpu=gpu).maxnreg is None
        for least, config in caps:
            assert capped.config_for(least - 1, gpu=gpu) != config
            assert capped.config_for(least, gpu=gpu) == config
    assert capped.config_for(2**40).maxnreg is None


@given(n=st.integers(0, 3000), programs=st.integers(1, 9), stages=st.integers(1, 5))
def test_any_number_of_programs(n, programs, stages):
    x = noise((n,), torch.bfloat16, here.torch_device())
    assert same_bits(persistent.copy(x, programs=programs, stages=stages), x)


@pytest.mark.parametrize("loads", [1, 2, 8])
@pytest.mark.parametrize("num_warps", [1, 4, 8])
def test_any_number_of_loads(loads, num_warps, device):
    x = noise((5001,), torch.float32, device)
    with testing.guarded():
        assert same_bits(deep.copy(x, loads=loads, num_warps=num_warps), x)


@pytest.mark.parametrize("load", hinted.LOADS)
@pytest.mark.parametrize("store", hinted.STORES)
def test_hints_change_no_bit(load, store, device):
    x = noise((700,), torch.float32, device)
    assert same_bits(hinted.copy(x, load=load, store=store), x)


def test_words_are_as_long_as_both_ends_allow(device):
    base = torch.zeros(64, dtype=torch.uint8, device=device)
    sizes = {(0, 64): 8, (4, 60): 4, (2, 62): 2, (1, 63): 1, (8, 12): 4, (0, 3): 1}
    for (start, stop), size in sizes.items():
        found = vectors.words(base[start:stop], base[start:stop])
        assert [w.element_size() for w in found] == [size, size]


class TestViews:
    def test_conjugated_and_negated(self, device):
        z = torch.randn(6, dtype=torch.complex64, device=device)
        assert torch.equal(copy(z.conj()), z.conj())
        assert torch.equal(copy(z.conj().imag), z.conj().imag)
        for dtype in (torch.complex64, torch.complex128):
            out = torch.zeros(6, dtype=dtype, device=device).conj()
            assert copy(z.to(dtype), out=out) is out
            assert torch.equal(out, z.to(dtype))

    @pytest.mark.parametrize("rung", RUNGS, ids=rung_name)
    def test_one_element_with_a_stride(self, rung, device):
        x = torch.arange(10.0, device=device)[::5][:1]
        assert torch.equal(rung.copy(x, out=torch.zeros(1, device=device)), x)

    def test_a_subclass_returns_its_out(self, device):
        class Own(torch.Tensor):
            pass

        out = torch.empty(2, device=device)
        assert copy(torch.ones(2, device=device).as_subclass(Own), out=out) is out

    @pytest.mark.parametrize("make", ["to_sparse", "to_sparse_csr"])
    def test_what_has_no_strides_is_refused(self, make, device):
        for fn in (copy, wide.copy):
            with pytest.raises(ValueError, match="x must be dense and strided"):
                fn(getattr(torch.eye(3, device=device), make)())

    def test_quantised_is_refused(self, device):
        x = torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8).to(device)
        with pytest.raises(TypeError, match="x must not be quantised"):
            copy(x)


class TestLayout:
    def test_dense_in_one_order_is_one_dimension(self):
        x = torch.empty(3, 4, 5)
        for a in (x, x.permute(2, 0, 1), x[1], x[:, None]):
            dims = layout.merged(a, torch.empty_strided(a.shape, a.stride()))
            assert layout.flat(dims)
            assert dims[0].size == a.numel()

    def test_what_can_be_merged_is(self):
        x = torch.empty(6, 4, 10)[:, :, ::2]
        assert layout.merged(x, torch.empty(6, 4, 5)) == [(120, 2, 1)]
        y = torch.empty(4, 6).t()
        assert layout.merged(y, torch.empty(6, 4)) == [(6, 1, 4), (4, 6, 1)]
        z = torch.empty(5).expand(3, 5)
        assert layout.merged(z, torch.empty(3, 5)) == [(3, 0, 5), (5, 1, 1)]
        assert layout.merged(torch.empty(()), torch.empty(())) == [(1, 1, 1)]

    def test_shared_places(self):
        assert layout.spreads(torch.empty(3, 4).t())
        assert layout.spreads(torch.empty(40)[::3])
        assert layout.spreads(torch.empty(1).expand(1, 1))
        assert not layout.spreads(torch.empty(4).expand(3, 4))
        assert not layout.spreads(torch.empty(9).as_strided((3, 3), (2, 1)))

    def test_overlap(self):
        x = torch.empty(20)
        assert layout.disturbs(x[:10], x[1:11])
        assert layout.disturbs(x[:16].view(4, 4), x[:16].view(4, 4).t())
        assert not layout.disturbs(x[:10], x[10:])
        assert not layout.disturbs(x, x)


def shapes(device):
    base = noise((6, 7, 10), torch.float32, device)
    return {
        "transposed": base.transpose(0, 2),
        "rotated": base.permute(1, 2, 0),
        "sliced": base[1:, ::2, 3:],
        "expanded": base[:, None].expand(6, 5, 7, 10),
        "one row for all": base[0, 0].expand(9, 10),
        "scalar": base[2, 3, 4],
        "one": base[:1, :1, :1],
        "empty": base[:, :0],
        "wide": base.view(torch.complex64),
        "wider": base.view(torch.complex64).view(-1).view(torch.complex128),
    }


@pytest.mark.sanitize
@pytest.mark.parametrize("name", shapes("cpu"))
def test_any_strides(name, device):
    x = shapes(device)[name]
    with testing.guarded():
        out = copy(x)
    assert same_bits(out, x)
    assert out.stride() == torch.empty_like(x).stride()
    for order in (range(x.ndim), reversed(range(x.ndim))):
        dims = list(order)
        plain = torch.zeros([x.shape[d] for d in dims], dtype=x.dtype, device=device)
        room = plain if x.dtype.itemsize == 16 else testing.guard(plain).tensor
        out = room.permute([dims.index(d) for d in range(x.ndim)])
        assert copy(x, out=out) is out
        assert same_bits(out, x)


def test_wide_counting_is_the_same(device):
    x = noise((12, 10, 8), torch.float32, device).permute(2, 0, 1)
    out = torch.empty(x.shape, device=device)
    dims = layout.merged(x, out)
    strided.copy_kernel[(1,)](
        x,
        out,
        x.numel(),
        *zip(*dims, strict=True),
        NDIM=len(dims),
        WIDE=True,
        BLOCK=1024,
    )
    assert same_bits(out, x)


@given(data=st.data())
def test_random_views_into_random_views(data):
    rank = data.draw(st.integers(1, 4))
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank))
    dtype = data.draw(st.sampled_from([torch.uint8, torch.bfloat16, torch.float64]))

    def view(fresh):
        steps = [data.draw(st.integers(1, 3)) for _ in sizes]
        order = data.draw(st.permutations(range(rank)))
        base = fresh([sizes[d] * steps[d] for d in order])
        back = base.permute([order.index(d) for d in range(rank)])
        return back[tuple(slice(None, None, s) for s in steps)]

    where = here.torch_device()
    x = view(lambda shape: noise(tuple(shape), dtype, where))
    out = view(lambda shape: torch.zeros(shape, dtype=dtype, device=where))
    copy(x, out=out)
    assert same_bits(out, x)


class TestOut:
    @pytest.mark.parametrize("shift", [-300, -1, 0, 1, 300])
    def test_overlaps_what_is_read(self, shift, device):
        buffer = noise((4000,), torch.float32, device)
        x, out = buffer[400:3400], buffer[400 + shift : 3400 + shift]
        expected = x.clone()
        copy(x, out=out)
        assert same_bits(out, expected)

    def test_is_the_input_turned_round(self, device):
        square = noise((40, 40), torch.float32, device)
        expected = square.clone()
        copy(square, out=square.t())
        assert same_bits(square.t(), expected)

    def test_shared_places_are_refused(self, device):
        x = torch.zeros(3, 4, device=device)
        with pytest.raises(ValueError, match="no elements share a place"):
            copy(x, out=torch.zeros(4, device=device).expand(3, 4))

    def test_autograd_notices(self, device):
        x = torch.ones(5, device=device)
        product = torch.ones(5, device=device, requires_grad=True) * x
        copy(torch.zeros(5, device=device), out=x)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.sum().backward()

    def test_takes_no_part_in_a_gradient(self, device):
        x = torch.ones(5, device=device, requires_grad=True)
        with pytest.raises(ValueError, match="out can't take part in a gradient"):
            copy(x, out=torch.empty(5, device=device))
        with torch.no_grad():
            assert copy(x, out=torch.empty(5, device=device)).sum() == 5


@pytest.mark.parametrize(
    ("x", "out", "error", "message"),
    [
        (3, None, TypeError, "x must be a torch.Tensor, got int"),
        (torch.ones(4), 3, TypeError, "out must be a torch.Tensor, got int"),
        (torch.ones(4), torch.ones(5), ValueError, r"out must have shape \(4,\)"),
        (torch.ones(4), torch.ones(4).int(), TypeError, "out must be float32"),
        (torch.empty(4, device="meta"), None, ValueError, "x must be on"),
    ],
)
def test_unfit(x, out, error, message, device):
    def there(t):
        plain = isinstance(t, torch.Tensor) and not t.is_meta
        return t.to(device) if plain else t

    for fn in (copy, wide.copy):
        with pytest.raises(error, match=message):
            fn(there(x), out=there(out))


@pytest.mark.parametrize(
    "rung", [narrow, wide, deep, persistent, hinted, capped], ids=rung_name
)
def test_rungs_take_vectors_only(rung, device):
    gaps = torch.zeros(20, device=device)[::2]
    with pytest.raises(ValueError, match="x must be contiguous"):
        rung.copy(gaps)
    with pytest.raises(ValueError, match="out must be contiguous"):
        rung.copy(torch.zeros(10, device=device), out=gaps)
    with pytest.raises(TypeError, match=r"x must have elements of 1, 2, 4 or 8 bytes"):
        rung.copy(torch.zeros(4, dtype=torch.complex128, device=device))


@pytest.mark.parametrize("rung", RUNGS, ids=rung_name)
def test_rungs_write_where_nobody_reads(rung, device):
    x = torch.ones(2000, device=device)
    with pytest.raises(ValueError, match="out must not overlap what is read"):
        rung.copy(x[:-4], out=x[4:])
    with pytest.raises(ValueError, match="out can't take part in a gradient"):
        rung.copy(x, out=torch.zeros(2000, device=device, requires_grad=True))
    product = torch.ones(2000, device=device, requires_grad=True) * x
    rung.copy(torch.zeros(2000, device=device), out=x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loads": -1}, ValueError, "loads must be at least 1"),
        ({"loads": 3}, ValueError, "loads must be a power of two up to 64, got 3"),
        ({"num_warps": 64}, ValueError, "num_warps must be a power of two up to 32"),
        ({"num_warps": 2.0}, TypeError, "num_warps must be an int"),
        ({"maxnreg": 0}, ValueError, "maxnreg must be at least 1"),
    ],
)
def test_unfit_numbers(options, error, message, device):
    with pytest.raises(error, match=message):
        deep.copy(torch.ones(4, device=device), **options)


def test_unknown_hints_and_no_programs_are_refused(device):
    x = torch.zeros(4, device=device)
    with pytest.raises(ValueError, match="load must be"):
        hinted.copy(x, load=".xx")
    with pytest.raises(ValueError, match="programs must be at least 1"):
        persistent.copy(x, programs=0)
    with pytest.raises(ValueError, match="stages must be at least 1"):
        persistent.copy(x, stages=0)


@pytest.mark.gpu
def test_rungs_launch_on_the_current_gpu():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    x = torch.ones(100, device="cuda:1")
    assert same_bits(copy(x), x)
    with pytest.raises(ValueError, match="launched on the current device, cuda:0"):
        wide.copy(x)


def test_the_engine_needs_its_hardware(device):
    if here.has("tma"):
        with pytest.raises(ValueError, match="x must start at a multiple of 16 bytes"):
            engine.copy(torch.zeros(101, device=device)[1:])
        with pytest.raises(ValueError, match="stages must be from 2 to 12, got 1"):
            engine.copy(torch.zeros(100, device=device), stages=1)
    else:
        with pytest.raises(here.HardwareError, match="tensor memory accelerator"):
            engine.copy(torch.zeros(100, device=device))


@pytest.mark.gpu
@pytest.mark.sanitize
@pytest.mark.parametrize("stages", [2, 3, 4, 6])
@pytest.mark.parametrize("n", [1, 255, 256, 4096, 100_003, 2**20])
def test_the_engine_copies(n, stages, device):
    here.has("tma") or pytest.skip("needs the tensor memory accelerator")
    x = noise((n,), torch.float32, device)
    with testing.guarded():
        assert same_bits(engine.copy(x, stages=stages), x)


class TestGradient:
    def test_flows(self, device):
        x = torch.randn(3, 7, dtype=torch.float64, device=device, requires_grad=True)
        assert torch.autograd.gradcheck(copy, (x.t(),))
        assert torch.autograd.gradgradcheck(copy, (x,))

    @pytest.mark.gpu
    def test_the_operator_is_well_made(self, device):
        for x in (
            torch.randn(5, 6, device=device),
            torch.randn(6, 5, device=device).t(),
        ):
            torch.library.opcheck(copy_operator, (x.requires_grad_(),))

    def test_compiles(self, device):
        backend = here.sizes("inductor", "aot_eager")
        x = torch.randn(300, 40, device=device)
        twice = torch.compile(
            lambda x: copy(x.t()) * 2, fullgraph=True, backend=backend
        )
        assert torch.equal(twice(x), x.t() * 2)
        z = torch.randn(30, dtype=torch.complex64, device=device)
        plain = torch.compile(
            lambda z: copy(z.conj()), fullgraph=True, backend="aot_eager"
        )
        assert torch.equal(plain(z), z.conj())


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("rung", [*RUNGS, memory], ids=rung_name)
def test_more_than_2_to_the_31_elements(rung, device):
    n = 2**31 + 12_345
    x = torch.empty(n, dtype=torch.uint8, device=device).random_()
    out = rung.copy(x)
    for start in range(0, n, 2**28):
        assert torch.equal(out[start : start + 2**28], x[start : start + 2**28])


@pytest.mark.gpu
@pytest.mark.large
def test_more_than_2_to_the_31_strided_elements(device):
    x = torch.empty(2**16 + 3, 2**15 + 1, dtype=torch.uint8, device=device).random_()
    out = copy(
        x.t(), out=torch.empty_like(x.t(), memory_format=torch.contiguous_format)
    )
    for start in range(0, x.shape[1], 2**13):
        assert torch.equal(out[start : start + 2**13], x.t()[start : start + 2**13])


@pytest.mark.parametrize("rung", [*RUNGS, memory], ids=rung_name)
def test_repeats_are_equal(rung, device):
    x = noise((3001,), torch.int32, device)
    testing.deterministic(lambda: rung.copy(x))


MISTAKES = [
    (narrow, "mask = offs < n", "mask = offs < n - 1"),
    (narrow, "mask = offs < n", "mask = offs < n + 1"),
    (narrow, "tl.store(out_ptr + offs, x, mask=mask)", "tl.store(out_ptr + offs, x)"),
    (wide, "start + BLOCK <= n", "start + BLOCK <= n + 1"),
    (wide, "tl.program_id(0).to(tl.int64) * BLOCK", "tl.program_id(0).to(tl.int64)"),
    (wide, "triton.cdiv(x.numel(), block)", "x.numel() // block"),
    (persistent, "tl.num_programs(0).to", "(tl.num_programs(0) + 1).to"),
    (persistent, "if first == 0:", "if first == BLOCK:"),
    (persistent, "(n.to(tl.int64) // BLOCK) * BLOCK", "n.to(tl.int64)"),
    (hinted, "mask = offs < n", "mask = offs <= n"),
    (capped, "start + BLOCK <= n", "start + BLOCK <= n + 1"),
    (capped, "range(start, n, TAIL)", "range(start, start + TAIL, TAIL)"),
    (capped, "tl.num_programs(0), pid) - 1", "tl.num_programs(0) - 1, pid) - 1"),
]


def holds(test, *args):
    try:
        return test(*args)
    except (AssertionError, IndexError, RuntimeError):
        return False


@pytest.mark.parametrize(("rung", "old", "new"), MISTAKES)
def test_planted_mistakes_are_found(rung, old, new, device):
    def right(n):
        x = testing.guard(noise((n,), torch.float32, device)).tensor
        extra = {"programs": 2} if rung is persistent else {}
        with testing.guarded():
            return same_bits(rung.copy(x, **extra), x)

    few = (127, 129, 511, 513, 1024, 2500)
    assert all(map(right, few))
    with testing.mutated_module(rung, old, new):
        assert not all(holds(right, n) for n in few)


STRIDED_MISTAKES = [
    (strided, "rest % sizes[NDIM - 1 - i]", "rest % sizes[0]"),
    (strided, "* x_strides[NDIM - 1 - i]", "* out_strides[NDIM - 1 - i]"),
    (strided, "rest = rest // sizes[NDIM - 1 - i]", "rest = rest"),
    (strided, "mask = offs < n", "mask = offs < n - 1"),
    (layout, "last.x == dim.size * dim.x and", ""),
    (public, "layout.disturbs(x, out)", "False"),
    (vectors, "x.nbytes, *offsets", "*offsets"),
]


@pytest.mark.parametrize(("module", "old", "new"), STRIDED_MISTAKES)
def test_planted_mistakes_with_strides_are_found(module, old, new, device):
    # So far apart on a GPU that what is written has long not been read yet.
    n, shift = here.sizes((2**25, 2**22), (3000, 1))

    def right():
        # With a common factor: else the remainders alone would tell the elements apart.
        base = noise((12, 10, 8), torch.float32, device)
        for x in (base, base.permute(2, 0, 1), base[::2, :, 1:], base[:, 0, 0]):
            with testing.guarded():
                out = torch.empty(x.shape, device=device)
                assert same_bits(copy(x, out=out), x)
        odd = noise((1003,), torch.uint8, device)
        with testing.guarded():
            assert same_bits(copy(odd), odd)
        buffer = noise((n + shift,), torch.float32, device)
        expected = buffer[:-shift].clone()
        assert same_bits(copy(buffer[:-shift], out=buffer[shift:]), expected)
        return True

    assert right()
    with testing.mutated_module(module, old, new):
        assert not holds(right)
