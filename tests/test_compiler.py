"""The compiler: its text against Triton's own, its meaning against float64."""

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from tilebook import compile_only, compiler, testing
from tilebook.compiler import (
    build,
    emit,
    evaluator,
    intrinsics,
    kernels,
    launching,
    text,
    twins,
)
from tilebook.compiler import language as tile
from tilebook.compiler.evaluator import STORED, rounded
from tilebook.compiler.ssa import Place, Value
from tilebook.compiler.text import encode, literal
from tilebook.compiler.types import (
    PROMOTION,
    SCALARS,
    Pointer,
    Tensor,
    bf16,
    f16,
    f32,
    i1,
    i32,
    i64,
)

TARGETS = ("sm_80", "sm_90", "gfx942")
NAMES = ("add", "softmax", "matmul")
TILE = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}
TORCH = {kind: dtype for dtype, kind in launching.DTYPES.items()}
ROUNDING = {f16: 2.0**-11, bf16: 2.0**-8, f32: 2.0**-24}
SMALLEST = {f16: 2.0**-25, bf16: 2.0**-134, f32: 2.0**-150}


def arguments(name, kind):
    """Types and constants of one of the three, by parameter."""
    program = getattr(kernels, name)
    constants = {"BLOCK": 256} if name != "matmul" else TILE
    return {
        parameter: constants.get(parameter)
        or (Pointer(kind) if parameter.endswith("_ptr") else i32)
        for parameter in program.parameters
    }


@pytest.mark.parametrize("symbol", ["&", "|", "^", "+"])
def test_masks_are_counted_only_where_they_are_added(symbol):
    emitter = emit.Emitter(Place(1, 1))
    with emitter.block():
        mask = Value(Tensor(i1, (8,)), "mask")
        found = emitter.binary(symbol, mask, mask)
    assert found.type == Tensor(i32 if symbol == "+" else i1, (8,))


def lowered(name, kind=f16):
    given = arguments(name, kind)
    aligned = [x for x, y in given.items() if not isinstance(y, int)]
    return compiler.lower(getattr(kernels, name), given, aligned)


def operations(ttir):
    """How many operations of each name a module has."""
    return Counter(
        re.findall(r"^\s*(?:%\S+ = )?\"?((?:tt|arith|math|scf)\.\w+)", ttir, re.M)
    )


@pytest.mark.parametrize("kind", [f16, bf16, f32], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_triton_makes_of_it_what_it_makes_of_its_own(name, kind):
    if name == "matmul" and kind != f16:
        pytest.skip("the elements' type changes nothing in a product")
    ours = compiler.compile(lowered(name, kind))
    given = [
        torch.empty(64, dtype=TORCH[kind], device="meta") if isinstance(x, Pointer)
        else 64
        for x in arguments(name, kind).values()
        if not isinstance(x, int)
    ]  # fmt: skip
    constants = {"BLOCK": 256} if name != "matmul" else TILE
    twin = getattr(twins, f"{name}_kernel")
    theirs = compile_only.compile(twin, *given, **constants)
    assert operations(ours.ttir) == operations(theirs.ttir)
    assert sum(operations(ours.ttir).values()) > 10
    assert ours.evidence.line() == theirs.evidence.line()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NAMES)
def test_it_compiles_for_every_target(name, target):
    evidence = compiler.compile(lowered(name), target).evidence
    unit = {"sm_80": "mma.sync", "sm_90": "wgmma", "gfx942": "mfma"}[target]
    assert set(evidence.mma) == ({unit} if name == "matmul" else set())
    assert evidence.spill_store_bytes == 0
    # Parameters that are multiples of 16 and one mask for 8 of them: wide loads.
    if name == "add" and target != "gfx942":
        assert evidence.global_loads == {32: 2}


def test_triton_keeps_the_places():
    asm = compiler.compile(lowered("add")).asm
    lines = Path(kernels.__file__).read_text(encoding="utf-8").splitlines()
    (line,) = (number for number, text in enumerate(lines, 1) if "x + y" in text)
    assert f'kernels.py":{line}:' in asm["ttir"]
    assert re.search(rf"\.loc\s+1 {line} ", asm["ptx"])


def test_text_that_is_no_ttir_is_refused(capfd):
    source = compiler.ttir(lowered("add")).replace("arith.addf", "arith.addi")
    request = launching._ship.dumps(
        ("add", source, launching.signature(lowered("add")), ("cuda", 90, 32), {})
    )
    with pytest.raises(RuntimeError):
        launching._worker.call(
            "compiled", "tilebook.compiler.launching:compile_request", request
        )


# What the programs mean, by evaluation.


def within(found, exact, bound):
    error = np.abs(found.astype(np.float64) - exact)
    assert (error <= bound).all(), f"{(error / bound).max()} times the bound"


@pytest.mark.parametrize("kind", [f16, bf16, f32, i32], ids=str)
@pytest.mark.parametrize("n", [0, 1, 255, 256, 700])
def test_sums_of_vectors(kind, n):
    rng = np.random.default_rng(n)
    x, y = (rounded(rng.normal(size=n) * 100, kind) for _ in range(2))
    out = np.full(n + 9, 77, STORED[kind])
    compiler.evaluate(lowered("add", kind), (3,), x, y, out, n)
    exact = x.astype(np.float64) + y.astype(np.float64)
    # One rounding; of bf16 one to float32 before.
    step = ROUNDING.get(kind, 0.0)
    within(out[:n], exact, np.abs(exact) * step * (1 + 2.0**-14))
    assert (out[n:] == 77).all()


@pytest.mark.parametrize("kind", [f16, bf16, f32], ids=str)
@pytest.mark.parametrize("n", [1, 31, 200, 256])
def test_softmax_of_rows(kind, n):
    rng = np.random.default_rng(n)
    x = rounded(rng.normal(size=(5, n + 3)) * 4, kind)
    out = np.full((5, n + 2), 77, STORED[kind])
    compiler.evaluate(lowered("softmax", kind), (5,), x, out, n, n + 3, n + 2)
    wide = x[:, :n].astype(np.float64)
    shift = wide - wide.max(1, keepdims=True)
    exact = np.exp(shift) / np.exp(shift).sum(1, keepdims=True)
    # The difference's rounding in the exponent, NumPy's exp to two units, a sum by
    # halves with the exps' errors in it, a quotient; then the rounding at the end.
    unit = 2.0**-24
    relative = unit * (2 * np.abs(shift).max() + 8 + math.log2(256) + 2)
    step = ROUNDING[kind]
    within(out[:, :n], exact, exact * (relative + step) * 1.01 + SMALLEST[kind])
    assert (out[:, n:] == 77).all()


@pytest.mark.parametrize(
    ("m", "n", "k"), [(64, 64, 64), (70, 33, 50), (1, 1, 1), (3, 65, 0), (65, 5, 97)]
)
@pytest.mark.parametrize("kind", [f16, bf16, f32], ids=str)
def test_products(kind, m, n, k):
    rng = np.random.default_rng(m + n + k)
    a, b = (rounded(rng.normal(size=x), kind) for x in ((m, k + 1), (k, n + 2)))
    out = np.full((m, n + 3), 77, STORED[kind])
    grid = (-(-m // 64), -(-n // 64))
    function = lowered("matmul", kind)
    compiler.evaluate(function, grid, a, b, out, m, n, k, k + 1, n + 2, n + 3)
    left, right = a[:, :k].astype(np.float64), b[:, :n].astype(np.float64)
    exact, size = left @ right, np.abs(left) @ np.abs(right)
    # A rounding to float32 for each block of terms, then one at the end.
    blocks = -(-k // 32) + 1
    bound = size * blocks * 2.0**-24 + np.abs(exact) * ROUNDING[kind] + SMALLEST[kind]
    within(out[:, :n], exact, bound * 1.01)
    assert (out[:, n:] == 77).all()


def test_a_read_outside_is_an_error_with_its_line():
    x, out = np.zeros(699, np.float32), np.zeros(700, np.float32)
    with pytest.raises(IndexError, match=r"kernels.py:12:9: .*699 of x_ptr") as caught:
        compiler.evaluate(lowered("add", f32), (3,), x, out, out, 700)
    assert "program (2, 0, 0)" in str(caught.value)
    with pytest.raises(IndexError, match=r"kernels.py:14:5: .* of out_ptr"):
        compiler.evaluate(lowered("add", f32), (3,), out, out, x, 700)
    with pytest.raises(TypeError, match="x_ptr must be contiguous, of f16"):
        compiler.evaluate(lowered("add", f16), (3,), x, x, x, 3)


# Single operations.


@compiler.program
def either(a, b, out_ptr):
    tile.store(out_ptr, a + b)


@pytest.mark.parametrize("a", SCALARS.values(), ids=str)
def test_promotion_is_the_tables_and_triton_takes_it(a):
    for b in SCALARS.values():
        to = PROMOTION[a, b]
        assert PROMOTION[b, a] == to
        given = {"a": a, "b": b, "out_ptr": Pointer(to)}
        function = compiler.lower(either, given)
        # No cast behind the sum: it is of the type that is stored.
        assert function.body.ops[-3].name == ("arith.addf" if to.floating else
                                              "arith.addi")  # fmt: skip
        out = rounded([9], to)
        compiler.evaluate(function, (1,), 1, 1, out)
        assert out == 2
        launching.verified(function)


@compiler.program
def arithmetic(x_ptr, y_ptr, out_ptr, BLOCK):
    offs = tile.arange(0, BLOCK)
    x = tile.load(x_ptr + offs)
    y = tile.load(y_ptr + offs)
    tile.store(out_ptr + offs, x // y)
    tile.store(out_ptr + offs + BLOCK, x % y)
    tile.store(out_ptr + offs + 2 * BLOCK, ~x ^ (y | 3))
    tile.store(out_ptr + offs + 3 * BLOCK, tile.where(~(x < y), -x, x - y))
    tile.store(out_ptr + offs + 4 * BLOCK, (x != y) + (x == y) + -7 // 2)
    tile.store(out_ptr + offs + 5 * BLOCK, (x / y * 3).to(tile.i32) + (x >= y))


def test_integers():
    given = dict.fromkeys(("x_ptr", "y_ptr", "out_ptr"), Pointer(i32))
    function = compiler.lower(arithmetic, given | {"BLOCK": 8})
    x = np.array([7, -7, 7, -7, 0, 1, 2**31 - 1, 6], np.int32)
    y = np.array([2, 2, -2, -2, 5, 1, 3, -6], np.int32)
    out = np.full((6, 8), 99, np.int32)
    compiler.evaluate(function, (1,), x, y, out)
    assert out[0].tolist() == [3, -3, -3, 3, 0, 1, 715827882, -1]
    assert out[1].tolist() == [1, -1, 1, -1, 0, 0, 1, 0]
    assert (out[2] == ~x ^ (y | 3)).all()
    assert (out[3] == np.where(x >= y, -x, x - y)).all()
    assert (out[4] == 1 - 3).all()
    quotient = x[:6].astype(np.float32) / y[:6].astype(np.float32) * 3
    assert (out[5, :6] == np.trunc(quotient).astype(np.int32) + (x >= y)[:6])[
        [0, 1, 4, 5]
    ].all()
    compiler.compile(function)


def test_the_least_number_is_divided_as_hardware_does():
    given = dict.fromkeys(("x_ptr", "y_ptr", "out_ptr"), Pointer(i32))
    function = compiler.lower(arithmetic, given | {"BLOCK": 8})
    least = -(2**31)
    x = np.array([least, least, least, 5, -5, least, 2**31 - 1, -1], np.int32)
    y = np.array([2, 3, -3, least, least, least, least, 3], np.int32)
    out = np.empty((6, 8), np.int32)
    compiler.evaluate(function, (1,), x, y, out)
    exact = [abs(int(a)) // abs(int(b)) for a, b in zip(x, y, strict=True)]
    exact = [
        e if (a < 0) == (b < 0) else -e for e, a, b in zip(exact, x, y, strict=True)
    ]
    assert out[0].tolist() == exact
    assert out[1].tolist() == [
        int(a) - int(b) * e for a, b, e in zip(x, y, exact, strict=True)
    ]


@compiler.program
def größe(größe_ptr, BLOCK):
    größe = tile.maximum(tile.inf - tile.inf, 1.0)
    tile.store(größe_ptr + tile.arange(0, BLOCK), tile.zeros(BLOCK, tile.f32) + größe)


def test_names_in_any_letters_and_a_number_rather_than_none():
    function = compiler.lower(größe, {"größe_ptr": Pointer(f32), "BLOCK": 8})
    out = np.zeros(8, np.float32)
    compiler.evaluate(function, (1,), out)
    assert (out == 1).all()
    assert compiler.compile(function).evidence.instructions


@compiler.program
def functions(x_ptr, out_ptr, BLOCK):
    offs = tile.arange(0, BLOCK)
    x = tile.load(x_ptr + offs)
    tile.store(out_ptr + offs, -x)
    tile.store(out_ptr + BLOCK + offs, tile.exp2(x))
    tile.store(out_ptr + 2 * BLOCK + offs, tile.log(x))
    tile.store(out_ptr + 3 * BLOCK + offs, tile.sqrt(x))
    tile.store(out_ptr + 4 * BLOCK + offs, tile.maximum(x, 0.5))
    tile.store(out_ptr + 5 * BLOCK + offs, tile.minimum(tile.inf, x))
    tile.store(out_ptr + 6 * BLOCK + offs, x != x)
    tile.store(out_ptr + 7 * BLOCK + offs, x.to(tile.f16).to(tile.bf16))


def test_floating_point():
    given = {"x_ptr": Pointer(f32), "out_ptr": Pointer(f32), "BLOCK": 8}
    function = compiler.lower(functions, given)
    x = np.array([0, -0.0, 1, 4, np.nan, np.inf, -1, 1.01], np.float32)
    out = np.full((8, 8), 99, np.float32)
    compiler.evaluate(function, (1,), x, out)
    with np.errstate(all="ignore"):
        exact = [-x, np.exp2(x), np.log(x), np.sqrt(x), np.fmax(x, 0.5)]
    exact += [np.fmin(x, np.inf), np.isnan(x)]
    np.testing.assert_array_equal(out[:7], np.array(exact, np.float32))
    assert np.signbit(out[0, 0])
    assert not np.signbit(out[0, 1])
    assert out[7, 7] == 1.0078125
    compiler.compile(function)


@compiler.program
def loops(x_ptr, out_ptr, rounds, BLOCK):
    offs = tile.arange(0, BLOCK)
    total = tile.zeros(BLOCK, tile.f32)
    count = 0
    largest = -tile.inf
    for i in range(rounds):
        row = tile.load(x_ptr + i * BLOCK + offs)
        for _ in range(1, 6, 2):
            total += row
            count = count + 1
        largest = tile.maximum(largest, tile.max(row))
    tile.store(out_ptr + offs, total)
    tile.store(out_ptr + BLOCK, count)
    tile.store(out_ptr + BLOCK + 1, largest)


@pytest.mark.parametrize("rounds", [0, 1, 5])
def test_loops_carry_what_they_change(rounds):
    given = {"x_ptr": Pointer(f32), "out_ptr": Pointer(f32), "rounds": i32, "BLOCK": 4}
    function = compiler.lower(loops, given)
    outer, inner = (op for op in function.walk() if op.name == "scf.for")
    assert [x.name for x in outer.results] == ["total", "count", "largest"]
    assert [x.name for x in inner.results] == ["total", "count"]
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    out = np.full(6, 99, np.float32)
    compiler.evaluate(function, (1,), x, out, rounds)
    np.testing.assert_allclose(out[:4], 3 * x[:rounds].sum(0), atol=15 * 2.0**-21)
    assert out[4] == 3 * rounds
    assert out[5] == max(x[:rounds].max(initial=-np.inf), -np.inf)
    launching.verified(function)


@compiler.program
def axes(x_ptr, out_ptr, ROWS, COLUMNS):
    rows = tile.arange(0, ROWS)
    columns = tile.arange(0, COLUMNS)
    x = tile.load(x_ptr + rows[:, None] * COLUMNS + columns)
    tile.store(out_ptr + columns, tile.sum(x, axis=0))
    tile.store(out_ptr + COLUMNS + rows, tile.max(x, axis=1))
    count = tile.sum(tile.sum(x > 0, axis=1))
    where = tile.program_id(2) * tile.num_programs(1)
    tile.store(out_ptr + COLUMNS + ROWS + where, count)


@pytest.mark.parametrize("kind", [f16, f32], ids=str)
def test_reductions_along_either_axis(kind):
    pointers = {"x_ptr": Pointer(kind), "out_ptr": Pointer(f32)}
    function = compiler.lower(axes, pointers | {"ROWS": 4, "COLUMNS": 8})
    x = rounded(np.random.default_rng(0).normal(size=(4, 8)), kind)
    out = np.full(12 + 7, 99, np.float32)
    compiler.evaluate(function, (1, 3, 2), x, out)
    np.testing.assert_allclose(out[:8], x.astype(float).sum(0), atol=2.0**-20)
    assert (out[8:12] == x.max(1)).all()
    assert (out[[12, 15]] == (x > 0).sum()).all()
    assert (out[[13, 14, 16]] == 99).all()
    launching.verified(function)


@pytest.mark.parametrize("kind", [f16, bf16, f32], ids=str)
def test_numbers_are_written_as_they_are_rounded(kind):
    dtype = TORCH[kind]
    rng = np.random.default_rng(0)
    drawn = [*(10.0 ** rng.uniform(-9, 9, 200)), 0.0, -0.0, 1e-40, math.inf, 3e38]
    for x in [*drawn, -math.inf, math.nan, 0.1, 1 + 2.0**-8, 1 + 3 * 2.0**-8]:
        told = torch.tensor(x, dtype=torch.float32).to(dtype)
        _, held = encode(float(np.float32(x)), kind)
        assert told.double().item() == held or math.isnan(x)
    assert literal(-math.inf, f16) == "0xFC00"
    assert literal(1.0, Tensor(f32, (8,))) == "dense<1.000000e+00>"
    assert literal(1, i1) == "true"
    assert literal(-5, i64) == "-5"


# Planted mistakes.

MISTAKES = [
    (emit, "whole if (a < 0) == (b < 0)", "whole if True"),
    (emit, '"arith.extf" if old.bits < to.bits', '"arith.extf" if old.bits > to.bits'),
    (emit, '"arith.uitofp" if old == i1', '"arith.sitofp" if old == i1'),
    (emit, '"arith.extui" if old == i1', '"arith.extsi" if old == i1'),
    (emit, "x = self.expand(x, 0)", "x = self.expand(x, 1)"),
    (emit, "sides.insert(axis, 1)", "sides.insert(0, 1)"),
    (emit, "else types.PROMOTION[pair]", "else pair[0]"),
    (emit, "-0.0 if floating else 0", "0.0 if floating else 0"),
    (emit, "kind == i1 or -1", "kind == i1 or 1"),
    (emit, "COMPARISONS[symbol][kind.floating]", "COMPARISONS[symbol][False]"),
    (build, "dict(zip(carried, results, strict=True))",
     "dict(zip(carried, before, strict=True))"),
    (build, "outer | dict(zip(carried, inside, strict=True))", "dict(outer)"),
    (build, "(0, given[0], 1) if", "(1, given[0], 1) if"),
    (intrinsics, "sides[:axis] + sides[axis + 1 :]", "sides[axis:]"),
    (intrinsics, "{f16: f32, bf16: f32, i1: i32}", "{i1: i32}"),
    (intrinsics, "{f16: f32, bf16: f32, i1: i32}", "{f16: f32, bf16: f32}"),
    (intrinsics, "other = emit.constant(other,", "other = emit.constant(0,"),
    (intrinsics, "masks = () if mask is None", "masks = () if True"),
    (intrinsics, '"tt.dot", a, b, acc', '"tt.dot", a, b, emit.constant(0.0, kind)'),
    (text, "bits += 0x7FFF + (bits >> 16 & 1)", "bits += 0x8000"),
    (text, "value.name in function.aligned", "value.name not in function.aligned"),
    (text, "{place.line}:{place.column}", "{place.column}:{place.line}"),
    (text, "{number}", "0"),
    (evaluator, "np.any(wrong & mask)", "np.any(wrong)"),
    (evaluator, "np.trunc(given[0])", "np.floor(given[0])"),
    (evaluator, "self.inside(op, at, mask)[mask]] = x[mask]",
     "self.inside(op, at, mask)] = x"),
]  # fmt: skip


def everything():
    """Of each kind of check one or two, those that compile last."""
    for n in (0, 700):
        test_sums_of_vectors(f16, n)
    test_softmax_of_rows(f16, 31)
    test_products(f16, 70, 33, 50)
    test_numbers_are_written_as_they_are_rounded(bf16)
    test_reductions_along_either_axis(f16)
    test_loops_carry_what_they_change(5)
    for kind in (i1, i32, f16):
        test_promotion_is_the_tables_and_triton_takes_it(kind)
    test_integers()
    test_floating_point()
    test_it_compiles_for_every_target("add", "sm_90")
    test_triton_keeps_the_places()


def test_without_a_mistake_all_is_well():
    everything()


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        pytest.param(*each, id=f"{each[0].__name__.rpartition('.')[2]}-{i}")
        for i, each in enumerate(MISTAKES)
    ],
)
def test_each_mistake_is_noticed(module, old, new, capfd):
    wrong = (
        AssertionError,
        IndexError,
        RuntimeError,
        ValueError,
        compiler.CompileError,
    )
    with testing.mutated_module(module, old, new), pytest.raises(wrong):
        everything()


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n", [1000, 4096])
def test_it_runs_on_a_gpu(dtype, n):
    x, y = torch.randn(2, n, device="cuda", dtype=dtype)
    out = torch.full((n + 8,), 77, device="cuda", dtype=dtype)
    compiler.launch(kernels.add, (-(-n // 256),), x, y, out, n, BLOCK=256)
    assert torch.equal(out[:n], x + y)
    assert (out[n:] == 77).all()

    x = torch.randn(70, n, device="cuda", dtype=dtype)
    out = torch.empty_like(x)
    compiler.launch(kernels.softmax, (70,), x, out, n, n, n, BLOCK=4096)
    exact = x.double().softmax(1)
    step = torch.finfo(dtype).eps / 2
    relative = step + 2.0**-24 * (2 * 12 + 8 + 12 + 4)
    floor = 2.0**-25 if dtype == torch.float16 else 2.0**-126
    assert ((out.double() - exact).abs() <= exact * relative * 1.01 + floor).all()

    m, k = 100, 333
    a = torch.randn(m, k, device="cuda", dtype=dtype)
    b = torch.randn(k, n, device="cuda", dtype=dtype)
    out = torch.empty(m, n, device="cuda", dtype=dtype)
    grid = (-(-m // 64), -(-n // 64))
    compiler.launch(kernels.matmul, grid, a, b, out, m, n, k, k, n, n, **TILE)
    exact, size = a.double() @ b.double(), a.double().abs() @ b.double().abs()
    # Sums of float32 in any order, and tensor cores may cut rather than round.
    bound = size * k * 2.0**-23 + exact.abs() * step + 2.0**-25
    assert ((out.double() - exact).abs() <= bound * 1.01).all()


def test_launch_checks_its_arguments():
    x = torch.zeros(8)
    with pytest.raises(TypeError, match="add takes x_ptr, y_ptr, out_ptr, n beside"):
        compiler.launch(kernels.add, (1,), x, x, x, BLOCK=8)
    with pytest.raises(TypeError, match=r"x_ptr can't be passed .* torch.float64"):
        compiler.launch(kernels.add, (1,), x.double(), x, x, 8, BLOCK=8)
    with pytest.raises(TypeError, match="n can't be passed to a program: str"):
        compiler.launch(kernels.add, (1,), x, x, x, "8", BLOCK=8)
    with pytest.raises(ValueError, match="grid must have one to three sides"):
        compiler.launch(kernels.add, (), x, x, x, 8, BLOCK=8)
    with pytest.raises(ValueError, match=r"needs a GPU|must be on cuda"):
        compiler.launch(kernels.add, (1,), x, x, x, 8, BLOCK=8)
    compiler.launch(kernels.add, (0,), x, x, x, 0, BLOCK=8)
    assert launching.kind_of("n", 2**31) == i64
    assert launching.kind_of("n", True) == i1
    assert launching.kind_of("n", -(2**31)) == i32
