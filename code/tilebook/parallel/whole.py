"""Rung 6, no mask where none is needed: whole tiles apart from the ragged tail."""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.parallel.operands import check_operands


class Config(NamedTuple):
    """How `add_kernel` is launched."""

    block: int
    """Elements in a tile, a power of two."""
    num_warps: int
    """Warps that share a tile."""
    tail: int
    """Elements in a step of the last tile where that is ragged, a power of two."""
    maxnreg: int | None
    """Registers of a thread at most; None leaves the number to the compiler."""


LARGE = 2**27
"""From this many bytes in an operand on, fewer threads at a time are faster."""

# By the bytes of one element, each as it was fastest on an H200: the tail's steps are
# so long that they take all the registers they are allowed, and with those three
# quarters of the threads fit, or five eighths.
CAPPED = {
    1: Config(2048, 4, 4096, 48),
    2: Config(1024, 4, 2048, 48),
    4: Config(2048, 16, 4096, 40),
    8: Config(1024, 16, 2048, 40),
}


def config_for(
    element_size: int, nbytes: int, *, capped: bool, warp_size: int = 32
) -> Config:
    """Choose how to launch the kernel.

    Args:
        element_size: bytes of one element: 1, 2, 4 or 8.
        nbytes: bytes of one operand.
        capped: whether the number of registers may be set, and is known to help.
        warp_size: threads in a warp.

    Returns:
        Tiles that give each thread one 16-byte load of each operand; from `LARGE` on
        as in `CAPPED`.
    """
    if capped and nbytes >= LARGE:
        return CAPPED[element_size]
    return Config(4 * warp_size * 16 // element_size, 4, 256, None)


# One version for every n: the loads that matter don't depend on it.
@triton.jit(do_not_specialize=["n"])
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr, TAIL: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    if start + BLOCK <= n:
        # Without a mask nothing hides from the compiler that 16 bytes at a
        # time are in bounds, whatever n is.
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offs)  # (BLOCK,)
        y = tl.load(y_ptr + offs)  # (BLOCK,)
        # Streaming: nothing here reads the sum again.
        tl.store(out_ptr + offs, x + y, cache_modifier=".cs")
    else:
        # One program takes this path, but all hold the registers it needs.
        for first in range(start, n, TAIL):
            offs = first + tl.arange(0, TAIL)
            mask = offs < n
            x = tl.load(x_ptr + offs, mask=mask, other=0)  # (TAIL,)
            y = tl.load(y_ptr + offs, mask=mask, other=0)  # (TAIL,)
            tl.store(out_ptr + offs, x + y, mask=mask)


def launch(kernel, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> None:
    """Launch the kernel on tensors that lie in memory in one and the same order.

    Args:
        kernel: `add_kernel`, or what `torch.library.wrap_triton` makes of it.
        x: dense tensor, at least one element.
        y: the same shape, strides, dtype and device as `x`.
        out: the same again; receives `x + y`.
    """
    n = x.numel()
    fewer_are_faster, warp_size = _here()
    config = config_for(
        x.element_size(),
        n * x.element_size(),
        # What wraps the kernel for torch.compile takes no such option.
        capped=fewer_are_faster and kernel is add_kernel,
        warp_size=warp_size,
    )
    cap = {"maxnreg": config.maxnreg} if config.maxnreg else {}
    # triton.cdiv says the same, microseconds later.
    kernel[(-(-n // config.block),)](
        x,
        y,
        out,
        n,
        BLOCK=config.block,
        TAIL=config.tail,
        num_warps=config.num_warps,
        **cap,
    )


@functools.cache
def _here() -> tuple[bool, int]:
    """Whether the cap was measured on this GPU, a Hopper; and its warps' size."""
    here = device.current()
    return here.capability == (9, 0), here.warp_size or 32


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add two vectors of any length, 16 bytes at a time also when it is odd.

    Args:
        x: contiguous tensor of any type in `operands.DTYPES`.
        y: the same shape, dtype and device as `x`.

    Returns:
        `x + y`, a new tensor.

    Raises:
        TypeError: an operand isn't a tensor, or its dtype isn't supported.
        ValueError: shapes, dtypes or devices differ, or an operand isn't contiguous.
    """
    check_operands(x, y)
    out = torch.empty_like(x)
    if x.numel():
        launch(add_kernel, x, y, out)
    return out
