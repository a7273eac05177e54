"""Planted bugs of scales: of the step before, in another format, powers of two."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from tilebook.fp8 import scaling
from tilebook.fp8.bugs import tools
from tilebook.fp8.bugs.quantizers import (
    BLOCK,
    MX,
    ROWS,
    Quantizer,
    exact,
    launch_groups,
)
from tilebook.parallel.bugs import Bug, Case, Launch


@dataclass(frozen=True)
class Delayed(Case):
    """A kernel that quantises step after step, with the scale of the step before."""

    def run(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Quantise all steps, and return what comes back of the last."""
        (xs,) = inputs
        scale = xs[0].abs().max().view(1) / 448
        for x in xs:
            plan = self.launch(x, scale)
            self.kernel[plan.grid](*plan.args, **plan.meta)
            back = plan.out.float() * scale
            *_, amax, _ = plan.args
            scale = amax / 448
        return back


def rounded(x: torch.Tensor) -> torch.Tensor:
    """What e4m3fn makes of a matrix."""
    found = scaling.reference(x.float(), "1x128")
    return scaling.dequantize(*found, "1x128").to(x.dtype)


def _launch_step(x: torch.Tensor, scale: torch.Tensor) -> Launch:
    codes = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    amax = torch.zeros(1, device=x.device)
    args = (x, codes, scale, amax, x.numel())
    grid = (triton.cdiv(x.numel(), BLOCK),)
    return Launch(grid, args, {"BLOCK": BLOCK}, codes)


@triton.jit
def clipped_kernel(
    x_ptr, codes_ptr, scale_ptr, amax_ptr, n, BLOCK: tl.constexpr
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)
    scale = tl.load(scale_ptr)
    y = tl.clamp(x / scale, -448.0, 448.0, tl.PropagateNan.ALL)
    tl.store(codes_ptr + offs, y.to(tl.float8e4nv), mask=offs < n)
    # For the next step's scale.
    tl.atomic_max(amax_ptr, tl.max(tl.abs(y * scale), axis=0))


@triton.jit
def seen_kernel(
    x_ptr, codes_ptr, scale_ptr, amax_ptr, n, BLOCK: tl.constexpr
):  # fmt: skip
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs, mask=offs < n, other=0.0)
    scale = tl.load(scale_ptr)
    y = tl.clamp(x / scale, -448.0, 448.0, tl.PropagateNan.ALL)
    tl.store(codes_ptr + offs, y.to(tl.float8e4nv), mask=offs < n)
    # For the next step's scale.
    tl.atomic_max(amax_ptr, tl.max(tl.abs(x), axis=0))


def _steps(*sizes: float) -> torch.Tensor:
    x = exact(1, 3 * BLOCK)[0]
    return torch.stack([x * size for size in sizes])


CLIPPED_MAXIMUM = Bug(
    name="clipped-maximum",
    title="A scale that can't grow",
    symptom=(
        "Right for thousands of steps. After a batch with larger gradients the loss "
        "comes down more slowly than before, and stays so. Nothing is NaN."
    ),
    source=(
        "Delayed scaling whose largest magnitude is taken from what was stored: it is "
        "never more than the old scale times 448."
    ),
    tool=tools.STEPS,
    wrong=Delayed(clipped_kernel, _launch_step),
    mended=Delayed(seen_kernel, _launch_step),
    expected=lambda xs: xs[-1],
    friendly=lambda: (_steps(1, 1, 0.5, 0.5),),
    inputs=lambda: (_steps(1, 16, 16, 16),),
)


@triton.jit
def any_kernel(
    x_ptr, codes_ptr, scale_ptr, k, groups,
    BLOCK: tl.constexpr, LARGEST: tl.constexpr,
):  # fmt: skip
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs = group * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * k + offs, mask=offs < k, other=0.0)
    amax = tl.maximum(tl.max(tl.abs(x), axis=0), LARGEST * 2.0**-120)
    scale = tl.div_rn(amax, LARGEST)
    y = tl.clamp(x * tl.div_rn(1.0, scale), -LARGEST, LARGEST)
    y = y.to(codes_ptr.dtype.element_ty)
    tl.store(codes_ptr + row * k + offs, y, mask=offs < k)
    tl.store(scale_ptr + row * groups + group, scale)


def e5m2_launch(x: torch.Tensor) -> Launch:
    """Say how a matrix is quantised to the format for gradients.

    Args:
        x: matrix (m, k) in float32, contiguous.

    Returns:
        Grid, arguments and constants, and the codes.
    """
    plan = launch_groups(x, torch.float8_e5m2, BLOCK, torch.float32)
    plan.meta["LARGEST"] = 57344.0
    return plan


def e4m3_launch(x: torch.Tensor) -> Launch:
    """Say how a matrix is quantised to the format for everything else.

    Args:
        x: matrix (m, k) in float32, contiguous.

    Returns:
        Grid, arguments and constants, and the codes.
    """
    plan = launch_groups(x, torch.float8_e4m3fn, BLOCK, torch.float32)
    plan.meta["LARGEST"] = 448.0
    return plan


OTHER_FORMAT = Bug(
    name="other-format",
    title="Eight bits, but which",
    symptom=(
        "Right by a test with small whole numbers and by one with a tolerance of a "
        "tenth. Perplexity is a little worse than the paper's."
    ),
    source=(
        "A recipe's two types exchanged: e5m2 has the range that gradients want, and "
        "one bit less of mantissa."
    ),
    tool=tools.DERIVED,
    wrong=Quantizer(any_kernel, e5m2_launch),
    mended=Quantizer(any_kernel, e4m3_launch),
    expected=rounded,
    friendly=lambda: (exact(ROWS, 2 * BLOCK, every=2),),
    inputs=lambda: (tools.spread_out(ROWS, 2 * BLOCK),),
)


def _launch_mx(x: torch.Tensor) -> Launch:
    return launch_groups(x, torch.float8_e4m3fn, MX, torch.uint8)


@triton.jit
def below_kernel(
    x_ptr, codes_ptr, scale_ptr, k, groups, BLOCK: tl.constexpr
):  # fmt: skip
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs = group * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * k + offs, mask=offs < k, other=0.0)
    amax = tl.max(tl.abs(x), axis=0)
    # The exponent of the power of two below amax / 448.
    code = tl.div_rn(amax, 448.0).to(tl.int32, bitcast=True) >> 23
    inverse = ((254 - code) << 23).to(tl.float32, bitcast=True)
    y = tl.clamp(x * inverse, -448.0, 448.0).to(tl.float8e4nv)
    tl.store(codes_ptr + row * k + offs, y, mask=offs < k)
    tl.store(scale_ptr + row * groups + group, code.to(tl.uint8))


@triton.jit
def specified_kernel(
    x_ptr, codes_ptr, scale_ptr, k, groups, BLOCK: tl.constexpr
):  # fmt: skip
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs = group * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * k + offs, mask=offs < k, other=0.0)
    amax = tl.max(tl.abs(x), axis=0)
    # The exponent of the power of two below amax, less that of 448, 8.
    code = (amax * 2.0**-8).to(tl.int32, bitcast=True) >> 23
    inverse = ((254 - code) << 23).to(tl.float32, bitcast=True)
    y = tl.clamp(x * inverse, -448.0, 448.0).to(tl.float8e4nv)
    tl.store(codes_ptr + row * k + offs, y, mask=offs < k)
    tl.store(scale_ptr + row * groups + group, code.to(tl.uint8))


POWER_BELOW = Bug(
    name="power-below",
    title="A power of two too low",
    symptom=(
        "Right where a group's largest number is 448 or 7 times a power of two. Of "
        "real inputs most groups have lost their peak, some nearly half of it."
    ),
    source=(
        "The scale's formula, amax / 448, rounded down to a power of two. The "
        "specification rounds amax and 448 down, each by itself."
    ),
    tool=tools.OCTAVE,
    wrong=Quantizer(below_kernel, _launch_mx, granularity="mx"),
    mended=Quantizer(specified_kernel, _launch_mx, granularity="mx"),
    expected=lambda x: x,
    friendly=lambda: (exact(ROWS, 2 * BLOCK),),
    # 416 is e4m3fn's last number but one.
    inputs=lambda: (exact(ROWS, 2 * BLOCK).clamp(-416, 416) / 16,),
)
