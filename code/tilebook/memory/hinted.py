"""Rung 5, hints for the caches: what is read or written once need not stay."""

import torch
import triton
import triton.language as tl

from tilebook import check
from tilebook.memory import vectors, wide

LOADS = ("", ".cg", ".ca", "evict_first", "evict_last")
STORES = ("", ".cs", ".cg", ".wt", "evict_first", "evict_last")


@triton.jit(do_not_specialize=["n"])
def copy_kernel(
    x_ptr,
    out_ptr,
    n,
    BLOCK: tl.constexpr,
    LOAD: tl.constexpr,
    KEEP: tl.constexpr,
    STORE: tl.constexpr,
    LEAVE: tl.constexpr,
):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offs = start + tl.arange(0, BLOCK)
    if start + BLOCK <= n:
        x = tl.load(x_ptr + offs, cache_modifier=LOAD, eviction_policy=KEEP)
        tl.store(out_ptr + offs, x, cache_modifier=STORE, eviction_policy=LEAVE)
    else:
        mask = offs < n
        x = tl.load(x_ptr + offs, mask=mask, other=0)  # (BLOCK,)
        tl.store(out_ptr + offs, x, mask=mask)


def copy(
    x: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    load: str = "evict_first",
    store: str = ".cs",
) -> torch.Tensor:
    """Copy a vector and tell the caches what to think of it.

    Args:
        x: contiguous tensor, any dtype of up to 8 bytes.
        out: contiguous, the same shape, dtype and device; receives the copy.
        load: one of `LOADS`: a cache modifier, or an eviction policy.
        store: one of `STORES`.

    Returns:
        `out`, or a new tensor.

    Raises:
        TypeError: a tensor isn't one, or has another dtype.
        ValueError: shapes or devices differ, a tensor isn't contiguous, or a hint is
            unknown.
    """
    check.one_of(load, "load", LOADS)
    check.one_of(store, "store", STORES)
    out = vectors.check(x, out)
    if x.numel():
        source, target = vectors.words(x, out)
        block = wide.block_of(source)
        grid = (triton.cdiv(source.numel(), block),)
        policy = ["" if hint.startswith(".") else hint for hint in (load, store)]
        copy_kernel[grid](
            source,
            target,
            source.numel(),
            BLOCK=block,
            LOAD=load if load.startswith(".") else "",
            KEEP=policy[0],
            STORE=store if store.startswith(".") else "",
            LEAVE=policy[1],
            num_warps=wide.NUM_WARPS,
        )
    return out
