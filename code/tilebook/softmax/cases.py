"""Operands of the chapter's experiments, and what they are held against."""

import torch

from tilebook import device


def matrix(shape: tuple[int, int], dtype: torch.dtype) -> list[torch.Tensor]:
    """Random numbers, to be softmax's operand."""
    return [torch.randn(shape, device=device.torch_device(), dtype=dtype)]


def softmax_rows(x: torch.Tensor) -> torch.Tensor:
    """PyTorch's softmax of rows."""
    return torch.softmax(x, -1)


def operands_of_gradient(
    shape: tuple[int, int], dtype: torch.dtype
) -> list[torch.Tensor]:
    """A result of softmax, and what arrives for it."""
    where = device.torch_device()
    y = torch.randn(shape, device=where).softmax(-1).to(dtype)
    return [y, torch.randn(shape, device=where, dtype=dtype)]


def gradient_formula(y: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """The gradient of softmax, in PyTorch's operations."""
    return y * (grad - (y * grad).sum(-1, keepdim=True))
