"""The shapes of the chapter's kernels, from launches of them."""

import pandas as pd
import torch

from tilebook import check, microscope
from tilebook.tiling import by_hand, tiled


def transpose(
    block_m: int = 4, block_n: int = 8, *, expressions: bool = False
) -> pd.DataFrame:
    """Tabulate what one program of `tiled` computes.

    Args:
        block_m: rows of its tile, a power of two.
        block_n: columns of it, a power of two.
        expressions: list what has no name as well.

    Returns:
        As `microscope.shapes` does: name, shape, dtype and line of each value.

    Raises:
        TypeError: a side isn't an integer.
        ValueError: it is no power of two, or above 64.
    """
    m = check.power_of_two(block_m, "block_m", tiled.BLOCK_M)
    n = check.power_of_two(block_n, "block_n", tiled.BLOCK_N)
    x, out = torch.zeros(m, n), torch.zeros(n, m)
    return microscope.shapes(
        tiled.transpose_kernel, (1,), x, out, m, n, n, 1,
        BLOCK_M=m, BLOCK_N=n, expressions=expressions,
    )  # fmt: skip


def matmul(block: int = 4, *, expressions: bool = False) -> pd.DataFrame:
    """Tabulate what one program of the product by hand computes, in two steps.

    Args:
        block: side of its tile, one of `by_hand.BLOCKS`.
        expressions: list what has no name as well.

    Returns:
        As `microscope.shapes` does: name, shape, dtype and line of each value.

    Raises:
        ValueError: another side.
    """
    check.one_of(block, "block", by_hand.BLOCKS)
    a, b = torch.zeros(block, 2 * block), torch.zeros(2 * block, block)
    c = torch.zeros(block, block)
    return microscope.shapes(
        by_hand.matmul_kernel, (1,), a, b, c, block, block, 2 * block,
        BLOCK=block, GROUP=1, expressions=expressions,
    )  # fmt: skip
