"""The ladder of `softmax`, rung by rung, against float64."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook import softmax as chapter
from tilebook.softmax import (
    accuracy,
    arithmetic,
    columns,
    evidence,
    fused,
    masked,
    naive,
    occupancy,
    online,
    operands,
    persistent,
    ragged,
    resident,
    several,
    split,
)
from tilebook.softmax.operands import Task

INF = math.inf
# Each kernel, in a way in which small matrices have several chunks, rows to a program
# and parts. Elsewhere the module itself chooses.
WAYS = {
    "fused": (fused, None),
    "several": (several, lambda n: several.Config(4, operands.cover(n), 1)),
    "persistent": (persistent, lambda n: walk(n, 0)),
    "staged": (persistent, lambda n: walk(n, 2)),
    "ragged": (ragged, None),
    "online": (online, lambda n: online.Config(64, 1)),
    "forth": (online, lambda n: online.Config(64, 1, back=False)),
    "split": (split, lambda n: split.Config(64, 1, 3)),
}
DTYPES = operands.DTYPES
SHAPES = (
    *((0, 3), (3, 0), (1, 1), (5, 1), (2, 7), (3, 33), (3, 64), (2, 127)),
    *((2, 129), (1, 1025)),
)
WATCHED = ((1, 1), (0, 3), (3, 33), (2, 129))
each_way = pytest.mark.parametrize("way", WAYS)
# Those that differ in what they compute, and not only in how they walk.
some_ways = pytest.mark.parametrize("way", ["fused", "several", "ragged", "online"])


def walk(n, stages):
    """Two programs for all rows."""
    return persistent.config_for(n, stages=stages)._replace(per_sm=1)


def run(way, x, task=operands.PLAIN):
    """One of the ways on a matrix, its output guarded and poisoned."""
    rung, config = WAYS[way]
    config = config and config(x.shape[1])
    if task == operands.PLAIN:
        with testing.guarded():
            return rung.softmax(x, config=config)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    config = config or rung.config_for(x.shape[1], x.itemsize)
    rung.launch_as(config, x, out, task)
    return out


def assert_right(out, x, *, dim=-1, log=False, temperature=1.0, chunks=40):
    """Within the bound that `accuracy` derives, and contiguous."""
    assert out.is_contiguous()
    fn = torch.log_softmax if log else torch.softmax
    expected = testing.reference(lambda x: fn(x / temperature, dim), x)
    scale, length = accuracy.forward(
        x, dim, log=log, temperature=temperature, chunks=chunks
    )
    testing.assert_close(out, expected, length=length, factor=length, scale=scale)


def applies(way, x):
    return way != "ragged" or ragged.refusal(x) is None


def name(value):
    return value if isinstance(value, str) else getattr(value, "__name__", str(value))


def test_the_ladder_is_what_the_package_says_it_is():
    lines = chapter.__doc__.splitlines()
    told = [line.split("`")[1] for line in lines if line.startswith("* `")]
    assert told == [rung.__name__.rpartition(".")[2] for rung in chapter.LADDER]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "forth"])
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(s, marks=pytest.mark.sanitize) if s in WATCHED else s
        for s in SHAPES
    ],
    ids=str,
)
def test_any_shape(way, shape, device):
    x = testing.guard(torch.randn(shape, device=device))
    out = run(way, x.tensor)
    x.check()
    assert_right(out, x.tensor)


@each_way
@pytest.mark.parametrize("dtype", [*DTYPES[1:2], *DTYPES[3:]], ids=str)
def test_narrow_and_wide_dtypes(way, dtype, device):
    x = torch.randn(2, 131, dtype=dtype, device=device)
    out = run(way, x)
    assert out.dtype == dtype
    assert_right(out, x)


@some_ways
def test_any_scale(way, device):
    for factor, dtype in ((1e-4, torch.float32), (1e4, torch.float16), (1e4, None)):
        x = (torch.randn(2, 100, device=device) * factor).to(dtype or torch.float32)
        assert_right(run(way, x), x)


@some_ways
def test_the_logarithm_and_a_temperature(way, device):
    x = torch.randn(2, 100, device=device) * 5
    for log, t in ((True, 1.0), (False, 0.3), (True, 7.0)):
        out = run(way, x, Task(1 / t, log))
        assert_right(out, x, log=log, temperature=t)


def peculiar(device, n=70):
    """Rows in which infinities and NaN come early, late and alone."""
    x = torch.randn(14, n, device=device)
    x[0, 3] = INF
    x[1, n - 1] = INF
    x[2, [2, n - 2]] = INF
    x[3] = INF
    x[4, 1] = math.nan
    x[5, n - 1] = math.nan
    x[6] = math.nan
    x[7] = -INF
    x[8, : n - 1] = -INF
    x[9, 1:] = -INF
    x[10, ::2] = -INF
    x[11, : n // 2] = -INF
    x[12] = -torch.finfo(torch.float32).max
    x[13, :-1] = -torch.finfo(torch.float32).max
    return x


@pytest.mark.parametrize(
    ("way", "log"),
    [*((way, False) for way in WAYS), ("fused", True), ("online", True)],
)
def test_infinities_and_nan_are_pytorchs(way, log, device):
    x = peculiar(device)
    fn = torch.log_softmax if log else torch.softmax
    out, theirs = run(way, x, Task(log=log)), fn(x, 1)
    assert torch.equal(out.isnan(), theirs.isnan())
    assert torch.equal(out == -INF, theirs == -INF)
    fine = ~theirs.isnan().any(1)
    assert_right(out[fine], x[fine], log=log)


@some_ways
def test_extreme_values(way, device):
    x = testing.extremes(torch.float32, device)
    x = x[x.isfinite()]
    rows = torch.stack([x, x.flip(0), torch.full_like(x, x.max())])
    assert_right(run(way, rows), rows)


@each_way
@pytest.mark.parametrize("shape", [(2, 16), (2, 41)], ids=str)
def test_any_row_stride(way, shape, device):
    x = torch.randn(shape, dtype=torch.bfloat16, device=device)
    laid = dict(testing.layouts(x)) | dict(testing.expanded(x))
    wide = torch.randn(24, 80, dtype=torch.bfloat16, device=device)
    laid["rows"] = wide[: 3 * shape[0] : 3, 8 : 8 + shape[1]]
    walked = 0
    for label, view in laid.items():
        if view.shape[1] > 1 and view.stride(1) != 1:
            with pytest.raises(ValueError, match="neighbours in its rows"):
                run(way, view)
        elif applies(way, view):
            assert_right(run(way, view), view), label
            walked += 1
    assert walked


@given(
    m=st.integers(1, 4),
    n=st.integers(1, 150),
    more=st.integers(0, 20),
    start=st.integers(0, 9),
    which=st.integers(0, 3),
    way=st.sampled_from(sorted(WAYS)),
)
def test_rows_of_any_kind(m, n, more, start, which, way):
    dtype = DTYPES[which]
    base = torch.randn(m * (n + more) + start, dtype=torch.float64)
    base = base.to(here.torch_device(), dtype)
    x = base.as_strided((m, n), (n + more, 1), start)
    if applies(way, x):
        assert_right(run(way, x), x)


def test_naive(device):
    for dtype in (torch.float32, torch.float64):
        for shape in ((3, 100), (1, 1), (0, 4), (4, 0)):
            x = torch.randn(shape, dtype=dtype, device=device)
            if x.numel():
                assert_right(naive.softmax(x), x)
            else:
                assert naive.softmax(x).shape == shape
    assert naive.traffic(8, 1000) == 8 * 8 * 1000 + 4 * 8


class TestColumns:
    @pytest.mark.parametrize(
        "shape",
        [(1, 1, 1), (2, 3, 5), (3, 70, 9), (1, 130, 2), (1, 5, 40), (4, 0, 2)],
        ids=str,
    )
    @pytest.mark.parametrize("config", [None, columns.Config(32, 8, 1)], ids=str)
    def test_any_shape(self, shape, config, device):
        for dtype in (torch.float32, torch.bfloat16):
            x = testing.guard(torch.randn(shape, dtype=dtype, device=device))
            with testing.guarded():
                out = columns.softmax(x.tensor, config=config)
            x.check()
            if out.numel():
                assert_right(out, x.tensor, dim=1)

    def test_any_strides(self, device):
        x = torch.randn(2, 20, 4, device=device)
        views = [view for _, view in (*testing.layouts(x), *testing.expanded(x))]
        views += [x.permute(1, 0, 2), x.permute(2, 1, 0), x[:, ::2, 2:]]
        for i, view in enumerate(views):
            config = columns.Config(16, 4, 1) if i % 2 else None
            with testing.guarded():
                out = columns.softmax(view, config=config)
            assert_right(out, view, dim=1)

    @pytest.mark.parametrize("config", [None, columns.Config(32, 2, 1)], ids=str)
    def test_infinities_and_nan_are_pytorchs(self, config, device):
        x = peculiar(device).T.contiguous()[None]
        out, theirs = columns.softmax(x, config=config), torch.softmax(x, 1)
        torch.testing.assert_close(out, theirs, equal_nan=True)

    def test_more_programs_than_a_launch_takes(self, device, monkeypatch):
        monkeypatch.setattr(columns, "MOST_PROGRAMS", 3)
        x = torch.randn(5, 4, 20, device=device)
        config = columns.Config(4, 16, 1)
        with testing.guarded():
            assert_right(columns.softmax(x, config=config), x, dim=1)

    def test_what_is_lazily_negated(self, device):
        x = torch.randn(2, 5, 4, dtype=torch.complex64, device=device).conj().imag
        assert x.is_neg()
        assert_right(columns.softmax(x), x.resolve_neg(), dim=1)

    def test_refused(self, device):
        with pytest.raises(ValueError, match="x must have 3 dimensions, got 2"):
            columns.softmax(torch.ones(2, 2, device=device))


def test_a_config_that_leaves_out_part_of_a_row_is_refused(device):
    x = torch.randn(3, 33, device=device)
    walks = (persistent.Config(32, 1, 0, 1), persistent.Config(32, 1, 2, 1))
    for rung, *configs in (
        *((fused, fused.Config(32, 1)), (several, several.Config(4, 32, 1))),
        *((persistent, *walks), (ragged, ragged.Config(16, 1))),
    ):
        for config in configs:
            with pytest.raises(ValueError, match=r"config must cover 3[23] elements"):
                rung.softmax(x, config=config)


class TestResident:
    """What can be told without the hardware; the kernel runs on it alone."""

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: x[:, 1:], "start at a multiple of 16 bytes"),
            (lambda x: x[:, :1021], "a multiple of 16 bytes, got 2042 and 2064"),
            (lambda x: x.view(-1, 1028)[:2], "16 bytes, got 2056 and 2056"),
            (lambda x: x[:1].expand(8, 1032), "got 2064 and 0"),
            (lambda x: x[:, :128], "a row must have 256 to 131072 elements, got 128"),
        ],
    )
    def test_what_can_not_be_taken_is_refused_by_name(self, make, message, device):
        x = make(torch.zeros(257, 1032, dtype=torch.bfloat16, device=device))
        with pytest.raises(ValueError, match=f"x doesn't fit: .*{message}"):
            resident.softmax(x)

    def test_rows_that_are_too_long(self):
        for dtype, most in ((torch.bfloat16, 131072), (torch.float32, 65536)):
            x = torch.empty(2, most, dtype=dtype, device="meta")
            assert resident.refusal(x) is None
            longer = torch.empty(2, most + 8, dtype=dtype, device="meta")
            assert f"to {most} elements" in resident.refusal(longer)
        x = torch.empty(2, 4096, dtype=torch.float64, device="meta")
        assert "of up to 4 bytes, got 8" in resident.refusal(x)

    def test_without_a_copy_engine(self, device):
        if here.has("tma"):
            pytest.skip("there is one")
        with pytest.raises(here.HardwareError, match="tensor memory accelerator"):
            resident.softmax(torch.zeros(2, 1024, device=device))

    def test_rows_that_overlap_are_compiled(self):
        """Sixteen bytes apart: a stride of one vector, of which Triton makes a 1."""
        x = torch.empty(99999, device="meta").unfold(0, 40000, 4)[:3]
        out = torch.empty(3, 40000, device="meta")
        assert resident.refusal(x) is None
        config = resident.config_for(40000, 4)
        ((kernel, given, meta),) = evidence.launches(
            lambda task: resident.launch_as(config, x, out, task)
        )
        assert compile_only.compile(kernel, *given, target="sm_90", **meta).ptx

    @pytest.mark.gpu
    def test_rows_that_overlap(self, device):
        here.require("tma")
        for step in (8, 16, 4096):
            x = torch.randn(99999, dtype=torch.bfloat16, device=device)
            x = x.unfold(0, 40000, step)[:9]
            assert_right(resident.softmax(x), x)

    @pytest.mark.parametrize("itemsize", [2, 4])
    def test_every_row_has_its_place(self, itemsize):
        """Chunks in the ring and in registers cover it, within what there is."""
        step = 16 // itemsize
        for n in (256, 264, 1000, 4096, 8200, 16384, 30000, 50264, 65536):
            config = resident.config_for(n, itemsize)
            ring = min(n // config.chunk, config.slots)
            left = n - ring * config.chunk
            assert 1 <= ring <= config.slots
            assert left <= config.tail * config.chunk
            assert config.tail in (0, 1, 2)
            bytes_ = config.per_sm * config.slots * config.chunk * itemsize
            assert bytes_ <= resident.SHARED
            assert config.chunk % (32 * config.num_warps * step) == 0 or n < 4096
        assert resident.config_for(resident.longest(itemsize), itemsize).tail == 2

    @pytest.mark.gpu
    @pytest.mark.parametrize("dtype", resident.DTYPES, ids=str)
    @pytest.mark.parametrize(
        ("m", "n"),
        [
            *((1, 256), (3, 264), (500, 1000), (1000, 4096), (300, 8200)),
            *((133, 16384), (265, 32768), (200, 50264), (134, 65536)),
            *((300, 100000), (266, 131072)),
        ],
    )
    def test_rows(self, dtype, m, n, device):
        here.require("tma")
        if n > resident.longest(dtype.itemsize):
            pytest.skip("refused, as tested above")
        x = testing.guard(torch.randn(m, n, dtype=dtype, device=device))
        with testing.guarded():
            out = resident.softmax(x.tensor)
        x.check()
        assert_right(out, x.tensor)
        for log in (False, True):
            out = torch.empty_like(x.tensor)
            config = resident.config_for(n, dtype.itemsize)
            resident.launch_as(config, x.tensor, out, Task(1 / 3, log))
            assert_right(out, x.tensor, log=log, temperature=3.0)

    @pytest.mark.gpu
    def test_infinities_nan_and_strides(self, device):
        here.require("tma")
        for n in (8192, 65536):
            x = peculiar(device, n)
            theirs = torch.softmax(x.double(), 1).float()
            torch.testing.assert_close(resident.softmax(x), theirs, equal_nan=True)
        wide = torch.randn(64, 3 * 4096, dtype=torch.float16, device=device)
        view = wide[1::2, 4096:8192]
        assert_right(resident.softmax(view), view)

    @pytest.mark.gpu
    @pytest.mark.parametrize("slots", [2, 3, 8, 14])
    @pytest.mark.parametrize("tail", [0, 1, 2])
    def test_every_way_to_hold_a_row(self, slots, tail, device):
        here.require("tma")
        chunk = 1024
        for ring in {1, min(slots, 2), slots}:
            n = ring * chunk + (tail * chunk - 8 if tail else 0)
            if n // chunk != ring and ring != slots:
                continue
            x = torch.randn(301, n, dtype=torch.bfloat16, device=device)
            for per_sm, lag in ((1, 0), (1, 1), (1, 4), (2, 0), (2, 2)):
                config = resident.Config(chunk, slots, tail, 4, per_sm, lag)
                assert_right(resident.softmax(x, config=config), x)


class TestRefused:
    @pytest.mark.parametrize("rung", chapter.LADDER, ids=name)
    @pytest.mark.parametrize(
        ("x", "error", "message"),
        [
            (1.5, TypeError, "x must be a torch.Tensor, got float"),
            (torch.ones(4), ValueError, "x must have 2 dimensions, got 1"),
            (torch.ones(2, 3).T, ValueError, "neighbours in its rows, got a last str"),
            (torch.ones(2, 2).long(), TypeError, "x must be float32, bfloat16, flo"),
            (torch.ones(2, 2, device="meta"), ValueError, "x must be on .*, got meta"),
        ],
    )
    def test_unfit(self, rung, x, error, message, device):
        if isinstance(x, torch.Tensor) and not x.is_meta:
            x = x.to(device)
        with pytest.raises(error, match=message):
            rung.softmax(x)

    @pytest.mark.parametrize("rung", [fused, several, persistent, ragged], ids=name)
    def test_rows_that_are_too_long(self, rung, device):
        most = several.LONGEST if rung is several else fused.LARGEST
        x = torch.zeros(1, most + 1, device=device)
        with pytest.raises(
            ValueError, match=f"at most {most} elements, got {most + 1}"
        ):
            rung.softmax(x)

    def test_rows_that_start_unevenly(self, device):
        x = torch.zeros(4, 40, dtype=torch.bfloat16, device=device)
        with pytest.raises(ValueError, match="followed by a multiple of 8 elements"):
            ragged.softmax(x[:, :37])
        with pytest.raises(ValueError, match="start at a multiple of 16 bytes"):
            ragged.softmax(x[:, 1:33])


UNSEEN = pytest.mark.skipif(
    not here.interpreting(),
    reason="a stray read that is thrown away: only the interpreter's check sees it",
)
MISTAKES = [
    (fused, 'other=-float("inf")', "other=0"),
    (fused, "x_ptr + row * stride", "x_ptr + row * n"),
    (several, "(rows < m) & (offs < n)", "(offs < n)"),
    (several, "tl.max(x, axis=1)[:, None]", "tl.max(tl.max(x, axis=1))"),
    pytest.param(
        persistent, "mask=inside & (after < m)", "mask=inside", marks=UNSEEN
    ),
    (persistent, "x_ptr + after * stride", "x_ptr + row * stride"),
    (ragged, "lanes < head", "lanes <= head"),
    (ragged, "    total += tl.sum(power(ends - top, inverse_t), axis=0)\n", ""),
    (ragged, "(out_start + W - 1) // W * W", "(out_start + W) // W * W"),
    (online, "last - i if BACK", "last - i - BLOCK if BACK"),
    (online, "tl.minimum(length - i, BLOCK)", "tl.minimum(length, BLOCK)"),
    (online, "        top, total = merged(top, total, ends, inverse_t)\n", ""),
    (split, "top, total = settle(tops, totals, inverse_t)",
     "top, total = tl.max(tops, axis=0), tl.sum(totals, axis=0)"),
    (split, "outside & (part == 0), other", "outside, other"),
    (arithmetic, "total * power(top - higher, inverse_t) + parts",
     "total * power(higher - top, inverse_t) + parts"),
    (arithmetic, "tl.where(difference > 0, total * part + 1, total + part)",
     "tl.where(difference > 0, total + 1, total + part)"),
    (arithmetic, "tl.full(LANES, LOWEST, tl.float32)",
     'tl.full(LANES, -float("inf"), tl.float32)'),
    (arithmetic, "    return best, total * power(top - best, inverse_t) + parts",
     "    return best, total + parts"),
    (arithmetic, "(x - top) * inverse_t - tl.log(total)", "(x - top) - tl.log(total)"),
    (columns, "offs_n < n - i) & (offs_i < inner)\n            x = tl.load(\n"
     "                x_ptr + (i + offs_n) * stride_n + offs_i * stride_i,\n"
     '                mask=mask, other=-float("inf"), eviction',
     "offs_n < n) & (offs_i < inner)\n            x = tl.load(\n"
     "                x_ptr + (i + offs_n) * stride_n + offs_i * stride_i,\n"
     '                mask=mask, other=-float("inf"), eviction'),
    (masked, "tl.where(keep, x", "tl.where(offs < length, x"),
    (masked, "tl.minimum(i_2 + 1, n)", "tl.minimum(i_2, n)"),
]  # fmt: skip


def suite(module, device):
    """What the tests above look at, on a few small cases for one module."""
    # One more than there are programs that walk over rows.
    m = 1 + (here.current().sms or occupancy.PRETENDED)
    x = torch.randn(m, 131, device=device) - 4
    x[0, :70] = -INF
    x[1, 100:] += 200
    wide = (torch.randn(m, 80, device=device) - 4)[:, :76]
    users = {arithmetic: (fused, online, split), ragged: (ragged, online)}
    for way, (rung, _) in WAYS.items():
        if rung in users.get(module, (module,)) and way != "forth":
            for view in (x, wide):
                if applies(way, view) and (module is not arithmetic or view is x):
                    assert_right(run(way, testing.guard(view).tensor), view)
            if applies(way, wide):
                out = run(way, wide[:2], Task(0.5, True))
                assert_right(out, wide[:2], log=True, temperature=2.0)
    if module in (columns, arithmetic):
        z = torch.randn(2, 90, 5, device=device)
        for config in (None, columns.Config(32, 4, 1)):
            with testing.guarded():
                assert_right(columns.softmax(z, config=config), z, dim=1)
    if module is masked:
        z = torch.randn(4, 20, device=device)
        keep = torch.rand(4, 20, device=device) > 0.3
        keep[:, 0] = True
        for block in (32, 16):
            out = torch.empty_like(z)
            masked.launch_as(masked.Config(block, 1), z, keep, out, True)
            assert_right(out, z.masked_fill(~keep.tril(), -INF))


@pytest.mark.parametrize(("module", "old", "new"), MISTAKES, ids=name)
def test_planted_mistakes_are_found(module, old, new, device):
    torch.manual_seed(0)
    assert testing.caught(module, old, new, suite, module, device)


@pytest.mark.parametrize(
    "module",
    [fused, several, persistent, ragged, online, split, arithmetic, columns, masked],
    ids=name,
)
def test_without_a_mistake_the_same_tests_pass(module, device):
    torch.manual_seed(0)
    suite(module, device)


@some_ways
def test_repeats_are_equal(way, device):
    x = torch.randn(3, 150, dtype=torch.bfloat16, device=device)
    testing.deterministic(lambda: run(way, x), 2)


@pytest.mark.gpu
@each_way
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_20_repeats_on_a_gpu(way, dtype, device):
    rung, _ = WAYS[way]
    fits = fused.longest(dtype.itemsize)
    n = several.LONGEST if rung is several else min(16384, fits)
    x = torch.randn(2048, n, dtype=dtype, device=device)
    out = testing.deterministic(lambda: rung.softmax(x))
    assert_right(out, x)


@pytest.mark.gpu
def test_20_repeats_of_resident(device):
    here.require("tma")
    for n in (4096, 32768, 65536, 131072):
        x = torch.randn(2**26 // n, n, dtype=torch.bfloat16, device=device)
        testing.deterministic(lambda x=x: resident.softmax(x))


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize(
    ("rung", "n"),
    [
        *((several, 1024), (fused, 4096), (persistent, 8192), (ragged, 4097)),
        *((online, 50257), (split, 2**22), (resident, 65536), (online, 2**31 + 16)),
        (split, 2**31 + 9),
    ],
    ids=name,
)
def test_more_than_2_to_the_31_elements(rung, n, device):
    if rung is resident:
        here.require("tma")
    m = 1 if n > 2**31 else 2**31 // n + 2
    x = torch.randn(m, n, dtype=torch.bfloat16, device=device)
    if m > 1:
        out = rung.softmax(x)
        for row in (0, m // 2, m - 1):
            assert_right(out[row : row + 1], x[row : row + 1], chunks=100)
        return
    # A row that no float64 copy fits beside: the sum, and a few of its elements.
    x[0, -1] = 20.0
    out = rung.softmax(x)
    total = sum(part.double().exp().sum() for part in x[0].split(2**26))
    for at in (0, 1, 2**31, n - 1):
        assert float(out[0, at]) == pytest.approx(
            float(x[0, at].double().exp() / total), rel=2**-8
        )
