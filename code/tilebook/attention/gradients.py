"""What the backward kernels are told besides the task, and what each row adds to it."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.attention.descriptors import looped
from tilebook.attention.operands import Task, aligned, cover, strides
from tilebook.attention.scores import LOG2E, tile

ROWS = 64
"""Rows of a tile of `delta_kernel`."""


class Gradient(NamedTuple):
    """What is wanted of an attention that has been computed."""

    task: Task
    """The attention; its `out` and `lse` have been written."""
    do: torch.Tensor
    """What arrives for the result (b, h, s, e), neighbours along e."""
    dlse: torch.Tensor | None
    """What arrives for the logarithms (b, h, s), if anything does."""
    dq: torch.Tensor
    dk: torch.Tensor
    dv: torch.Tensor
    steps: torch.Tensor | None = None
    """Of the slopes, for each row (b, h, s), float32; None if it isn't wanted."""
    sinks: torch.Tensor | None = None
    """Of the sinks (h,), float32; None if it isn't wanted."""

    def places(self, *names: str) -> dict[str, Any]:
        """Pointers and strides of some of the gradients as a kernel's arguments."""
        told: dict[str, Any] = {}
        for name in names:
            x = getattr(self, name)
            letters = "bhm" if name == "dq" else "bhn"
            told |= {f"{name}_ptr": x, **strides(name, x, letters)}
        return told

    def looped(self, block: int, *names: str) -> dict[str, Any]:
        """As `operands.looped`, of the task's tensors and `do`."""
        return looped(self.task, block, *names, do=self.do)

    def sink(self, delta: torch.Tensor) -> None:
        """Write the gradient of the sinks: a row of weights, a product, a sum."""
        if self.sinks is None:
            return
        lse, sinks = self.task.lse, self.task.sinks
        weight = (sinks[:, None] - lse).exp()
        # Where even the sink is -inf there is no weight.
        weight = torch.where(lse == -torch.inf, 0, weight)
        self.sinks.copy_(-(weight * delta).sum((0, 2)))


@triton.jit
def delta_kernel(
    out_ptr, do_ptr, lse_ptr, dlse_ptr, power_ptr, delta_ptr, out_b, out_h, out_m,
    do_b, do_h, do_m,
    dlse_b, dlse_h, dlse_m, lse_b, lse_h, row_b, row_h, sq, heads, tiles,
    E: tl.constexpr, BLOCK_E: tl.constexpr, ROWS: tl.constexpr, LSE: tl.constexpr,
):  # fmt: skip
    number, pair = tl.program_id(0) % tiles, tl.program_id(0) // tiles
    b, h = (pair // heads).to(tl.int64), (pair % heads).to(tl.int64)
    offs = number * ROWS + tl.arange(0, ROWS)
    offs_e = tl.arange(0, BLOCK_E)
    out = tile(
        out_ptr + b * out_b + h * out_h, out_m, number * ROWS, offs_e, sq,
        ROWS, E, BLOCK_E, True,
    )  # fmt: skip
    do = tile(
        do_ptr + b * do_b + h * do_h, do_m, number * ROWS, offs_e, sq,
        ROWS, E, BLOCK_E, True,
    )  # fmt: skip
    delta = tl.sum(out.to(tl.float32) * do.to(tl.float32), axis=1)
    mask = offs < sq
    if LSE:
        at = dlse_ptr + b * dlse_b + h * dlse_h + offs.to(tl.int64) * dlse_m
        delta -= tl.load(at, mask=mask, other=0).to(tl.float32)
    row = b * row_b + h * row_h + offs
    tl.store(delta_ptr + row, delta, mask=mask)
    lse = tl.load(lse_ptr + b * lse_b + h * lse_h + offs, mask=mask, other=0)
    # Of a row that sees nothing all weights are to be 0.
    lse = tl.where(lse == -float("inf"), float("inf"), lse * LOG2E)
    tl.store(power_ptr + row, lse, mask=mask)


def prepared(
    gradient: Gradient, multiple: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute what the backward kernels read of each row.

    Args:
        gradient: what is wanted.
        multiple: of how many numbers the stride between heads is to be.

    Returns:
        Its logarithm to the base of 2, infinite where the row sees nothing; and g . o
        less what arrives for its logarithm. Both (b, h, s), float32.
    """
    task, do, dlse = gradient.task, gradient.do, gradient.dlse
    batch, heads, length, e = task.out.shape
    wide = (batch, heads, triton.cdiv(length, multiple) * multiple)
    power, delta = (task.lse.new_empty(wide)[..., :length] for _ in range(2))
    tiles = triton.cdiv(length, ROWS)
    if not delta.numel():
        return power, delta
    task.wrap(delta_kernel)[(batch * heads * tiles,)](
        task.out, do, task.lse, delta if dlse is None else dlse, power, delta,
        *task.out.stride()[:3],
        *do.stride()[:3], *((0, 0, 0) if dlse is None else dlse.stride()),
        *task.lse.stride()[:2], *delta.stride()[:2], length, heads, tiles,
        E=e, BLOCK_E=cover(e), ROWS=ROWS, LSE=dlse is not None,
    )  # fmt: skip
    return power, delta


def shared(
    gradient: Gradient, lse: torch.Tensor, delta: torch.Tensor
) -> dict[str, Any]:
    """Arguments that all backward kernels get besides the forward kernel's."""
    do = gradient.do
    return {"do_ptr": do, "lse_ptr": lse, "delta_ptr": delta, **strides("do", do)}


def wanted(
    task: Task,
    do: torch.Tensor,
    dlse: torch.Tensor | None = None,
    *,
    slopes: bool = False,
    sinks: bool = False,
) -> Gradient:
    """Make room for gradients.

    Args:
        task: the attention, computed.
        do: what arrives for the result, any strides.
        dlse: what arrives for the logarithms.
        slopes: whether theirs is wanted.
        sinks: likewise.

    Returns:
        What a backward rung gets. Of packed sequences all is 0 at first: positions
        that belong to none keep it.
    """
    make = torch.zeros_like if task.packed else torch.empty_like
    places = [_dense(make, x) for x in (task.q, task.k, task.v)]
    steps = make(task.lse) if slopes else None
    room = torch.empty_like(task.sinks) if sinks else None
    return Gradient(task, aligned(do), dlse, *places, steps, room)


def _dense(make: Any, x: torch.Tensor) -> torch.Tensor:
    """Memory ordered as a tensor, if that leaves neighbours along the features."""
    found = make(x)
    if found.stride(-1) == 1:
        return found
    return make(x, memory_format=torch.contiguous_format)
