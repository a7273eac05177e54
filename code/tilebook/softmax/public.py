"""`softmax` and `log_softmax` for use: any shape and strides, masks, gradients."""

from typing import Any

import torch

from tilebook import check, library
from tilebook.softmax import arguments, columns, cooperative, masked, resident
from tilebook.softmax.choose import choose, describe
from tilebook.softmax.derivative import around, gradient_operator
from tilebook.softmax.operands import PLAIN, Task


@library.operator("tilebook::softmax")
def softmax_operator(
    x: torch.Tensor, dim: int, inverse_t: float, log: bool, dtype: torch.dtype
) -> torch.Tensor:
    return _over(Task(inverse_t, log, library.launchable), x, dim, dtype)


@softmax_operator.register_fake
def _(
    x: torch.Tensor, dim: int, inverse_t: float, log: bool, dtype: torch.dtype
) -> torch.Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device)


def _keep(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    x, ctx.dim, ctx.inverse_t, ctx.log, _ = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(output)


def _gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (y,) = ctx.saved_tensors
    dx = gradient_operator(grad, y, ctx.dim, ctx.inverse_t, ctx.log, ctx.dtype)
    return dx, None, None, None, None


softmax_operator.register_autograd(_gradient, setup_context=_keep)


@library.operator("tilebook::masked_softmax")
def masked_operator(
    x: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    inverse_t: float,
    log: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    task = Task(inverse_t, log, library.launchable)
    return _masked(task, x, mask, causal, dtype)


@masked_operator.register_fake
def _(
    x: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    inverse_t: float,
    log: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    return torch.empty(x.shape, dtype=dtype, device=x.device)


def _keep_masked(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    x, mask, ctx.causal, ctx.inverse_t, ctx.log, _ = inputs
    ctx.dtype = x.dtype
    ctx.save_for_backward(output, mask)


def _masked_gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    y, mask = ctx.saved_tensors
    last = y.ndim - 1
    dx = gradient_operator(grad, y, last, ctx.inverse_t, ctx.log, ctx.dtype)
    # What was left out has no part in the result, not even where that is NaN.
    if mask is not None:
        dx = dx.masked_fill(~mask, 0)
    if ctx.causal:
        dx = dx.tril()
    return dx, None, None, None, None, None


masked_operator.register_autograd(_masked_gradient, setup_context=_keep_masked)


def softmax(
    x: torch.Tensor,
    dim: int = -1,
    *,
    dtype: torch.dtype | None = None,
    temperature: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Exponentials along a dimension, divided by their sum.

    Args:
        x: tensor of any shape, strides and number of elements, float32, bfloat16,
            float16 or float64; of any real dtype if `dtype` is given.
        dim: the dimension, counted from the end if negative.
        dtype: the result's, one of the four; `x` is converted to it first, and by the
            kernel itself if that only widens it. By default that of `x`.
        temperature: what `x` is divided by first; positive.
        mask: bool, of a shape that broadcasts to that of `x`: False leaves an element
            out, as if it were -inf, whatever it is.
        causal: whether to leave out, besides, element j of row i for j > i, counted in
            the last two dimensions from their beginning, as
            `scaled_dot_product_attention` does with `is_causal`. `dim` is the last.

    Returns:
        The softmax, contiguous, of the shape of `x`. Differentiable, twice and more.
        As PyTorch's it is NaN along `dim` where an element is NaN or +inf, or all are
        -inf; so it is where all are left out.

    Raises:
        TypeError: an argument of another type, or a dtype that isn't allowed.
        ValueError: no such dimension, a temperature that isn't positive or whose
            inverse no float32 holds, a mask that doesn't broadcast, `causal` along
            another dimension than the last of several, or a tensor where this
            process's kernels can't reach it.

    Notes:
        `choose` picks the rung. Computed in float32 (float64 in float64) and rounded
        once: `accuracy` derives the bound. Deterministic. An element is subtracted from
        the largest before the temperature divides: a difference beyond float32 is
        infinite at any temperature.
        A view that no two or three strides describe is copied first; so is, for a mask
        along another dimension than the last, `x` itself.
    """
    return _apply(x, dim, dtype, temperature, mask, causal, log=False)


def log_softmax(
    x: torch.Tensor,
    dim: int = -1,
    *,
    dtype: torch.dtype | None = None,
    temperature: float = 1.0,
    mask: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Logarithm of the softmax, finite also where the softmax rounds to 0.

    Args:
        x: as for `softmax`.
        dim: as for `softmax`.
        dtype: as for `softmax`.
        temperature: as for `softmax`.
        mask: as for `softmax`; what is left out is -inf in the result.
        causal: as for `softmax`.

    Returns:
        `x / temperature` less the logarithm of the sum of its exponentials, as
        described for `softmax`.

    Raises:
        TypeError: as for `softmax`.
        ValueError: as for `softmax`.
    """
    return _apply(x, dim, dtype, temperature, mask, causal, log=True)


def _apply(
    x: torch.Tensor,
    dim: int,
    dtype: torch.dtype | None,
    temperature: float,
    mask: torch.Tensor | None,
    causal: bool,
    log: bool,
) -> torch.Tensor:
    check.tensor(x, "x")
    check.runs_here(x, "x")
    x, dtype = arguments.typed(x, dtype)
    dim = arguments.dimension(dim, x.ndim)
    inverse_t = arguments.inverse(temperature)
    arguments.causality(causal, dim, x.ndim)
    if dtype == torch.float64 and inverse_t != 1:
        # A kernel's scalars are float32.
        x, inverse_t = x / temperature, 1.0
    if mask is None and not causal:
        if not x.ndim:
            return _apply(x[None], 0, dtype, temperature, None, False, log)[0]
        if not library.eager(x):
            return softmax_operator(x, dim, inverse_t, log, dtype)
        return _over(Task(inverse_t, log), x, dim, dtype)
    if mask is not None:
        mask = arguments.broadcast(mask, x)
    if not x.ndim:
        x, dim, mask = x[None], 0, mask[None]
        return _left_out(x, mask, False, inverse_t, log, dtype)[0]
    if dim == x.ndim - 1:
        return _left_out(x, mask, causal, inverse_t, log, dtype)
    x, mask = x.movedim(dim, -1).contiguous(), mask.movedim(dim, -1)
    y = _left_out(x, mask, causal, inverse_t, log, dtype)
    return y.movedim(-1, dim).contiguous()


def _left_out(
    x: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    inverse_t: float,
    log: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    tensors = (x,) if mask is None else (x, mask)
    if not library.eager(*tensors):
        return masked_operator(x, mask, causal, inverse_t, log, dtype)
    return _masked(Task(inverse_t, log), x, mask, causal, dtype)


def _over(task: Task, x: torch.Tensor, dim: int, dtype: torch.dtype) -> torch.Tensor:
    """Launch what suits a tensor best."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    if not out.numel():
        return out
    outer, n, inner = around(x.shape, dim)
    with library.on(x):
        if inner == 1:
            rows = x.reshape(outer, n)
            if n > 1 and rows.stride(1) != 1:
                rows = rows.contiguous()
            place = out.view(outer, n)
            # torch.compile traces with tensors of other types.
            real = type(x) in (torch.Tensor, torch.nn.Parameter)
            rung, config = choose(describe(rows, place, plain=real))
            if rung in (resident, cooperative):
                task = task._replace(wrap=PLAIN.wrap)
            rung.launch_as(config, rows, place, task)
        else:
            shape = (outer, n, inner)
            config = columns.config_for(n, inner, x.itemsize)
            columns.launch_as(config, x.reshape(shape), out.view(shape), task)
    return out


def _masked(
    task: Task,
    x: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    dtype: torch.dtype,
) -> torch.Tensor:
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    if out.numel():
        config = masked.config_for(x.shape[-1], x.itemsize)
        with library.on(x):
            masked.launch_as(config, x, mask, out, causal, task)
    return out
