"""Where Triton's arithmetic is not PyTorch's: small kernels, and a table of each.

Every table comes from running the kernels here and now, compiled or interpreted.
"""

import itertools
import math
from collections.abc import Iterable, Sequence

import pandas as pd
import torch
import triton
import triton.language as tl

from tilebook import device

BLOCK = 16

TYPES = {
    torch.uint8: tl.uint8,
    torch.int8: tl.int8,
    torch.int16: tl.int16,
    torch.int32: tl.int32,
    torch.int64: tl.int64,
    torch.float16: tl.float16,
    torch.bfloat16: tl.bfloat16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}


def _tile(values: Iterable, dtype: torch.dtype) -> torch.Tensor:
    """Put values into a tensor of BLOCK elements, ones after them."""
    values = list(values)
    padded = values + [1] * (BLOCK - len(values))
    return torch.tensor(padded, dtype=dtype).to(device.torch_device())


@triton.jit
def division_kernel(a_ptr, b_ptr, quotient_ptr, rest_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    a = tl.load(a_ptr + offs)
    b = tl.load(b_ptr + offs)
    tl.store(quotient_ptr + offs, a // b)
    tl.store(rest_ptr + offs, a % b)


def division(
    pairs: Sequence[tuple[int, int]] = ((7, 2), (-7, 2), (7, -2), (-7, -2), (-1, 4)),
) -> pd.DataFrame:
    """Divide integers: Triton cuts towards zero as C does, PyTorch rounds down.

    Args:
        pairs: up to `BLOCK` dividends and divisors that fit an int32.

    Returns:
        One row per pair: "a", "b", then "triton //" and "torch //", "triton %" and
        "torch %", and whether they "agree".
    """
    a, b = (_tile(side, torch.int32) for side in zip(*pairs, strict=True))
    quotient, rest = torch.empty_like(a), torch.empty_like(a)
    division_kernel[(1,)](a, b, quotient, rest, BLOCK=BLOCK)
    columns = {
        "a": a,
        "b": b,
        "triton //": quotient,
        "torch //": a // b,
        "triton %": rest,
        "torch %": a % b,
    }
    frame = pd.DataFrame({k: v[: len(pairs)].tolist() for k, v in columns.items()})
    frame["agree"] = (frame["triton //"] == frame["torch //"]) & (
        frame["triton %"] == frame["torch %"]
    )
    return frame


@triton.jit
def sum_type_kernel(x_ptr, y_ptr, code_ptr, TYPES: tl.constexpr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    total = tl.load(x_ptr + offs) + tl.load(y_ptr + offs)
    # A tile's type is known while compiling: these branches cost nothing.
    for i in tl.static_range(len(TYPES)):
        if total.dtype == TYPES[i]:
            tl.store(code_ptr, i)


def promotion(dtypes: Sequence[torch.dtype] = tuple(TYPES)) -> pd.DataFrame:
    """Add tiles of two types: of which type is the sum?

    Args:
        dtypes: the types to pair with each other, keys of `TYPES`.

    Returns:
        One row per unordered pair: "a", "b", "triton" and "torch", the names of the
        sum's types, and whether they "agree".
    """
    rows = []
    code = torch.empty(1, dtype=torch.int32, device=device.torch_device())
    for a, b in itertools.combinations_with_replacement(dtypes, 2):
        code.fill_(-1)
        x, y = _tile([], a), _tile([], b)
        sum_type_kernel[(1,)](x, y, code, TYPES=tuple(TYPES.values()), BLOCK=BLOCK)
        names = [a, b, list(TYPES)[code.item()], torch.promote_types(a, b)]
        rows.append([str(name).removeprefix("torch.") for name in names])
    frame = pd.DataFrame(rows, columns=["a", "b", "triton", "torch"])
    frame["agree"] = frame["triton"] == frame["torch"]
    return frame


@triton.jit
def cast_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    tl.store(out_ptr + offs, x.to(out_ptr.dtype.element_ty))


def casting(
    values: Sequence[float] = (2.9, -2.9, 300.0, -1.0, 3e9, math.inf, math.nan),
    dtypes: Sequence[torch.dtype] = (torch.uint8, torch.int8, torch.int32),
) -> pd.DataFrame:
    """Cast floats to integers that can't hold them: no rule, and no two alike.

    Args:
        values: up to `BLOCK` numbers, taken as float32.
        dtypes: integer types to cast to.

    Returns:
        One row per value and type: "value", "to", "triton", "torch" on the same
        device, whether the value is in range, so that both are "defined", and whether
        they "agree".
    """
    rows = []
    for dtype in dtypes:
        x = _tile(values, torch.float32)
        out = torch.empty_like(x, dtype=dtype)
        cast_kernel[(1,)](x, out, BLOCK=BLOCK)
        limits = torch.iinfo(dtype)
        for value, ours, theirs in zip(values, out, x.to(dtype), strict=False):
            defined = (
                math.isfinite(value) and limits.min <= math.trunc(value) <= limits.max
            )
            name = str(dtype).removeprefix("torch.")
            rows.append([value, name, ours.item(), theirs.item(), defined])
    frame = pd.DataFrame(rows, columns=["value", "to", "triton", "torch", "defined"])
    frame["agree"] = frame["triton"] == frame["torch"]
    return frame


@triton.jit
def extremes_kernel(a_ptr, b_ptr, plain_ptr, strict_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    a = tl.load(a_ptr + offs)
    b = tl.load(b_ptr + offs)
    tl.store(plain_ptr + offs, tl.maximum(a, b))
    strict = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    tl.store(strict_ptr + offs, strict)


@triton.jit
def reduced_kernel(a_ptr, out_ptr, BLOCK: tl.constexpr):
    a = tl.load(a_ptr + tl.arange(0, BLOCK))
    tl.store(out_ptr, tl.max(a, axis=0))


def extremes() -> pd.DataFrame:
    """Take the larger of a number and a NaN: Triton drops the NaN unless told.

    Returns:
        One row per pair: "a", "b", "tl.maximum", "propagate_nan=ALL",
        "torch.maximum", "torch.fmax"; and one for the maximum of a whole tile that
        holds a NaN, where "b" is None.
    """
    nan = math.nan
    pairs = [(1.0, 2.0), (1.0, nan), (nan, 1.0), (nan, nan)]
    a, b = (_tile(side, torch.float32) for side in zip(*pairs, strict=True))
    plain, strict = torch.empty_like(a), torch.empty_like(a)
    extremes_kernel[(1,)](a, b, plain, strict, BLOCK=BLOCK)
    columns = {
        "a": a,
        "b": b,
        "tl.maximum": plain,
        "propagate_nan=ALL": strict,
        "torch.maximum": torch.maximum(a, b),
        "torch.fmax": torch.fmax(a, b),
    }
    return pd.DataFrame({k: v[: len(pairs)].tolist() for k, v in columns.items()})


@triton.jit
def literal_kernel(out_ptr, n, A: tl.constexpr, B: tl.constexpr):
    # Two constants: Python divides, while compiling.
    tl.store(out_ptr, A // B)
    # A constant and a tile, or an argument that isn't one: the GPU divides.
    tl.store(out_ptr + 1, (tl.zeros((1,), tl.int32) + A).sum() // B)
    # An argument that is 1 is made a constant without being asked.
    tl.store(out_ptr + 2, -n // B)


def constants() -> pd.DataFrame:
    """Divide the same numbers as constants and as values: the rule changes.

    Returns:
        One row for each n in 1, 3: "n"; "-7 // 2" of constants, "tile -7 // 2" of a
        value, "-n // 2" of an argument; and "-n // 2 in Python" and "in C".

    Notes:
        Compiled, an argument that equals 1 becomes a constant and is divided as
        Python divides: `-n // 2` is -1 for n = 1 although C's rule gives 0. The
        interpreter doesn't specialise arguments, so there it is 0.
    """
    rows = []
    for n in (1, 3):
        out = torch.empty(3, dtype=torch.int32, device=device.torch_device())
        literal_kernel[(1,)](out, n, A=-7, B=2)
        rows.append([n, *out.tolist(), -n // 2, math.trunc(-n / 2)])
    names = ["n", "-7 // 2", "tile -7 // 2", "-n // 2", "python", "c"]
    return pd.DataFrame(rows, columns=names)


@triton.jit
def offset_kernel(narrow_ptr, wide_ptr, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    tl.store(narrow_ptr + pid, pid * BLOCK)
    tl.store(wide_ptr + pid, pid.to(tl.int64) * BLOCK)


def offsets(block: int = 2**29, programs: int = 9) -> pd.DataFrame:
    """Multiply a program's number by its tile's size, in 32 bits and in 64.

    Args:
        block: elements per tile; nothing is loaded, so any power of two will do.
        programs: how many programs multiply.

    Returns:
        One row per program: "pid", "int32", "int64", and whether they "agree".
    """
    where = device.torch_device()
    narrow = torch.empty(programs, dtype=torch.int64, device=where)
    wide = torch.empty_like(narrow)
    offset_kernel[(programs,)](narrow, wide, BLOCK=block)
    frame = pd.DataFrame(
        {"pid": range(programs), "int32": narrow.tolist(), "int64": wide.tolist()}
    )
    frame["agree"] = frame["int32"] == frame["int64"]
    return frame
