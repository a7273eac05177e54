"""Rung 2, 16 bytes for each thread: one load instruction moves all of them."""

import torch
import triton
import triton.language as tl

from tilebook.memory import vectors

NUM_WARPS = 4
LOAD_BYTES = 16
"""What a thread loads with one instruction at most."""


# One version for every n: the loads that matter don't depend on it.
@triton.jit(do_not_specialize=["n"])
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offs = start + tl.arange(0, BLOCK)
    if start + BLOCK <= n:
        # No mask: nothing hides that 16 bytes at a time are in bounds.
        x = tl.load(x_ptr + offs)  # (BLOCK,)
        tl.store(out_ptr + offs, x)
    else:
        mask = offs < n
        x = tl.load(x_ptr + offs, mask=mask, other=0)  # (BLOCK,)
        tl.store(out_ptr + offs, x, mask=mask)


def block_of(x: torch.Tensor, *, loads: int = 1, num_warps: int = NUM_WARPS) -> int:
    """How many elements a program moves.

    Args:
        x: words, as `vectors.words` gives them.
        loads: of 16 bytes for each thread, a power of two.
        num_warps: warps in a program.

    Returns:
        A power of two.
    """
    return 32 * num_warps * loads * LOAD_BYTES // x.element_size()


def launch(
    kernel,
    x: torch.Tensor,
    out: torch.Tensor,
    *,
    loads: int = 1,
    num_warps: int = NUM_WARPS,
    maxnreg: int | None = None,
):
    """Launch the kernel on words.

    Args:
        kernel: `copy_kernel`, or what `torch.library.wrap_triton` makes of it.
        x: words, at least one.
        out: as many of the same size.
        loads: of 16 bytes for each thread, a power of two.
        num_warps: warps in a program, a power of two.
        maxnreg: registers of a thread at most.

    Returns:
        What Triton returns of a launch: the compiled kernel, if it was compiled.
    """
    block = block_of(x, loads=loads, num_warps=num_warps)
    cap = {"maxnreg": maxnreg} if maxnreg else {}
    grid = (triton.cdiv(x.numel(), block),)
    return kernel[grid](x, out, x.numel(), BLOCK=block, num_warps=num_warps, **cap)


def copy(x: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Copy a vector, 16 bytes for each thread.

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
        launch(copy_kernel, *vectors.words(x, out))
    return out
