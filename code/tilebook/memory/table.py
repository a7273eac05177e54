"""Where a hint pays: a table that everybody reads, beside a stream that nobody rereads.

Each tile of a long vector gets a tile of a table added that fits into L2. The vector
and the result pass through L2 as well, and push the table out unless they are told to
leave first.
"""

import torch
import triton
import triton.language as tl

from tilebook import check
from tilebook.memory.layout import written

BLOCK = 1024
NUM_WARPS = 4
STEP = 7919
"""Tiles of the table from one program's to the next one's: a prime, so that all are
read, and long before the first is read again."""


@triton.jit
def table_kernel(
    x_ptr, table_ptr, out_ptr, n, tiles, STEP: tl.constexpr,
    KEEP: tl.constexpr, STREAM: tl.constexpr, STORE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, BLOCK)
    offs = pid * BLOCK + lanes
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0, eviction_policy=STREAM)
    picked = pid * STEP % tiles * BLOCK + lanes
    entry = tl.load(table_ptr + picked, eviction_policy=KEEP)  # (BLOCK,)
    tl.store(out_ptr + offs, x + entry, mask=mask, cache_modifier=STORE)


def add_table(
    x: torch.Tensor,
    table: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
    hints: bool = False,
) -> torch.Tensor:
    """Add to each tile of a vector a tile of a table: number `pid * STEP % tiles`.

    Args:
        x: (n,) float32, contiguous.
        table: (tiles, BLOCK) float32, contiguous, at least one tile.
        out: (n,) float32, contiguous; receives the result.
        hints: whether the table is asked to stay in L2 and all else to leave first.

    Returns:
        `out`, or a new tensor.

    Raises:
        TypeError: a tensor isn't one, or isn't float32.
        ValueError: shapes or devices differ, a tensor isn't contiguous, or the table
            has no tiles.
    """
    operands = {"x": x} | ({} if out is None else {"out": out})
    for name, tensor in operands.items():
        check.tensor(tensor, name, dtype=torch.float32, ndim=1, contiguous=True)
    check.tensor(
        table, "table", dtype=torch.float32, shape=(None, BLOCK), contiguous=True
    )
    check.same_shape(**operands)
    check.same_device(**operands, table=table)
    check.runs_here(x, "x", current=True)
    if not table.numel():
        raise ValueError("table must have at least one tile, got none")
    if out is None:
        out = torch.empty_like(x)
    else:
        written(out, x, table)
    if n := x.numel():
        table_kernel[(triton.cdiv(n, BLOCK),)](
            x, table, out, n, table.shape[0], STEP=STEP,
            KEEP="evict_last" if hints else "",
            STREAM="evict_first" if hints else "",
            STORE=".cs" if hints else "",
            BLOCK=BLOCK, num_warps=NUM_WARPS,
        )  # fmt: skip
    return out


def added(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """What `add_table` returns, in PyTorch.

    Args:
        x: see `add_table`, any floating dtype.
        table: see `add_table`.

    Returns:
        (n,) of the same dtype.
    """
    tiles = triton.cdiv(x.numel(), BLOCK)
    picked = torch.arange(tiles, device=x.device) * STEP % table.shape[0]
    return x + table[picked].reshape(-1)[: x.numel()]
