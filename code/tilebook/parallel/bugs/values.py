"""Bugs of values: types, layouts and NaN."""

import torch
import triton
import triton.language as tl

from tilebook.parallel.bugs import tools
from tilebook.parallel.bugs.bug import BLOCK, Bug, Case, Launch, launch_map
from tilebook.parallel.bugs.inputs import normal, pixels


@triton.jit
def grey_bytes_kernel(r_ptr, g_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    r = tl.load(r_ptr + offs, mask=mask, other=0)  # (BLOCK,) uint8
    g = tl.load(g_ptr + offs, mask=mask, other=0)  # (BLOCK,) uint8
    b = tl.load(b_ptr + offs, mask=mask, other=0)  # (BLOCK,) uint8
    tl.store(out_ptr + offs, (r + g + b) // 3, mask=mask)


@triton.jit
def grey_kernel(r_ptr, g_ptr, b_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    r = tl.load(r_ptr + offs, mask=mask, other=0).to(tl.int32)
    g = tl.load(g_ptr + offs, mask=mask, other=0)  # (BLOCK,) uint8
    b = tl.load(b_ptr + offs, mask=mask, other=0)  # (BLOCK,) uint8
    tl.store(out_ptr + offs, ((r + g + b) // 3).to(tl.uint8), mask=mask)


def _grey_launch(r: torch.Tensor, g: torch.Tensor, b: torch.Tensor) -> Launch:
    out = torch.empty_like(r)
    n = r.numel()
    grid = (triton.cdiv(n, BLOCK),)
    return Launch(grid, (r, g, b, out, n), {"BLOCK": BLOCK}, out)


BYTE_SUM = Bug(
    name="byte-sum",
    title="A sum of bytes",
    symptom=(
        "Equal to PyTorch's answer for the same expression, bit for bit, on random "
        "images. Bright pixels come out dark."
    ),
    source=(
        "The greyscale kernel of GPU MODE lecture 14 mixes uint8 and float, with "
        "surprises of the same family; here the reference shares the mistake."
    ),
    tool=tools.FLOAT64,
    wrong=Case(grey_bytes_kernel, _grey_launch),
    mended=Case(grey_kernel, _grey_launch),
    expected=lambda r, g, b: (r + g + b) // 3,
    friendly=lambda: tuple(plane // 4 for plane in pixels(1000)),
    inputs=lambda: pixels(1000),
)


@triton.jit
def relu_swallowing_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, tl.where(x > 0.0, x, 0.0), mask=mask)


@triton.jit
def relu_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    # Every comparison with NaN is false, so ask what is to be dropped.
    tl.store(out_ptr + offs, tl.where(x < 0.0, 0.0, x), mask=mask)


def _with_nan() -> tuple[torch.Tensor]:
    x = normal(1000)
    x[123] = float("nan")
    return (x,)


SWALLOWED_NAN = Bug(
    name="swallowed-nan",
    title="NaN comes out as zero",
    symptom=(
        "Right on every finite number. A training run that has diverged carries on "
        "as if nothing were the matter: the NaN that should have stopped it is 0 "
        "after the first activation."
    ),
    source=(
        "attorch's piecewise activations were wrong at their break-points until "
        "August 2026. tl.maximum(x, 0.0) does the same to NaN when compiled."
    ),
    tool=tools.EXTREMES,
    wrong=Case(relu_swallowing_kernel, launch_map),
    mended=Case(relu_kernel, launch_map),
    expected=torch.relu,
    friendly=lambda: (normal(1000),),
    inputs=_with_nan,
)


@triton.jit
def add_linear_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    y = tl.load(y_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x + y, mask=mask)


def _add_linear_launch(x: torch.Tensor, y: torch.Tensor) -> Launch:
    out = torch.empty_like(x)
    n = out.numel()
    grid = (triton.cdiv(n, BLOCK),)
    return Launch(grid, (x, y, out, n), {"BLOCK": BLOCK}, out)


@triton.jit
def add_strided_kernel(
    x_ptr, y_ptr, out_ptr, n, cols, x_row, x_col, y_row, y_col,
    BLOCK: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    row, col = offs // cols, offs % cols
    x = tl.load(x_ptr + row * x_row + col * x_col, mask=mask, other=0.0)
    y = tl.load(y_ptr + row * y_row + col * y_col, mask=mask, other=0.0)
    tl.store(out_ptr + offs, x + y, mask=mask)


def _add_strided_launch(x: torch.Tensor, y: torch.Tensor) -> Launch:
    out = x.new_empty(x.shape)
    n = out.numel()
    grid = (triton.cdiv(n, BLOCK),)
    args = (x, y, out, n, x.shape[1], *x.stride(), *y.stride())
    return Launch(grid, args, {"BLOCK": BLOCK}, out)


def _square() -> tuple[torch.Tensor, torch.Tensor]:
    x = normal(2, 24, 24)
    return x[0], x[1]


IGNORED_STRIDES = Bug(
    name="ignored-strides",
    title="The transpose that nobody noticed",
    symptom=(
        "Right for years. Then someone passes a transposed tensor, and the answer "
        "is a sum of the wrong pairs: no error, no NaN, the right mean."
    ),
    source=(
        "FlagGems issues 4831, 5379 and 2347; Unsloth issue 10617, a gradient that "
        "arrived strided."
    ),
    tool=tools.LAYOUTS,
    wrong=Case(add_linear_kernel, _add_linear_launch),
    mended=Case(add_strided_kernel, _add_strided_launch),
    expected=torch.add,
    friendly=_square,
    inputs=lambda: (_square()[0], _square()[1].t()),
)


@triton.jit
def centre_exact_kernel(x_ptr, out_ptr, n: tl.constexpr):
    offs = tl.arange(0, n)
    x = tl.load(x_ptr + offs)  # (n,)
    tl.store(out_ptr + offs, x - tl.sum(x, axis=0) / n)


def _centre_exact_launch(x: torch.Tensor) -> Launch:
    out = torch.empty_like(x)
    return Launch((1,), (x, out), {"n": x.numel()}, out)


@triton.jit
def centre_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    tl.store(out_ptr + offs, x - tl.sum(x, axis=0) / n, mask=mask)


def _centre_launch(x: torch.Tensor) -> Launch:
    out = torch.empty_like(x)
    n = x.numel()
    meta = {"BLOCK": triton.next_power_of_2(n)}
    return Launch((1,), (x, out, n), meta, out)


RAGGED_BLOCK = Bug(
    name="ragged-block",
    title="A block of 1,000",
    symptom="Works at 1,024 elements, and does not even compile at 1,000.",
    source=(
        "The most common first error message; a published answer to Triton Puzzle "
        "9 stopped compiling when the rule came in."
    ),
    tool=tools.COMPILER,
    wrong=Case(centre_exact_kernel, _centre_exact_launch),
    mended=Case(centre_kernel, _centre_launch),
    expected=lambda x: x - x.mean(),
    length=1000,
    friendly=lambda: (normal(1024),),
    inputs=lambda: (normal(1000),),
)


@triton.jit
def scale_if_needed_kernel(x_ptr, out_ptr, n, a, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    if a != 1.0:
        y = a * x
    tl.store(out_ptr + offs, y, mask=mask)


@triton.jit
def scale_kernel(x_ptr, out_ptr, n, a, BLOCK: tl.constexpr):
    pid = tl.program_id(0).to(tl.int64)
    offs = pid * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    y = x
    if a != 1.0:
        y = a * x
    tl.store(out_ptr + offs, y, mask=mask)


def _scale_launch(x: torch.Tensor, a: float) -> Launch:
    out = torch.empty_like(x)
    n = x.numel()
    grid = (triton.cdiv(n, BLOCK),)
    return Launch(grid, (x, out, n, a), {"BLOCK": BLOCK}, out)


BORN_IN_A_BRANCH = Bug(
    name="born-in-a-branch",
    title="A variable born in a branch",
    symptom=(
        "The interpreter runs it, and the tests on the laptop pass. On a GPU it "
        "does not compile."
    ),
    source=(
        "Triton's language reference: a name assigned in a branch alone has no "
        "value after it. Python, and so the interpreter, looks only at the branch "
        "that was taken."
    ),
    tool=tools.COMPILER,
    wrong=Case(scale_if_needed_kernel, _scale_launch),
    mended=Case(scale_kernel, _scale_launch),
    expected=lambda x, a: a * x,
    friendly=lambda: (normal(1000), 2.0),
    inputs=lambda: (normal(1000), 1.0),
    slips_through="interpreter",
)
