"""One case, from symptom to fix: numbers times the scale of their group.

`as_found` is a kernel as it was met: right, and slow for four reasons at once. Each
step mends the one that a tool names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from tilebook import check, device

GROUP = 128
"""Numbers that share a scale."""

COLUMNS = 4096
"""Of the matrices that are measured."""


@triton.jit(do_not_specialize=["group", "stride", "step"])
def found_kernel(
    x_ptr, scale_ptr, out_ptr, m, n, group, stride, step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    lanes = tl.arange(0, ROWS * COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + lanes % ROWS
    columns = tl.program_id(1).to(tl.int64) * COLUMNS + lanes // ROWS
    inside = (rows < m) & (columns < n)
    which = (rows * n + columns) // group
    x = tl.load(x_ptr + rows * stride + columns * step, mask=inside, other=0.0)
    scale = tl.load(scale_ptr + which, mask=inside, other=0.0)
    tl.store(out_ptr + rows * stride + columns * step, x * scale, mask=inside)


@triton.jit(do_not_specialize=["group", "stride", "step"])
def ordered_kernel(
    x_ptr, scale_ptr, out_ptr, m, n, group, stride, step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    # Neighbouring lanes are neighbours in a row, as memory has them.
    lanes = tl.arange(0, ROWS * COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + lanes // COLUMNS
    columns = tl.program_id(1).to(tl.int64) * COLUMNS + lanes % COLUMNS
    inside = (rows < m) & (columns < n)
    which = (rows * n + columns) // group
    x = tl.load(x_ptr + rows * stride + columns * step, mask=inside, other=0.0)
    scale = tl.load(scale_ptr + which, mask=inside, other=0.0)
    tl.store(out_ptr + rows * stride + columns * step, x * scale, mask=inside)


@triton.jit(do_not_specialize=["stride", "step"])
def undivided_kernel(
    x_ptr, scale_ptr, out_ptr, m, n, groups, stride, step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    lanes = tl.arange(0, ROWS * COLUMNS)
    rows = tl.program_id(0).to(tl.int64) * ROWS + lanes // COLUMNS
    columns = tl.program_id(1) * COLUMNS + lanes % COLUMNS
    # A tile lies in one group, whose number takes a division by a constant.
    which = rows * groups + tl.program_id(1) * COLUMNS // GROUP
    inside = (rows < m) & (columns < n)
    x = tl.load(x_ptr + rows * stride + columns * step, mask=inside, other=0.0)
    scale = tl.load(scale_ptr + which, mask=inside, other=0.0)
    tl.store(out_ptr + rows * stride + columns * step, x * scale, mask=inside)


@triton.jit
def wide_kernel(
    x_ptr, scale_ptr, out_ptr, m, n, groups, stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    which = rows * groups + tl.program_id(1) * COLUMNS // GROUP
    inside = (rows < m)[:, None] & (columns < n)[None, :]
    # Columns are neighbours, and now the compiler knows.
    at = rows[:, None] * stride + columns[None, :]
    x = tl.load(x_ptr + at, mask=inside, other=0.0)
    scale = tl.load(scale_ptr + which, mask=rows < m, other=0.0)
    tl.store(out_ptr + at, x * scale[:, None], mask=inside)


@dataclass(frozen=True)
class Step:
    """One state of the kernel.

    Args:
        name: as the page calls it.
        kernel: what is launched.
        rows: of a tile.
        columns: of a tile.
        num_warps: of a program.
        symptom: what the tool says of this state; the next one mends that.
        tool: which tool.
    """

    name: str
    kernel: Any
    rows: int
    columns: int
    num_warps: int
    tool: str
    symptom: str

    def arguments(
        self, x: torch.Tensor, scale: torch.Tensor, out: torch.Tensor
    ) -> tuple[tuple[int, int], tuple[Any, ...], dict[str, Any]]:
        """Spell a launch out.

        Args:
            x: (m, n), float32.
            scale: (m, n / GROUP), contiguous.
            out: as x.

        Returns:
            Grid, positional arguments and keywords.
        """
        m, n = x.shape
        meta = {"ROWS": self.rows, "COLUMNS": self.columns}
        last: tuple[int, ...] = (GROUP, *x.stride())
        if self.kernel in (undivided_kernel, wide_kernel):
            meta["GROUP"] = GROUP
            last = (n // GROUP, *x.stride())
        if self.kernel is wide_kernel:
            last = last[:2]
        grid = (triton.cdiv(m, self.rows), triton.cdiv(n, self.columns))
        meta["num_warps"] = self.num_warps
        return grid, (x, scale, out, m, n, *last), meta


AS_FOUND = Step(
    "as found", found_kernel, 64, 128, 1, "the evidence line",
    "kilobytes spilled: 256 numbers for each thread",
)  # fmt: skip
SMALLER = Step(
    "smaller tile", found_kernel, 32, 4, 1, "the tracer, or ncu",
    "32 sectors for each request, where 4 would do",
)  # fmt: skip
ORDERED = Step(
    "rows along lanes", ordered_kernel, 4, 32, 1, "SASS",
    "as many instructions for a number as a division of 64 bits takes",
)  # fmt: skip
UNDIVIDED = Step(
    "no division", undivided_kernel, 4, 32, 1, "SASS and occupancy, or ncu",
    "too few bytes on their way: loads of 4 bytes, four to a thread, half the threads",
)  # fmt: skip
WIDE = Step("wide", wide_kernel, 8, 128, 4, "the roofline", "nothing is left")
STEPS: Mapping[str, Step] = {
    step.name: step for step in (AS_FOUND, SMALLER, ORDERED, UNDIVIDED, WIDE)
}
"""The case's states, in order."""


def scaled(
    x: torch.Tensor,
    scale: torch.Tensor,
    *,
    step: str = "wide",
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multiply each number by the scale of its group.

    Args:
        x: (m, n) float32, contiguous, n a multiple of `GROUP`.
        scale: (m, n / GROUP) float32, contiguous.
        step: which state of the kernel.
        out: where the result goes; a new tensor by default.

    Returns:
        (m, n) float32.

    Raises:
        TypeError: a tensor of another type.
        ValueError: another shape or layout, or no such step.
    """
    check.tensor(x, "x", dtype=torch.float32, ndim=2, contiguous=True)
    check.one_of(step, "step", STEPS)
    m, n = x.shape
    if n % GROUP:
        raise ValueError(f"x must have columns that are a multiple of {GROUP}, not {n}")
    shape = (m, n // GROUP)
    check.tensor(scale, "scale", dtype=torch.float32, shape=shape, contiguous=True)
    check.same_device(x=x, scale=scale)
    check.runs_here(x, "x", current=True)
    out = torch.empty_like(x) if out is None else out
    check.tensor(out, "out", dtype=torch.float32, shape=(m, n), contiguous=True)
    if x.numel():
        grid, args, meta = STEPS[step].arguments(x, scale, out)
        STEPS[step].kernel[grid](*args, **meta)
    return out


def reference(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The same in PyTorch."""
    return (x.unflatten(1, (-1, GROUP)) * scale[:, :, None]).flatten(1)


def operands(
    m: int, n: int, where: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make numbers, their groups' scales, and room for the result.

    Args:
        m: rows.
        n: columns, a multiple of `GROUP`.
        where: the device.

    Returns:
        x, scale and out.
    """
    x = torch.randn(m, n, device=where)
    return x, torch.rand(m, n // GROUP, device=where), torch.empty_like(x)


def run(step: str, m: int, n: int) -> torch.Tensor:
    """Make operands and launch: what is profiled.

    Args:
        step: which state of the kernel.
        m: rows.
        n: columns.

    Returns:
        The result.
    """
    x, scale, out = operands(m, n, device.torch_device())
    return scaled(x, scale, step=step, out=out)


def run_all(m: int, n: int) -> None:
    """Run every step once, in order.

    Args:
        m: rows.
        n: columns.
    """
    for step in STEPS:
        run(step, m, n)


def run_sizes(*rows: int) -> None:
    """Run the last step once for each number of rows, of `COLUMNS` columns.

    Args:
        rows: how many.
    """
    for m in rows:
        run("wide", m, COLUMNS)
