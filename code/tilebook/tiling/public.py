"""`transpose` for use: any strides, batches, a gradient, visible to `torch.compile`."""

from typing import Any

import torch

from tilebook import library
from tilebook.tiling import aligned
from tilebook.tiling.operands import bits, check_matrix


@library.operator("tilebook::transpose")
def transpose_operator(x: torch.Tensor) -> torch.Tensor:
    return _transposed(library.launchable(aligned.transpose_kernel), x)


@transpose_operator.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return _place(x)


def _gradient(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    return transpose(grad)


transpose_operator.register_autograd(_gradient)


def transpose(x: torch.Tensor) -> torch.Tensor:
    """Transpose the last two dimensions, in memory.

    Args:
        x: tensor (..., m, n), at least two dimensions, any strides and number of
            elements, which take 1, 2, 4 or 8 bytes each.

    Returns:
        `x.transpose(-2, -1)` (..., n, m), bit for bit, contiguous and always in new
        memory. Differentiable.

    Raises:
        TypeError: `x` isn't a tensor, or its elements are larger.
        ValueError: fewer dimensions, or a tensor where this process's kernels can't
            reach it.

    Notes:
        Dimensions before the last two that don't lie in memory as one dimension could
        are copied first. A batch of tiny matrices takes a program for each.
    """
    check_matrix(x, least=0)
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, got {x.ndim}")
    # Views that PyTorch conjugates or negates when they are read.
    x = x.resolve_conj().resolve_neg()
    if not library.eager(x):
        return transpose_operator(x)
    return _transposed(aligned.transpose_kernel, x)


def _place(x: torch.Tensor) -> torch.Tensor:
    shape = (*x.shape[:-2], x.shape[-1], x.shape[-2])
    return torch.empty(shape, dtype=x.dtype, device=x.device)


def _transposed(kernel: Any, x: torch.Tensor) -> torch.Tensor:
    out = _place(x)
    if x.numel():
        m, n = x.shape[-2:]
        with library.on(x):
            aligned.launch(kernel, bits(x).reshape(-1, m, n), bits(out).view(-1, n, m))
    return out
