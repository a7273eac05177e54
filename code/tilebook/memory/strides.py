"""What a stride costs: memory comes in sectors of 32 bytes, wanted or not."""

import torch
import triton
import triton.language as tl

from tilebook import check
from tilebook.memory import vectors

SECTOR = 32
"""Bytes that memory hands out at least."""
BLOCK = 512
NUM_WARPS = 4


@triton.jit(do_not_specialize=["n", "stride", "shift"])
def pick_kernel(x_ptr, out_ptr, n, stride, shift, BLOCK: tl.constexpr):
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + shift + offs * stride, mask=mask, other=0)  # (BLOCK,)
    tl.store(out_ptr + offs, x, mask=mask)


def pick(x: torch.Tensor, stride: int, n: int, *, shift: int = 0) -> torch.Tensor:
    """Take every so many-th element of a vector.

    Args:
        x: (m,) contiguous, any dtype of up to 8 bytes.
        stride: elements from one that is taken to the next.
        n: how many are taken.
        shift: the first of them.

    Returns:
        (n,) of the same dtype: ``x[shift::stride][:n]``.

    Raises:
        TypeError: `x` isn't a tensor, or a number isn't an integer.
        ValueError: `x` isn't contiguous or has another rank, or the last element taken
            would lie past its end.
    """
    check.tensor(x, "x", ndim=1, contiguous=True)
    vectors.check_elements(x)
    check.runs_here(x, "x", current=True)
    check.positive_int(stride, "stride")
    check.natural_number(n, "n")
    check.natural_number(shift, "shift")
    last = shift + (n - 1) * stride
    if n and last >= x.numel():
        raise ValueError(
            f"x must reach element {last}, the last that is taken, got {x.numel()} "
            "elements"
        )
    out = x.new_empty(n)
    if n:
        grid = (triton.cdiv(n, BLOCK),)
        source, target = vectors.elements(x), vectors.elements(out)
        pick_kernel[grid](
            source, target, n, stride, shift, BLOCK=BLOCK, num_warps=NUM_WARPS
        )
    return out


def sectors(stride: int, itemsize: int) -> float:
    """Sectors that memory hands out for each element, where neighbours share them.

    Args:
        stride: elements from one to the next.
        itemsize: bytes of an element, at most `SECTOR`.

    Returns:
        At most 1: from a stride of a sector on each element needs one of its own.
    """
    return min(1.0, stride * itemsize / SECTOR)


def moved(n: int, stride: int, itemsize: int) -> float:
    """Bytes that `pick` makes the memory move: what is taken, in sectors, and written.

    Args:
        n: elements taken.
        stride: elements from one to the next.
        itemsize: bytes of an element.

    Returns:
        Bytes.
    """
    return n * (SECTOR * sectors(stride, itemsize) + itemsize)
