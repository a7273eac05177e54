"""An erratum: a published answer to Triton Puzzle 8, and the test that accepts it.

Puzzle 8 asks for a softmax of rows, chunk by chunk. A widely read answer has two
independent bugs and is accepted by the notebook's own test. Kernel and tests here are
written anew from a description of the bugs:

* `PADDED`: the last chunk's lanes beyond the row are loaded as 0, and each adds
  e^(0 - m) to the denominator.
* `TURNED`: a new maximum multiplies the sum so far by e^(new - old), not e^(old - new).

With either, the maximum starts at 0, which hides what -inf would have shown.
"""

import functools
import math
from collections.abc import Callable

import pandas as pd
import torch
import triton
import triton.language as tl

from tilebook import check, device, testing

BLOCK = 32
SHAPE = (4, 200)
"""Rows and columns of the puzzle."""
TOLERANCE = 1e-3
"""Absolute and relative, of the puzzle's test."""
VARIANTS = {
    "right": (False, False),
    "padding": (True, False),
    "rescale": (False, True),
    "both": (True, True),
}
"""Name to whether lanes are padded with 0, and whether the factor is turned round."""

Function = Callable[[torch.Tensor], torch.Tensor]


@triton.jit
def softmax_kernel(
    x_ptr, out_ptr, n, PADDED: tl.constexpr, TURNED: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * n
    out_ptr += row * n
    other: tl.constexpr = 0.0 if PADDED else float("-inf")
    m = tl.full((), 0.0 if PADDED or TURNED else float("-inf"), tl.float32)
    d = tl.full((), 0.0, tl.float32)
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offs, mask=offs < n, other=other)  # (BLOCK,)
        new = tl.maximum(m, tl.max(x, axis=0))
        factor = tl.exp(new - m) if TURNED else tl.exp(m - new)
        d = d * factor + tl.sum(tl.exp(x - new), axis=0)
        m = new
    for start in range(0, n, BLOCK):
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offs, mask=offs < n, other=other)  # (BLOCK,)
        tl.store(out_ptr + offs, tl.exp(x - m) / d, mask=offs < n)


def softmax(x: torch.Tensor, variant: str = "both") -> torch.Tensor:
    """Compute a softmax of rows with the bugs of a variant.

    Args:
        x: float32 matrix (m, n), contiguous, n at least 1.
        variant: a name in `VARIANTS`.

    Returns:
        What the kernel makes of it.

    Raises:
        TypeError: `x` isn't a float32 tensor.
        ValueError: not a contiguous matrix with columns, another variant, or a tensor
            where this process's kernels can't reach it.
    """
    check.tensor(x, "x", dtype=torch.float32, ndim=2, contiguous=True)
    check.runs_here(x, "x")
    check.one_of(variant, "variant", VARIANTS)
    check.positive_int(x.shape[1], "columns of x")
    out = torch.empty_like(x)
    padded, turned = VARIANTS[variant]
    softmax_kernel[(x.shape[0],)](
        x, out, x.shape[1], PADDED=padded, TURNED=turned, BLOCK=BLOCK
    )
    return out


def followed(x: torch.Tensor, variant: str = "both") -> torch.Tensor:
    """Do in PyTorch what the kernel does, for many rows at a time.

    Args:
        x: tensor (..., n), float32.
        variant: a name in `VARIANTS`.

    Returns:
        What `softmax` returns of each row, up to rounding.
    """
    padded, turned = VARIANTS[variant]
    n = x.shape[-1]
    other = 0.0 if padded else -math.inf
    wide = torch.nn.functional.pad(x, (0, -n % BLOCK), value=other)
    start = 0.0 if padded or turned else -math.inf
    m = torch.full(x.shape[:-1], start, dtype=x.dtype, device=x.device)
    d = torch.zeros_like(m)
    for part in wide.split(BLOCK, dim=-1):
        new = torch.maximum(m, part.amax(dim=-1))
        factor = (new - m if turned else m - new).exp()
        d = d * factor + (part - new[..., None]).exp().sum(dim=-1)
        m = new
    return (x - m[..., None]).exp() / d[..., None]


def puzzle_input() -> torch.Tensor:
    """The input of the puzzle's test: 200 numbers about 0 in each of four rows."""
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(SHAPE, generator=generator) - 0.5).to(device.torch_device())


def weak(fn: Function, x: torch.Tensor) -> torch.Tensor:
    """The puzzle's test: equal within a thousandth, absolute and relative.

    Args:
        fn: the softmax to be tested.
        x: inputs (..., m, n).

    Returns:
        Whether each is accepted, bool (...).
    """
    want = torch.softmax(x, dim=-1)
    near = (fn(x) - want).abs() <= TOLERANCE + TOLERANCE * want
    return near.flatten(-2).all(dim=-1)


def strong(fn: Function, x: torch.Tensor) -> torch.Tensor:
    """A test whose tolerance follows from the format, on inputs meant to be awkward.

    Args:
        fn: the softmax to be tested.
        x: inputs (..., m, n), finite.

    Returns:
        Whether each is accepted, bool (...): as it is, with rows sorted, so that each
        chunk brings a new maximum, and with rows below zero, so that a padded 0 is the
        largest. Each element must be as near to its float64 value as n roundings allow,
        and so must the sum of each row be to 1.
    """
    limit = testing.bound(x.dtype, x.shape[-1])
    accepted = torch.ones(x.shape[:-2], dtype=torch.bool, device=x.device)
    rising = x.sort(dim=-1).values
    for values in (x, rising, x - rising[..., -1:] - 4.0):
        out = fn(values).double()
        want = torch.softmax(values.double(), dim=-1)
        near = ((out - want).abs() <= limit * want).all(dim=-1)
        near &= (out.sum(dim=-1) - 1).abs() <= limit
        accepted &= near.all(dim=-1)
    return accepted


def published() -> pd.DataFrame:
    """Run the answer with both bugs on the puzzle's own input.

    Returns:
        A line per row: the sum of its softmax ("sum"), the largest relative and
        absolute error of an element ("relative", "absolute"), and whether the puzzle's
        test accepts the whole result ("accepted").
    """
    x = puzzle_input()
    out, want = softmax(x).double(), torch.softmax(x.double(), dim=-1)
    apart = (out - want).abs()
    return pd.DataFrame(
        {
            "sum": out.sum(dim=-1).tolist(),
            "relative": (apart / want).amax(dim=-1).tolist(),
            "absolute": apart.amax(dim=-1).tolist(),
            "accepted": bool(weak(softmax, x)),
        }
    )


def acceptance(inputs: int = 250, seed: int = 0) -> pd.DataFrame:
    """How often each test accepts each variant.

    Args:
        inputs: how many random inputs of the puzzle's kind are tried.
        seed: of them.

    Returns:
        A line per variant, and the share of inputs on which it is accepted: by the
        puzzle's test ("weak"), by the same on inputs four times as large ("weak, times
        4"), and by ours ("strong").
    """
    generator = torch.Generator().manual_seed(seed)
    xs = torch.rand((inputs, *SHAPE), generator=generator) - 0.5
    lines = {}
    for name in VARIANTS:
        fn = functools.partial(followed, variant=name)
        tried = {
            "weak": weak(fn, xs),
            "weak, times 4": weak(fn, 4 * xs),
            "strong": strong(fn, xs),
        }
        lines[name] = {test: float(x.double().mean()) for test, x in tried.items()}
    return pd.DataFrame.from_dict(lines, orient="index")
