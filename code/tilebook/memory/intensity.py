"""From memory's limit to arithmetic's: more and more work on each byte."""

import torch
import triton
import triton.language as tl

from tilebook import check
from tilebook.memory.layout import written

BLOCK = 1024
NUM_WARPS = 4
FACTOR, TERM = 0.5, 1.0


@triton.jit(do_not_specialize=["steps"])
def work_kernel(x_ptr, out_ptr, n, steps, factor, term, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)  # (BLOCK,)
    # A multiplication and an addition in one instruction for each element.
    for _ in range(steps):
        x = x * factor + term
    tl.store(out_ptr + offs, x, mask=mask)


def work(
    x: torch.Tensor, steps: int, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Apply ``x * FACTOR + TERM`` to a vector, several times over.

    Args:
        x: (n,) float32, contiguous.
        steps: how often; each is two floating-point operations an element.
        out: the same; receives the result.

    Returns:
        `out`, or a new tensor.

    Raises:
        TypeError: a tensor isn't one, or isn't float32, or `steps` no integer.
        ValueError: ranks, lengths or devices differ, a tensor isn't contiguous, or
            `steps` is negative.
    """
    operands = {"x": x} | ({} if out is None else {"out": out})
    for name, tensor in operands.items():
        check.tensor(tensor, name, dtype=torch.float32, ndim=1, contiguous=True)
    check.same_shape(**operands)
    check.same_device(**operands)
    check.runs_here(x, "x", current=True)
    check.natural_number(steps, "steps")
    if out is None:
        out = torch.empty_like(x)
    else:
        written(out, x)
    if n := x.numel():
        grid = (triton.cdiv(n, BLOCK),)
        work_kernel[grid](
            x, out, n, steps, FACTOR, TERM, BLOCK=BLOCK, num_warps=NUM_WARPS
        )
    return out


def worked(x: torch.Tensor, steps: int) -> torch.Tensor:
    """What `work` returns, in PyTorch, in closed form.

    Args:
        x: any floating dtype.
        steps: see `work`.

    Returns:
        A new tensor.
    """
    fixed = TERM / (1 - FACTOR)
    return fixed + (x - fixed) * FACTOR**steps
