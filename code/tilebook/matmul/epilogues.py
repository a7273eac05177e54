"""What happens to a tile of the product while it is still in registers.

Every kernel of the chapter that can end in something else than a plain store calls
`finish` and `put`: activation(scale * acc + bias) + residual, rounded once.
"""

from typing import Any

import triton
import triton.language as tl

from tilebook.matmul.operands import Task

SQRT_HALF = tl.constexpr(0.7071067811865476)
TWICE_SQRT_2_OVER_PI = tl.constexpr(1.5957691216057308)


@triton.jit
def _erfc(x):
    """The complement of the error function for x >= 0, in half of erf's instructions: a
    Chebyshev fit whose relative error is below 1.2e-7 everywhere (Press et al.,
    Numerical Recipes, 2nd edition, section 6.2)."""
    t = 1.0 / (1.0 + 0.5 * x)
    y = t * 0.17087277 - 0.82215223
    y = ((y * t + 1.48851587) * t - 1.13520398) * t + 0.27886807
    y = ((y * t - 0.18628806) * t + 0.09678418) * t + 0.37409196
    y = (y * t + 1.00002368) * t - 1.26551223
    return t * tl.exp(y - x * x)


@triton.jit
def activated(x, ACTIVATION: tl.constexpr):
    """Apply an activation to float32, element by element."""
    if ACTIVATION == "relu":
        # As PyTorch has it: NaN stays.
        x = tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACTIVATION == "gelu":
        # 1 + erf(y) is 2 - erfc(y) above zero, and erfc(-y) below it: nothing cancels.
        tail = 0.5 * _erfc(tl.abs(x) * SQRT_HALF)
        x = x * tl.where(x < 0, tail, 1.0 - tail)
    elif ACTIVATION == "gelu_tanh":
        # 0.5 (1 + tanh(y)) is sigmoid(2 y), which one exponential gives.
        x = x * tl.sigmoid((x + 0.044715 * x * x * x) * TWICE_SQRT_2_OVER_PI)
    elif ACTIVATION == "silu":
        x = x * tl.sigmoid(x)
    return x


@triton.jit
def finish(acc, offs_n, n, scale, bias_ptr, stride_bias, ACTIVATION: tl.constexpr):
    """Scale a tile, add the bias and apply the activation; with one that pairs columns
    the tile is half as wide afterwards. A bias_ptr or scale of None costs nothing."""
    if scale is not None:
        acc = acc * scale
    if bias_ptr is not None:
        bias = tl.load(bias_ptr + offs_n * stride_bias, mask=offs_n < n, other=0)
        acc = acc + bias.to(acc.dtype)[None, :]  # (BLOCK_M, BLOCK_N)
    if ACTIVATION == "silu_and_mul":
        halves: tl.constexpr = acc.shape[1] // 2
        gate, up = tl.split(tl.reshape(acc, [acc.shape[0], halves, 2]))
        acc = gate * tl.sigmoid(gate) * up  # (BLOCK_M, BLOCK_N // 2)
    else:
        acc = activated(acc, ACTIVATION)
    return acc


@triton.jit
def put(
    acc, out_ptr, offs_m, offs_n, m, n, stride_m, stride_n,
    residual_ptr, residual_m, residual_n,
):  # fmt: skip
    """Add the residual, round and store; offsets are those of the result."""
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    if residual_ptr is not None:
        at = offs_m[:, None] * residual_m + offs_n[None, :] * residual_n
        acc = acc + tl.load(residual_ptr + at, mask=mask, other=0).to(acc.dtype)
    at = offs_m[:, None] * stride_m + offs_n[None, :] * stride_n
    tl.store(out_ptr + at, acc.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def offsets_of(pid_n, n, BLOCK_N: tl.constexpr, ACTIVATION: tl.constexpr):
    """Columns of the result that a tile of the product ends in, and how many exist."""
    if ACTIVATION == "silu_and_mul":
        halves: tl.constexpr = BLOCK_N // 2
        offs_n = pid_n.to(tl.int64) * halves + tl.arange(0, halves)
        n = n // 2
    else:
        offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    return offs_n, n


def arguments(task: Task) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a kernel gets of a task besides operands and result.

    Args:
        task: the product.

    Returns:
        scale, bias_ptr, stride_bias, residual_ptr, residual_m, residual_n in this
        order, and the constant ACTIVATION by name.
    """
    scale = None if task.scale == 1.0 else float(task.scale)
    stride_bias = 0 if task.bias is None else task.bias.stride(0)
    strides = (0, 0) if task.residual is None else task.residual.stride()
    tensors = (scale, task.bias, stride_bias, task.residual, *strides)
    return tensors, {"ACTIVATION": task.activation}
