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


NUM_WARPS = 4

TAIL = 2048
"""Elements in a step of the ragged tile where registers are capped."""

# A GPU's caps, each with the bytes of an operand from which on it is the
# fastest. With 128 threads in a program, 40 registers let 1536 threads live
# on an SM, 48 let 1280, 56 let 1152 and 64 let 1024.
CAPS = {
    "h100-sxm": ((2**28, 64), (2**26, 56)),
    "h200-sxm": ((2**28, 48), (2**26, 40),),
}  # fmt: skip


def config_for(
    element_size: int, nbytes: int, *, gpu: str | None = None, warp_size: int = 32
) -> Config:
    """Choose how to launch the kernel.

    Args:
        element_size: bytes of one element: 1, 2, 4 or 8.
        nbytes: bytes of one operand.
        gpu: the GPU's short name if its registers may be capped.
        warp_size: threads in a warp.

    Returns:
        Tiles that give each thread one 16-byte load of each operand; large operands
        on a GPU of `CAPS` with fewer threads at a time.
    """
    block = NUM_WARPS * warp_size * 16 // element_size
    for least, maxnreg in CAPS.get(gpu, ()):
        if nbytes >= least:
            return Config(block, NUM_WARPS, TAIL, maxnreg)
    return Config(block, NUM_WARPS, 256, None)


# One version for every n: the loads that matter don't depend on it.
@triton.jit(do_not_specialize=["n"])
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr, TAIL: tl.constexpr):
    # The ragged tile is the slow one: it goes first, while the others
    # are still to come.
    pid = tl.program_id(0)
    tile = tl.where(pid == 0, tl.num_programs(0), pid) - 1
    start = tile.to(tl.int64) * BLOCK
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
    gpu, warp_size = _here()
    config = config_for(
        x.element_size(),
        x.numel() * x.element_size(),
        # What wraps the kernel for torch.compile takes no cap.
        gpu=gpu if kernel is add_kernel else None,
        warp_size=warp_size,
    )
    launch_as(config, kernel, x, y, out)


def launch_as(
    config: Config, kernel, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor
):
    """Launch the kernel in a way of your own; see `launch`.

    Args:
        config: the way.
        kernel: see `launch`.
        x: see `launch`.
        y: see `launch`.
        out: see `launch`.

    Returns:
        What Triton returns of a launch: the compiled kernel, if it was compiled.
    """
    n = x.numel()
    cap = {"maxnreg": config.maxnreg} if config.maxnreg else {}
    # triton.cdiv says the same, microseconds later.
    return kernel[(-(-n // config.block),)](
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
def _here() -> tuple[str | None, int]:
    """This GPU's short name, and its warps' size."""
    here = device.current()
    return here.slug, here.warp_size or 32


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
