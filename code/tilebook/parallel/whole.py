"""Rung 6, no mask where none is needed: whole tiles apart from the ragged tail."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tilebook.parallel.operands import check_operands


class Config(NamedTuple):
    """How `whole.add_kernel` is launched for one size of element."""

    block: int
    """Elements in a tile, a power of two."""
    num_warps: int
    """Warps that share a tile."""
    load_policy: str
    """Eviction policy of the loads: "", "evict_first" or "evict_last"."""
    store_modifier: str
    """Cache modifier of the store: "", ".cs", ".cg" or ".wb"."""


# Keyed by the bytes of one element. Each thread has two 16-byte loads of each operand
# on their way at once.
CONFIGS = {
    1: Config(4096, 4, "", ""),
    2: Config(2048, 4, "", ""),
    4: Config(1024, 4, "", ""),
    8: Config(512, 4, "", ""),
}
TAIL = 512


@triton.jit
def add_kernel(
    x_ptr,
    y_ptr,
    out_ptr,
    n,
    BLOCK: tl.constexpr,
    TAIL: tl.constexpr,
    LOAD_POLICY: tl.constexpr,
    STORE_MODIFIER: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    if start + BLOCK <= n:
        # Without a mask nothing hides from the compiler that 16 bytes at a
        # time are in bounds, whatever n is.
        offs = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offs, eviction_policy=LOAD_POLICY)  # (BLOCK,)
        y = tl.load(y_ptr + offs, eviction_policy=LOAD_POLICY)  # (BLOCK,)
        tl.store(out_ptr + offs, x + y, cache_modifier=STORE_MODIFIER)
    else:
        # One program takes this path, but all hold the registers it needs:
        # hence small steps rather than one masked tile.
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
    config = CONFIGS[x.element_size()]
    kernel[(triton.cdiv(n, config.block),)](
        x,
        y,
        out,
        n,
        BLOCK=config.block,
        TAIL=TAIL,
        LOAD_POLICY=config.load_policy,
        STORE_MODIFIER=config.store_modifier,
        num_warps=config.num_warps,
    )


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
