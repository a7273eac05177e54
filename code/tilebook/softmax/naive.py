"""Rung 1, PyTorch step by step: five kernels, each of which goes through memory.

For m rows of n elements, in elements read and written::

    | step | reads | writes |
    |---|---|---|
    | maximum of each row | mn | m |
    | subtract it | mn + m | mn |
    | exponential | mn | mn |
    | sum of each row | mn | m |
    | divide by it | mn + m | mn |

That is 5mn + 2m in and 3mn + 2m out, 8mn + 4m together, where reading the input once
and writing the result once would be 2mn. At the speed of memory four fifths of the
time and more go to what nobody asked for: at best a quarter of the bandwidth is left.
"""

import torch

from tilebook.softmax.operands import check_rows


def softmax(x: torch.Tensor) -> torch.Tensor:
    """Compute the softmax of each row with PyTorch's operations, one by one.

    Args:
        x: matrix (m, n) of a type in `operands.DTYPES`, any row stride.

    Returns:
        Its softmax (m, n), contiguous, of the same dtype.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: not a matrix with neighbours in its rows, or one where this
            process's kernels can't reach it.

    Notes:
        Each step rounds to the operand's dtype: narrow types lose accuracy here that
        the kernels of the other rungs keep.
    """
    check_rows(x)
    if not x.numel():
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    top = x.amax(dim=1, keepdim=True)
    shifted = x - top
    powers = shifted.exp()
    total = powers.sum(dim=1, keepdim=True)
    return powers / total


def traffic(m: int, n: int) -> int:
    """Count the elements that the five steps read and write.

    Args:
        m: rows.
        n: elements of a row.

    Returns:
        8mn + 4m.
    """
    reads = [m * n, m * n + m, m * n, m * n, m * n + m]
    writes = [m, m * n, m * n, m, m * n]
    return sum(reads) + sum(writes)
