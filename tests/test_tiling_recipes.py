"""Each recipe does with whole tiles what the indexing would have done."""

from unittest import mock

import pytest
import torch
import triton
import triton.language as tl

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.tiling import recipes

N = 16
M = 8


@triton.jit
def vector_kernel(x_ptr, out_ptr, i, HOW: tl.constexpr, N: tl.constexpr):
    offs = tl.arange(0, N)
    x = tl.load(x_ptr + offs)
    if HOW == "element":
        # Of the type of x: what is wider would not fit the pointer's.
        tl.static_assert(recipes.element(x, i).dtype == x.dtype)
        tl.store(out_ptr + offs, tl.where(offs >= 0, recipes.element(x, i), x))
    elif HOW == "with_element":
        placed = recipes.with_element(x, i, recipes.element(x, 0).to(tl.float32))
        tl.static_assert(placed.dtype == x.dtype)
        tl.store(out_ptr + offs, placed)
    elif HOW == "evens_and_odds":
        even, odd = recipes.evens_and_odds(x)
        tl.store(out_ptr + tl.arange(0, N // 2), even)
        tl.store(out_ptr + N // 2 + tl.arange(0, N // 2), odd)
    elif HOW == "interleaved":
        low, high = recipes.halves(x)
        tl.store(out_ptr + offs, recipes.interleaved(low, high))
    elif HOW == "halves":
        low, high = recipes.halves(x)
        tl.store(out_ptr + tl.arange(0, N // 2), high)
        tl.store(out_ptr + N // 2 + tl.arange(0, N // 2), low)
    elif HOW == "concatenated":
        low, high = recipes.halves(x)
        tl.store(out_ptr + offs, recipes.concatenated(high, low))
    elif HOW == "quarter":
        part: tl.constexpr = N // 4
        offs = tl.arange(0, part)
        tl.store(out_ptr + offs, recipes.quarter(x, 3))
        tl.store(out_ptr + part + offs, recipes.quarter(x, 2))
        tl.store(out_ptr + 2 * part + offs, recipes.quarter(x, 1))
        tl.store(out_ptr + 3 * part + offs, recipes.quarter(x, 0))
    elif HOW == "reversed":
        tl.store(out_ptr + offs, recipes.reversed_(x))
    elif HOW == "rolled":
        tl.store(out_ptr + offs, recipes.rolled(x, i))


@triton.jit
def matrix_kernel(x_ptr, row_ptr, column_ptr, i, j, M: tl.constexpr, N: tl.constexpr):
    offs_m, offs_n = tl.arange(0, M), tl.arange(0, N)
    x = tl.load(x_ptr + offs_m[:, None] * N + offs_n[None, :])
    tl.store(row_ptr + offs_n, recipes.row(x, i))
    tl.store(column_ptr + offs_m, recipes.column(x, j))


def swapped(x):
    half = len(x) // 2
    return torch.cat([x[half:], x[:half]])


def placed(x, i):
    out = x.clone()
    out[i] = x[0]
    return out


INDEXED = {
    "element": lambda x, i: x[i].expand(len(x)),
    "with_element": placed,
    "evens_and_odds": lambda x, i: torch.cat([x[0::2], x[1::2]]),
    "interleaved": lambda x, i: x.view(2, -1).t().flatten(),
    "halves": lambda x, i: swapped(x),
    "concatenated": lambda x, i: swapped(x),
    "quarter": lambda x, i: x.view(4, -1).flip(0).flatten(),
    "reversed": lambda x, i: x.flip(0),
    "rolled": lambda x, i: x.roll(i),
}
WIDE = (torch.float64, torch.int64)
DTYPES = (torch.float32, torch.bfloat16, torch.int32, torch.int8, torch.uint8, *WIDE)


def made(n, dtype, device):
    if not dtype.is_floating_point:
        low = 100 if dtype == torch.uint8 else -100
        return torch.randint(low, low + 150, (n,), device=device).to(dtype)
    return torch.randn(n, device=device).to(dtype)


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("how", "dtype"),
    [(how, dtype) for how in INDEXED for dtype in DTYPES if dtype.itemsize != 8]
    # What sums, and so might widen or round.
    + [(how, dtype) for how in ("element", "with_element") for dtype in WIDE],
    ids=str,
)
def test_vectors(how, dtype, device):
    # Only some name an element.
    cases = [(N, 5), (64, 17)]
    if how in ("element", "with_element", "rolled"):
        cases += [(N, 0), (N, N - 1)] + [(N, -3)] * (how == "rolled")
    for n, i in cases:
        x = made(n, dtype, device)
        out = testing.guard(torch.empty_like(x))
        vector_kernel[(1,)](x, out.tensor, i, HOW=how, N=n)
        out.check()
        assert torch.equal(out.tensor, INDEXED[how](x, i).contiguous()), (n, i)


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matrices(dtype, device):
    x = made(M * N, dtype, device).view(M, N)
    for i, j in ((0, 0), (3, 11), (M - 1, N - 1)):
        row, column = torch.empty_like(x[0]), torch.empty(M, dtype=dtype, device=device)
        matrix_kernel[(1,)](x, row, column, i, j, M=M, N=N)
        assert torch.equal(row, x[i])
        assert torch.equal(column, x[:, j].contiguous())


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_selected_does_not_leak(value, device):
    x = torch.full((N,), value, device=device)
    x[3] = 2.5
    out = torch.empty_like(x)
    vector_kernel[(1,)](x, out, 3, HOW="element", N=N)
    assert bool((out == 2.5).all())


def test_an_index_outside_selects_nothing(device):
    x, out = made(N, torch.float32, device), torch.empty(N, device=device)
    vector_kernel[(1,)](x, out, N, HOW="element", N=N)
    assert not out.any()


MISTAKES = [
    ("element", "these.\n    return tl.sum(tl.where(offs == i",
     "these.\n    return tl.sum(tl.where(offs >= i"),
    ("halves", "tl.split(tl.trans(tl.reshape(x, (2, n))))",
     "tl.split(tl.reshape(x, (n, 2)))"),
    ("concatenated", "tl.reshape(tl.trans(tl.join(a, b)), (n,))",
     "tl.reshape(tl.join(a, b), (n,))"),
    ("quarter", "if i % 2 == 1:", "if i % 2 == 0:"),
    ("reversed", "n - 1 - tl.arange(0, n), axis=0", "tl.arange(0, n), axis=0"),
    ("rolled", "+ n - shift % n) % n", "+ shift % n) % n"),
    ("with_element", "tl.cast(value, x.dtype), x)", "x, tl.cast(value, x.dtype))"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "old", "new"), MISTAKES, ids=lambda x: x[:12])
def test_planted_mistakes_are_found(how, old, new, device):
    if here.interpreting():
        name = "reversed_" if how == "reversed" else how
        edited = {"planted": (old, new)}
        ((_, mutant),) = testing.mutants(getattr(recipes, name), edited)
        mistake = mock.patch.object(recipes, name, mutant)
    else:
        # Kernels that inline a helper have to be compiled again.
        mistake = testing.mutated_module(recipes, old, new)
    with mistake, pytest.raises(AssertionError):
        test_vectors(how, torch.float32, device)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_compiles_everywhere(target):
    hows = ("halves", "concatenated", "interleaved") if target == "sm_90" else ()
    hows += ("quarter", "reversed", "element")
    for how in hows:
        x = torch.empty(1024, device="meta")
        artefact = compile_only.compile(
            vector_kernel, x, x, 3, HOW=how, N=1024, target=target
        )
        assert artefact.evidence.spill_store_bytes == 0


def test_what_a_tile_refuses():
    """The helpers would be of no use if Triton indexed tiles."""
    x = torch.empty(N, device="meta")
    with pytest.raises(triton.CompilationError):
        compile_only.compile(indexing_kernel, x, x, N=N)


def test_there_are_four_quarters():
    x = torch.empty(N, device="meta")
    with pytest.raises(triton.CompilationError):
        compile_only.compile(fifth_kernel, x, x, N=N)


@triton.jit
def fifth_kernel(x_ptr, out_ptr, N: tl.constexpr):
    part = recipes.quarter(tl.load(x_ptr + tl.arange(0, N)), 4)
    tl.store(out_ptr + tl.arange(0, N // 4), part)


@triton.jit
def indexing_kernel(x_ptr, out_ptr, N: tl.constexpr):
    x = tl.load(x_ptr + tl.arange(0, N))
    tl.store(out_ptr, x[3])
