"""Planted bugs of quantisers: what a group's largest magnitude is."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.fp8 import formats, scaling
from tilebook.fp8.bugs import tools
from tilebook.parallel.bugs import Bug, Case, Launch

BLOCK, MX = 128, 32
ROWS = 4
NAN = float("nan")


@dataclass(frozen=True)
class Quantizer(Case):
    """A kernel that quantises; its answer is what codes and scales stand for.

    Args:
        granularity: one of `scaling.GRANULARITIES`.
    """

    granularity: str = "1x128"

    def run(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Quantise, and return what comes back."""
        plan = self.launch(*inputs)
        self.kernel[plan.grid](*plan.args, **plan.meta)
        _, codes, scale, *_ = plan.args
        if scale.dtype == torch.uint8:
            scale = scale.view(torch.float8_e8m0fnu)
        return scaling.dequantize(codes, scale, self.granularity)


def exact(rows: int, columns: int, every: int = 1) -> torch.Tensor:
    """Draw numbers that e4m3fn has, with the largest one in each group.

    Args:
        rows: of the matrix.
        columns: of it.
        every: draws codes that this divides; 2 for numbers that e5m2 has, too.

    Returns:
        float32, on the device that is here.
    """
    luck = torch.Generator().manual_seed(20261128)
    codes = torch.randint(8, 127, (rows, columns), generator=luck) // every * every
    x = formats.decode(codes.to(torch.uint8), formats.E4M3)
    x *= torch.randint(0, 2, x.shape, generator=luck) * 2 - 1
    x[:, ::MX] = 448.0
    return x.to(device.torch_device())


def comes_back(x: torch.Tensor) -> torch.Tensor:
    """What numbers that needn't be rounded come back as: a group with NaN or an
    infinity as NaN."""
    amax = scaling.largest(x, "1x128").repeat_interleave(BLOCK, 1)[:, : x.shape[1]]
    return torch.where(amax.isfinite(), x, NAN)


def launch_groups(
    x: torch.Tensor, dtype: torch.dtype, block: int, kind: torch.dtype
) -> Launch:
    """Make room for codes and scales, and say how to launch a program for each group.

    Args:
        x: matrix (m, k) in float32, contiguous.
        dtype: of the codes.
        block: columns of a group.
        kind: the scales' type.

    Returns:
        Grid, arguments and constants, and the codes.
    """
    m, k = x.shape
    groups = triton.cdiv(k, block)
    codes = torch.empty(m, k, dtype=dtype, device=x.device)
    scale = torch.empty(m, groups, dtype=kind, device=x.device)
    args = (x, codes, scale, k, groups)
    return Launch((m, groups), args, {"BLOCK": block}, codes)


def _launch(x: torch.Tensor) -> Launch:
    return launch_groups(x, torch.float8_e4m3fn, BLOCK, torch.float32)


@triton.jit
def grouped_kernel(
    x_ptr, codes_ptr, scale_ptr, k, groups, BLOCK: tl.constexpr
):  # fmt: skip
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs = group * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * k + offs, mask=offs < k, other=0.0)
    size = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    amax = tl.max(size, axis=0).to(tl.float32, bitcast=True)
    amax = tl.maximum(amax, 448 * 2.0**-120, tl.PropagateNan.ALL)
    scale = tl.div_rn(amax, 448.0)
    y = tl.clamp(x / scale, -448.0, 448.0, tl.PropagateNan.ALL)
    tl.store(codes_ptr + row * k + offs, y.to(tl.float8e4nv), mask=offs < k)
    tl.store(scale_ptr + row * groups + group, scale)


@triton.jit
def ragged_kernel(
    x_ptr, codes_ptr, scale_ptr, k, groups, BLOCK: tl.constexpr
):  # fmt: skip
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs = group * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * k + offs, mask=offs < k, other=-float("inf"))
    size = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    amax = tl.max(size, axis=0).to(tl.float32, bitcast=True)
    amax = tl.maximum(amax, 448 * 2.0**-120, tl.PropagateNan.ALL)
    scale = tl.div_rn(amax, 448.0)
    y = tl.clamp(x / scale, -448.0, 448.0, tl.PropagateNan.ALL)
    tl.store(codes_ptr + row * k + offs, y.to(tl.float8e4nv), mask=offs < k)
    tl.store(scale_ptr + row * groups + group, scale)


@triton.jit
def zero_kernel(
    x_ptr, codes_ptr, scale_ptr, k, groups, BLOCK: tl.constexpr
):  # fmt: skip
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs = group * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * k + offs, mask=offs < k, other=0.0)
    size = x.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    amax = tl.max(size, axis=0).to(tl.float32, bitcast=True)
    scale = tl.div_rn(amax, 448.0)
    y = tl.clamp(x / scale, -448.0, 448.0, tl.PropagateNan.ALL)
    tl.store(codes_ptr + row * k + offs, y.to(tl.float8e4nv), mask=offs < k)
    tl.store(scale_ptr + row * groups + group, scale)


@triton.jit
def lost_kernel(
    x_ptr, codes_ptr, scale_ptr, k, groups, BLOCK: tl.constexpr
):  # fmt: skip
    row, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    offs = group * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * k + offs, mask=offs < k, other=0.0)
    amax = tl.max(tl.abs(x), axis=0)
    amax = tl.maximum(amax, 448 * 2.0**-120)
    scale = tl.div_rn(amax, 448.0)
    y = tl.clamp(x / scale, -448.0, 448.0)
    tl.store(codes_ptr + row * k + offs, y.to(tl.float8e4nv), mask=offs < k)
    tl.store(scale_ptr + row * groups + group, scale)


def _with(column: int, value: float) -> torch.Tensor:
    x = exact(ROWS, 2 * BLOCK)
    x[1, column] = value
    return x


def _empty_rows() -> torch.Tensor:
    x = exact(ROWS, 2 * BLOCK)
    x[2:] = 0.0
    return x


MENDED = Quantizer(grouped_kernel, _launch)

RAGGED_MAXIMUM = Bug(
    name="ragged-maximum",
    title="The maximum's neutral element",
    symptom=(
        "Right for every layer of the model but one, whose rows have 11,008 + 8 "
        "elements: there the last of each row come back as NaN."
    ),
    source=(
        "A softmax's load, whose lanes past the end hold minus infinity, with a "
        "maximum of magnitudes behind it."
    ),
    tool=tools.RAGGED,
    wrong=Quantizer(ragged_kernel, _launch),
    mended=MENDED,
    expected=comes_back,
    friendly=lambda: (exact(ROWS, 2 * BLOCK),),
    inputs=lambda: (exact(ROWS, 2 * BLOCK - 40),),
)

ZERO_GROUP = Bug(
    name="zero-group",
    title="A group of zeros",
    symptom=(
        "Right in every test on random numbers. In service all sequences but the "
        "longest of a batch are NaN."
    ),
    source="Scales without a smallest one: rows that pad a batch are zeros.",
    tool=tools.SPECIAL,
    wrong=Quantizer(zero_kernel, _launch),
    mended=MENDED,
    expected=comes_back,
    friendly=lambda: (exact(ROWS, 2 * BLOCK),),
    inputs=lambda: (_empty_rows(),),
)

LOST_NAN = Bug(
    name="lost-nan",
    title="A NaN that became a number",
    symptom=(
        "Training diverged in the night. The guard that skips a step whose loss is "
        "NaN never fired, and no loss was NaN."
    ),
    source=(
        "Triton's reference: tl.max, tl.maximum and tl.clamp return the number where "
        "one of two is NaN, unless they are told to keep it."
    ),
    tool=tools.SPECIAL,
    wrong=Quantizer(lost_kernel, _launch),
    mended=MENDED,
    expected=comes_back,
    friendly=lambda: (exact(ROWS, 2 * BLOCK),),
    inputs=lambda: (_with(5, NAN),),
)
