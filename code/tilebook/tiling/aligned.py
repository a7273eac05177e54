"""Rung 4, what divides a stride is said: 16 bytes at a time from more matrices."""

import math
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from tilebook import library
from tilebook.tiling.grouped import grouped
from tilebook.tiling.operands import bits, check_grid, check_matrix


class Config(NamedTuple):
    """How `transpose_kernel` is launched."""

    block_m: int
    """Rows of a tile of the input, a power of two."""
    block_n: int
    """Columns of it, a power of two."""
    group: int
    """Rows of tiles in a strip."""
    num_warps: int
    """Warps that share a tile."""
    load: str = "evict_last"
    """Eviction policy of loads."""
    store: str = ""
    """Cache modifier of stores."""


# By bytes of an element: rows and columns of a tile, and the warps that turn it.
TILES = {1: (128, 128, 8), 2: (128, 64, 8), 4: (64, 64, 8), 8: (64, 64, 8)}
# The same for a matrix so small that large tiles would leave multiprocessors idle.
SMALL_TILES = {1: (64, 128, 8), 2: (64, 64, 8), 4: (64, 32, 8), 8: (32, 32, 8)}
SMALL = 2**25
"""Bytes of such a matrix, at most."""
# The same two where elements go by ones or twos.
NARROW_TILES = {1: (256, 32, 4), 2: (256, 32, 4), 4: (128, 64, 4), 8: (64, 64, 8)}
SMALL_NARROW_TILES = {1: (32, 64, 4), 2: (32, 64, 4), 4: (64, 32, 8), 8: (32, 32, 8)}
SMALL_NARROW = 2**23
NARROW = 4
# And for those of them with a side below `THIN`, whichever it is.
THIN_TILES = {1: (256, 32, 4), 2: (128, 32, 2), 4: (128, 32, 4), 8: (64, 64, 8)}
THIN = 64
# Neighbours in a strip share nothing of a transpose: strips are of one row of tiles.
GROUP = 1


def config_for(element_size: int, m: int, n: int, vector: int = NARROW) -> Config:
    """Choose how to launch the kernel.

    Args:
        element_size: bytes of one element: 1, 2, 4 or 8.
        m: rows, at least one.
        n: columns, at least one.
        vector: elements that can be moved at a time.

    Returns:
        A tile of the table for such matrices; for one thinner than the tile, a tile of
        as many elements that is as thin.
    """
    nbytes, thin = m * n * element_size, min(m, n) < THIN
    if vector >= min(NARROW, 16 // element_size):
        tiles = SMALL_TILES if nbytes <= SMALL and not thin else TILES
    elif thin:
        tiles = THIN_TILES
    else:
        tiles = SMALL_NARROW_TILES if nbytes <= SMALL_NARROW else NARROW_TILES
    rows, columns, num_warps = tiles[element_size]
    area = rows * columns
    block_m = min(rows, triton.next_power_of_2(m))
    block_n = min(columns, triton.next_power_of_2(n))
    if block_n < columns:
        block_m = min(area // block_n, triton.next_power_of_2(m))
    elif block_m < rows:
        block_n = min(area // block_m, triton.next_power_of_2(n))
    return Config(block_m, block_n, GROUP, num_warps)


@triton.jit
def transpose_kernel(
    x_ptr, out_ptr, m, n, stride_b, stride_m, stride_n,
    DIV_B: tl.constexpr, DIV_M: tl.constexpr, DIV_N: tl.constexpr,
    M_DIV: tl.constexpr, N_DIV: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
    WITHIN: tl.constexpr, LOAD: tl.constexpr, STORE: tl.constexpr,
):  # fmt: skip
    # Triton asks of an argument whether it is 1 and whether 16 divides it.
    # A factor that is a constant tells the compiler of 2, 4 and 8 as well.
    m, n = tl.cast(m, tl.int64) * M_DIV, tl.cast(n, tl.int64) * N_DIV
    stride_m, stride_n = tl.cast(stride_m, tl.int64), tl.cast(stride_n, tl.int64)
    # There are no more tiles than programs, so 32 bits hold their number: a
    # division in 64 is a hundred instructions.
    tiles_m = tl.cdiv(m, BLOCK_M).to(tl.int32)
    tiles_n = tl.cdiv(n, BLOCK_N).to(tl.int32)
    pid = tl.program_id(0)
    batch = (pid // (tiles_m * tiles_n)).to(tl.int64)
    tile = pid % (tiles_m * tiles_n)
    pid_m, pid_n = tile // tiles_n, tile % tiles_n
    if GROUP > 1:
        pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
    start_m, start_n = pid_m.to(tl.int64) * BLOCK_M, pid_n.to(tl.int64) * BLOCK_N
    stride_m, stride_n = stride_m * DIV_M, stride_n * DIV_N
    # To where the tile begins, in 64 bits, once; within the tile, for each
    # element, in as few as hold the farthest.
    x_ptr += batch * stride_b * DIV_B + start_m * stride_m + start_n * stride_n
    out_ptr += batch * n * m + start_n * m + start_m
    rows, columns = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_N)
    rows_left = tl.minimum(m - start_m, BLOCK_M).to(tl.int32)
    columns_left = tl.minimum(n - start_n, BLOCK_N).to(tl.int32)
    mask = (rows < rows_left)[:, None] & (columns < columns_left)[None, :]
    x = tl.load(
        x_ptr
        + rows[:, None] * stride_m.to(WITHIN)
        + columns[None, :] * stride_n.to(WITHIN),
        mask=mask,
        other=0,
        eviction_policy=LOAD,
    )  # (BLOCK_M, BLOCK_N)
    tl.store(
        out_ptr + columns[:, None] * m.to(WITHIN) + rows[None, :],
        tl.trans(x),  # (BLOCK_N, BLOCK_M)
        mask=tl.trans(mask),
        cache_modifier=STORE,
    )


def arguments(x: torch.Tensor) -> tuple[list[int], dict[str, int]]:
    """Sizes and strides as the kernel wants them, each split in two factors.

    Args:
        x: tensor (b, m, n), not empty.

    Returns:
        What remains of m, n and the three strides, and the factors as constexprs:
        powers of two, up to the elements that 16 bytes hold.
    """
    most = 16 // x.itemsize
    values, factors = [], {}
    names = ("M_DIV", "N_DIV", "DIV_B", "DIV_M", "DIV_N")
    for name, value in zip(names, (*x.shape[1:], *x.stride()), strict=True):
        # A stride of 1 stays whole: that elements are neighbours counts for more.
        # A dimension of one element is never stepped along.
        factors[name] = math.gcd(int(value), most)
        values.append(int(value) // factors[name])
    return values, factors


def reach(config: Config, x: torch.Tensor) -> int:
    """Elements from a tile's first to its farthest, of the input or the output.

    Args:
        config: the tile.
        x: tensor (b, m, n) that is to be transposed.
    """
    _, stride_m, stride_n = x.stride()
    rows, columns = config.block_m - 1, config.block_n - 1
    return max(
        rows * abs(stride_m) + columns * abs(stride_n), columns * x.shape[1] + rows
    )


def launch(kernel: Any, x: torch.Tensor, out: torch.Tensor) -> Any:
    """Launch the kernel on a batch of matrices.

    Args:
        kernel: `transpose_kernel`, or a stand-in that notes how it is launched.
        x: integers (b, m, n), any strides, not empty.
        out: the same type (b, n, m), contiguous; receives the transposes.

    Returns:
        What Triton returns of a launch.
    """
    _, factors = arguments(x)
    beside = {"DIV_M", "DIV_N"}
    # Where elements are neighbours nothing has to divide their stride.
    vector = min(
        factor
        for (name, factor), stride in zip(
            factors.items(), (0, 0, *x.stride()), strict=True
        )
        if not (name in beside and stride == 1)
    )
    return launch_as(
        config_for(x.itemsize, *map(int, x.shape[1:]), vector), kernel, x, out
    )


def launch_as(config: Config, kernel: Any, x: torch.Tensor, out: torch.Tensor) -> Any:
    """Launch the kernel in a way of your own; see `launch`."""
    # Under torch.compile a size may be a symbol; a kernel is compiled for numbers.
    b, m, n = map(int, x.shape)
    values, factors = arguments(x)
    tiles = -(-m // config.block_m) * -(-n // config.block_n)
    return kernel[(check_grid(b * tiles, "tiles"),)](
        x,
        out,
        *values,
        **factors,
        BLOCK_M=config.block_m,
        BLOCK_N=config.block_n,
        GROUP=config.group,
        WITHIN=tl.int32 if reach(config, x) < 2**31 else tl.int64,
        LOAD=config.load,
        STORE=config.store,
        num_warps=config.num_warps,
    )


def transpose(x: torch.Tensor) -> torch.Tensor:
    """Transpose a matrix, 16 bytes at a time wherever its strides allow it.

    Args:
        x: matrix (m, n), any strides, elements of 1, 2, 4 or 8 bytes.

    Returns:
        The transpose (n, m), contiguous, in new memory.

    Raises:
        TypeError: `x` isn't a tensor, or its elements are larger.
        ValueError: not a matrix, one where this process's kernels can't reach it, or
            one that takes part in a gradient.
    """
    x = check_matrix(x)
    m, n = x.shape
    out = torch.empty((n, m), dtype=x.dtype, device=x.device)
    if out.numel():
        with library.on(x):
            launch(transpose_kernel, bits(x)[None], bits(out)[None])
    return out
