"""`transpose` for use: any strides, batches, a gradient, visible to `torch.compile`."""

from typing import Any

import torch

from tilebook import library
from tilebook.tiling import aligned
from tilebook.tiling.operands import bits, check_matrix


@library.operator("tilebook::transpose", opaque=True)
def transpose_operator(x: torch.Tensor) -> torch.Tensor:
    return _transposed(x)


@transpose_operator.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return _place(x)


def _gradient(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    return transpose(grad)


transpose_operator.register_autograd(_gradient)


@transpose_operator.register_vmap
def _(info: Any, in_dims: tuple[int], x: torch.Tensor) -> tuple[torch.Tensor, int]:
    # One more dimension before the last two.
    return transpose(x.movedim(in_dims[0], 0)), 0


def transpose(x: torch.Tensor) -> torch.Tensor:
    """Transpose the last two dimensions, in memory.

    Args:
        x: tensor (..., m, n), at least two dimensions, any strides and number of
            elements, which take 1, 2, 4 or 8 bytes each.

    Returns:
        `x.transpose(-2, -1)` (..., n, m), bit for bit, contiguous and always in new
        memory. Differentiable.

    Raises:
        TypeError: `x` isn't a tensor, a quantised one, or its elements are larger.
        ValueError: fewer dimensions, a tensor where this process's kernels can't reach
            it, or a batch of more tiles than a grid has programs.

    Notes:
        Dimensions before the last two that don't lie in memory as one dimension could
        are copied first. A batch of tiny matrices takes a program for each, unless they
        are single rows or columns.
    """
    x = check_matrix(x, batches=True, gradient=True)
    if not library.eager(x):
        return transpose_operator(x)
    return _transposed(x)


def _place(x: torch.Tensor) -> torch.Tensor:
    shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def _transposed(x: torch.Tensor) -> torch.Tensor:
    out = _place(x)
    if x.numel():
        m, n = x.shape[-2:]
        source, place = bits(x).reshape(-1, m, n), bits(out).view(-1, n, m)
        if m == 1 or n == 1:
            # A batch of rows or columns comes out in the order of one matrix.
            source, place = (
                source.reshape(-1, m * n).t()[None],
                place.view(1, -1, m * n),
            )
        with library.on(x):
            aligned.launch(aligned.transpose_kernel, source, place)
    return out
