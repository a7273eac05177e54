"""Rung 7, fewer threads at a time: their number set through the registers they hold."""

import functools
from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import device
from tilebook.memory import vectors


class Config(NamedTuple):
    """How `copy_kernel` is launched."""

    loads: int
    """Loads of 16 bytes that a thread has on their way at a time, a power of two."""
    num_warps: int
    """Warps in a program."""
    tail: int
    """Words in a step of the last tile where that is ragged, a power of two."""
    maxnreg: int | None
    """Registers of a thread at most; None leaves the number to the compiler."""
    load: str = ""
    """Eviction policy of loads."""
    store: str = ""
    """Cache modifier of stores."""


SHORT = Config(loads=1, num_warps=4, tail=256, maxnreg=None)
"""For vectors that no GPU's `CAPS` speak of."""

# With 256 threads in a program, 128 registers let 512 threads live on an SM: 32 KiB on
# their way. A step of the tail makes a thread hold 32 words, with their addresses, or
# else the compiler asks for fewer registers than it may have.
CAPPED = Config(loads=4, num_warps=8, tail=8192, maxnreg=128)
# By GPU, configurations with the bytes of a vector from which on each is the fastest.
CAPS = {
    "h100-sxm": ((2**24, CAPPED),),
    "h200-sxm": ((2**24, CAPPED),),
}


@triton.jit(do_not_specialize=["n"])
def copy_kernel(
    x_ptr, out_ptr, n, BLOCK: tl.constexpr, TAIL: tl.constexpr,
    LOAD: tl.constexpr, STORE: tl.constexpr,
):  # fmt: skip
    # The ragged tile is the slow one: it goes first.
    pid = tl.program_id(0)
    tile = tl.where(pid == 0, tl.num_programs(0), pid) - 1
    start = tile.to(tl.int64) * BLOCK
    if start + BLOCK <= n:
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offs, eviction_policy=LOAD)  # (BLOCK,)
        tl.store(out_ptr + offs, x, cache_modifier=STORE)
    else:
        # One program takes this path; all hold the registers that it needs.
        for first in range(start, n, TAIL):
            offs = first + tl.arange(0, TAIL)
            mask = offs < n
            x = tl.load(x_ptr + offs, mask=mask, other=0)  # (TAIL,)
            tl.store(out_ptr + offs, x, mask=mask)


def config_for(nbytes: int, *, gpu: str | None = None) -> Config:
    """Choose how to launch the kernel.

    Args:
        nbytes: of the vector.
        gpu: the GPU's short name, if known.

    Returns:
        One load for each thread; for a long vector on a GPU of `CAPS`, fewer threads
        at a time with more loads each.
    """
    for least, config in CAPS.get(gpu, ()):
        if nbytes >= least:
            return config
    return SHORT


def launch(x: torch.Tensor, out: torch.Tensor) -> None:
    """Launch the kernel on words.

    Args:
        x: words, as `vectors.words` gives them, at least one.
        out: as many of the same size.
    """
    launch_as(config_for(x.nbytes, gpu=_here()), x, out)


def launch_as(config: Config, x: torch.Tensor, out: torch.Tensor):
    """Launch the kernel in a way of your own; see `launch`.

    Args:
        config: the way.
        x: see `launch`.
        out: see `launch`.

    Returns:
        What Triton returns of a launch: the compiled kernel, if it was compiled.
    """
    n = x.numel()
    block = 32 * config.num_warps * config.loads * 16 // x.element_size()
    cap = {"maxnreg": config.maxnreg} if config.maxnreg else {}
    return copy_kernel[(-(-n // block),)](
        x, out, n, BLOCK=block, TAIL=config.tail, LOAD=config.load, STORE=config.store,
        num_warps=config.num_warps, **cap,
    )  # fmt: skip


@functools.cache
def _here() -> str | None:
    return device.current().slug


def copy(x: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Copy a vector with no more threads at a time than keep the memory busy.

    Args:
        x: contiguous tensor, any dtype of up to 8 bytes.
        out: contiguous, the same shape, dtype and device; receives the copy.

    Returns:
        `out`, or a new tensor.

    Raises:
        TypeError: a tensor isn't one, or has another dtype.
        ValueError: shapes or devices differ, or a tensor isn't contiguous.
    """
    out = vectors.check(x, out)
    if x.numel():
        launch(*vectors.words(x, out))
    return out
