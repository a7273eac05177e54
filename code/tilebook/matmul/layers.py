"""A layer in one launch: activation(x @ weight.T + bias) + residual, with gradients.

What the layer does besides multiplying is done to a tile in registers, and what is
written is read by the next layer. The gradient needs the sums before the activation.
They aren't kept but computed once more, in float32: that costs a product, and saves as
much memory as the layer's result takes.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from tilebook import check, library
from tilebook.matmul.choose import product
from tilebook.matmul.operands import ACTIVATIONS, Task, precision_of
from tilebook.matmul.public import matmul_operator

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
"""The element types of a layer."""


# Opaque as `public.matmul_operator` is, and for the same reason.
@library.operator("tilebook::linear", opaque=True)
def linear_operator(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    precision: str,
    wide: bool,
) -> torch.Tensor:
    return _applied(x, weight, bias, residual, activation, precision, wide)


@linear_operator.register_fake
def _(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    precision: str,
    wide: bool,
) -> torch.Tensor:
    return _place(x, weight, activation, wide)


def _keep(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    x, weight, bias, _, ctx.activation, ctx.precision, _ = inputs
    for_x, for_weight, for_bias, *_ = ctx.needs_input_grad
    again = bool(ctx.activation) and (for_x or for_weight or for_bias)
    ctx.dtypes = x.dtype, weight.dtype
    ctx.save_for_backward(
        x if again or for_weight else None,
        weight if again or for_x else None,
        bias if again else None,
    )


def _gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    x, weight, bias = ctx.saved_tensors
    for_x, for_weight, for_bias, for_residual, *_ = ctx.needs_input_grad
    dz, dx, dweight, dbias = grad, None, None, None
    if ctx.activation and (for_x or for_weight or for_bias):
        z = linear_operator(x, weight, bias, None, "", ctx.precision, True)
        dz = activation_gradient(z, grad.to(z.dtype), ctx.activation)
    dtype, weight_dtype = ctx.dtypes
    # Rounded to the operands' type as the gradients of PyTorch's activations are.
    narrow = dz.to(dtype)
    if for_x:
        dx = matmul_operator(narrow, weight, ctx.precision, dtype)
    if for_weight:
        dweight = matmul_operator(narrow.mT, x, ctx.precision, weight_dtype)
    if for_bias:
        sums = torch.float64 if dz.dtype == torch.float64 else torch.float32
        dbias = dz.sum(0, dtype=sums).to(dtype)
    dresidual = grad.to(dtype) if for_residual else None
    return dx, dweight, dbias, dresidual, None, None, None


linear_operator.register_autograd(_gradient, setup_context=_keep)


def activated(z: torch.Tensor, activation: str) -> torch.Tensor:
    """Apply an activation step by step.

    Args:
        z: matrix (m, n).
        activation: one of `operands.ACTIVATIONS`.

    Returns:
        (m, n), or (m, n // 2) with "silu_and_mul".
    """
    if activation == "relu":
        return F.relu(z)
    if activation == "silu":
        return F.silu(z)
    if activation == "silu_and_mul":
        return F.silu(z[:, 0::2]) * z[:, 1::2]
    if activation:
        return F.gelu(z, approximate="tanh" if activation == "gelu_tanh" else "none")
    return z


def activation_gradient(
    z: torch.Tensor, grad: torch.Tensor, activation: str
) -> torch.Tensor:
    """Compute the gradient of what an activation was applied to.

    Args:
        z: what that was: matrix (m, n).
        grad: what arrives for the result, in the same dtype.
        activation: one of `operands.ACTIVATIONS`.

    Returns:
        (m, n); differentiable.
    """
    aten = torch.ops.aten
    if activation == "relu":
        return aten.threshold_backward(grad, z, 0)
    if activation == "silu":
        return _silu_gradient(grad, z)
    if activation == "silu_and_mul":
        gate, up = z[:, 0::2], z[:, 1::2]
        pair = (_silu_gradient(grad * up, gate), grad * F.silu(gate))
        return torch.stack(pair, dim=2).flatten(1)
    if activation:
        approximate = "tanh" if activation == "gelu_tanh" else "none"
        return aten.gelu_backward(grad, z, approximate=approximate)
    return grad


def _silu_gradient(grad: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return torch.ops.aten.silu_backward(grad, z)
    # That one can't be differentiated again.
    s = torch.sigmoid(z)
    return grad * s * (1 + z * (1 - s))


def _place(
    x: torch.Tensor, weight: torch.Tensor, activation: str, wide: bool
) -> torch.Tensor:
    n = weight.shape[0] // 2 if activation == "silu_and_mul" else weight.shape[0]
    narrow = x.dtype in (torch.bfloat16, torch.float16)
    dtype = torch.float32 if wide and narrow else x.dtype
    return torch.empty((x.shape[0], n), dtype=dtype, device=x.device)


def _applied(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    precision: str,
    wide: bool,
) -> torch.Tensor:
    if x.dtype == torch.float64:
        z = activated(F.linear(x, weight, bias), activation)
        return z if residual is None else z + residual
    out = _place(x, weight, activation, wide)
    task = Task(x, weight.mT, out, precision, bias=bias, activation=activation)
    product(task._replace(residual=residual))
    return out


def linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    activation: str = "",
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    """Apply a layer: activation(x @ weight.T + bias) + residual.

    Args:
        x: (..., in) in bfloat16, float16, float32 or float64; any strides.
        weight: (out, in) of the same dtype, as `torch.nn.Linear` has it.
        bias: (out,) of the same dtype, if any.
        activation: one of `operands.ACTIVATIONS`; "" is none. "silu_and_mul" takes
            neighbours in pairs, silu(first) * second: out is even, and the result half
            as wide.
        residual: of the result's shape and dtype, if any.

    Returns:
        (..., out), or (..., out / 2) with "silu_and_mul", contiguous, of the same
        dtype. Differentiable, twice and more.

    Raises:
        TypeError: an argument of another type, another dtype, or two of them.
        ValueError: no dimensions, a shape that doesn't fit, another activation, an odd
            out with "silu_and_mul", two devices, or a tensor where this process's
            kernels can't reach it.

    Notes:
        Summed and activated in float32, and rounded once; float64 is left to PyTorch.
        float32 is multiplied as `torch.backends.cuda.matmul.fp32_precision` says: with
        "tf32" as TF32, else as it is. Repeats are equal to the bit as for `matmul`.
    """
    shape = _checked(x, weight, bias, activation, residual)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    if residual is not None:
        residual = residual.reshape(rows.shape[0], shape[-1])
    precision = precision_of(x.dtype, None)
    given = (rows, weight, bias, residual, activation, precision, False)
    tensors = [t for t in given if isinstance(t, torch.Tensor)]
    run = _applied if library.eager(*tensors) else linear_operator
    return run(*given).view(shape)


def _checked(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    activation: str,
    residual: torch.Tensor | None,
) -> tuple[int, ...]:
    """Check what a layer gets; the shape of what it gives."""
    check.tensor(x, "x", dtype=DTYPES)
    if not x.ndim:
        raise ValueError("x must have at least 1 dimension, got 0")
    check.tensor(weight, "weight", dtype=DTYPES, shape=(None, x.shape[-1]))
    check.one_of(activation, "activation", ACTIVATIONS)
    out = weight.shape[0]
    if activation == "silu_and_mul":
        if out % 2:
            raise ValueError(
                f"weight must have an even number of rows for silu_and_mul, got {out}"
            )
        out //= 2
    shape = (*x.shape[:-1], out)
    tensors = {"x": x, "weight": weight}
    if bias is not None:
        tensors["bias"] = check.tensor(bias, "bias", shape=(weight.shape[0],))
    if residual is not None:
        tensors["residual"] = check.tensor(residual, "residual", shape=shape)
    check.same_dtype(**tensors)
    check.same_device(**tensors)
    for name, tensor in tensors.items():
        check.runs_here(tensor, name)
    return shape
