"""The gradients of softmax and of its logarithm as an operator, and theirs in turn."""

import math
from typing import Any

import torch

from tilebook import library
from tilebook.softmax import backward_columns, backward_cooperative
from tilebook.softmax.choose import choose_gradient, describe_gradient
from tilebook.softmax.operands import PLAIN, Task


@library.operator("tilebook::softmax_gradient")
def gradient_operator(
    grad: torch.Tensor,
    y: torch.Tensor,
    dim: int,
    inverse_t: float,
    log: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    return gradient(Task(inverse_t, log, library.launchable), grad, y, dim, dtype)


@gradient_operator.register_fake
def _(
    grad: torch.Tensor,
    y: torch.Tensor,
    dim: int,
    inverse_t: float,
    log: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    return torch.empty(y.shape, dtype=dtype, device=y.device)


def _keep(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    grad, y, *ctx.rest = inputs
    ctx.save_for_backward(grad, y)


def _second(ctx: Any, arrived: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """The gradient of dx = y (g - s) / T, or of dx = (g - s e^y) / T, by g and by y."""
    grad, y = ctx.saved_tensors
    dim, inverse_t, log, _ = ctx.rest
    arrived = arrived.to(y.dtype)
    if log:
        p = y.exp()
        s = grad.sum(dim, keepdim=True)
        by_grad = (arrived - (arrived * p).sum(dim, keepdim=True)) * inverse_t
        by_y = -inverse_t * arrived * p * s
    else:
        s = (y * grad).sum(dim, keepdim=True)
        a = (y * arrived).sum(dim, keepdim=True)
        # By g it is the same map again: it is symmetric.
        by_grad = gradient_operator(arrived, y, dim, inverse_t, log, grad.dtype)
        by_y = (arrived * (grad - s) - a * grad) * inverse_t
    return by_grad, by_y, None, None, None, None


gradient_operator.register_autograd(_second, setup_context=_keep)


def gradient(
    task: Task, grad: torch.Tensor, y: torch.Tensor, dim: int, dtype: torch.dtype
) -> torch.Tensor:
    """Compute the gradient of the operand.

    Args:
        task: what was wanted, and how kernels are wrapped.
        grad: what arrives for the result, of its shape, any strides.
        y: the result of softmax, or of its logarithm.
        dim: the dimension that it went over, not negative.
        dtype: of the operand.

    Returns:
        A tensor of the operand's dtype, contiguous.
    """
    y = y.contiguous()
    dx = torch.empty(y.shape, dtype=dtype, device=y.device)
    if not dx.numel():
        return dx
    outer, n, inner = around(y.shape, dim)
    with library.on(y):
        if inner == 1:
            grad = grad.reshape(outer, n)
            if n > 1 and grad.stride(1) != 1:
                grad = grad.contiguous()
            place = dx.view(outer, n)
            rows = y.view(outer, n)
            # torch.compile traces with tensors of other types.
            real = type(y) in (torch.Tensor, torch.nn.Parameter)
            facts = describe_gradient(rows, grad, place, plain=real)
            way, config = choose_gradient(facts)
            if way is backward_cooperative:
                task = task._replace(wrap=PLAIN.wrap)
            way.launch_as(config, rows, grad, place, task)
        else:
            shape = (outer, n, inner)
            backward_columns.launch_as(
                backward_columns.config_for(n, inner, y.itemsize),
                y.view(shape),
                grad.contiguous().view(shape),
                dx.view(shape),
                task,
            )
    return dx


def around(shape: torch.Size, dim: int) -> tuple[int, int, int]:
    """Elements before a dimension, in it, and after it.

    Args:
        shape: of a tensor.
        dim: one of its dimensions, not negative.

    Returns:
        Three sizes. A dimension of one element counts as the last: where nothing is
        summed, all may be rows.
    """
    before, n, after = (
        math.prod(map(int, part))
        for part in (shape[:dim], shape[dim : dim + 1], shape[dim + 1 :])
    )
    return (before * after, n, 1) if n == 1 else (before, n, after)
