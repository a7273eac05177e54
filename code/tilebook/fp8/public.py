"""`scaled_matmul` for use, and which kernel serves it."""

import torch

from tilebook import library
from tilebook.fp8 import products, ways
from tilebook.fp8.products import Product


# Its launches depend on addresses: descriptors want starts that 16 bytes divide.
@library.operator("tilebook::scaled_matmul", opaque=True)
def scaled_matmul_operator(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None,
    out_dtype: torch.dtype,
    fast: bool,
) -> torch.Tensor:
    return _multiplied(a, b, scale_a, scale_b, bias, out_dtype, fast)


@scaled_matmul_operator.register_fake
def _(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None,
    out_dtype: torch.dtype,
    fast: bool,
) -> torch.Tensor:
    return a.new_empty(a.shape[0], b.shape[1], dtype=out_dtype)


def _multiplied(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None,
    out_dtype: torch.dtype,
    fast: bool,
) -> torch.Tensor:
    shape = (int(a.shape[0]), int(b.shape[1]))
    out = torch.empty(shape, dtype=out_dtype, device=a.device)
    if out.numel() and not a.shape[1]:
        # A sum of nothing.
        return out.copy_(bias) if bias is not None else out.zero_()
    if out.numel():
        ways.make(Product(a, b, scale_a, scale_b, out, bias, fast))
    return out


def scaled_matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    fast_accumulation: bool = False,
) -> torch.Tensor:
    """Multiply two matrices in eight bits, each with its scales.

    Args:
        a: matrix (m, k), float8_e4m3fn or float8_e5m2, any strides and sizes.
        b: matrix (k, n), one of the two types, any strides. For a weight (n, k) that
            was quantised by rows pass its transpose, and its scales' too.
        scale_a: float32, (1, m or ceil(m / 128); 1 or ceil(k / 128)), any strides: what
            `quantize` gives beside `a`, but for "mx".
        scale_b: float32, (1 or ceil(k / 128); 1, n or ceil(n / 128)).
        bias: vector (n,) in a type of `products.RESULTS`, added before the result is
            rounded.
        out_dtype: the result's: bfloat16, float16 or float32.
        fast_accumulation: whether tensor cores may sum all of k by themselves. By
            default they sum 128 terms, and float32's own addition the rest. Where
            scales change along k it is always so.

    Returns:
        (a scale_a) @ (b scale_b) + bias, (m, n), contiguous.

    Raises:
        TypeError: not tensors, or a dtype that isn't allowed.
        ValueError: no matrices, sides that don't meet, scales of other shapes, two
            devices, an operand that takes part in a gradient, or one where this
            process's kernels can't reach it.
        NotImplementedError: an operand carries a forward-mode derivative.

    Notes:
        `ways` chooses the kernel, and `which` says which. Tensor cores read eight bits
        with the terms of a sum together: rows of `a` and columns of `b` along k, 16
        bytes dividing k and where they start. All else is `tiled`'s, at some cost.
        Repeats are equal to the bit as long as the way that a search chose is
        remembered. Safe in `torch.compile` and in CUDA graphs: while one is recorded
        nothing is measured.
    """
    products.check_operands(a, b, scale_a, scale_b, bias, out_dtype)
    if not isinstance(fast_accumulation, bool):
        kind = type(fast_accumulation).__name__
        raise TypeError(f"fast_accumulation must be a bool, got {kind}")
    arguments = (a, b, scale_a, scale_b, bias, out_dtype, fast_accumulation)
    tensors = [x for x in arguments if isinstance(x, torch.Tensor)]
    if library.eager(*tensors):
        return _multiplied(*arguments)
    return scaled_matmul_operator(*arguments)


def which(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    *,
    bias: torch.Tensor | None = None,
    out_dtype: torch.dtype = torch.bfloat16,
    fast_accumulation: bool = False,
) -> str:
    """Say which kernel serves a product, and how it is launched.

    Args:
        a: as for `scaled_matmul`, whose errors these are, too.
        b: likewise.
        scale_a: likewise.
        scale_b: likewise.
        bias: likewise.
        out_dtype: likewise.
        fast_accumulation: likewise.

    Returns:
        The kernel's name and configuration, or what the rule names where nothing was
        measured.
    """
    products.check_operands(a, b, scale_a, scale_b, bias, out_dtype)
    out = a.new_empty(a.shape[0], b.shape[1], dtype=out_dtype)
    if not out.numel() or not a.shape[1]:
        return "nothing to launch"
    return ways.told(Product(a, b, scale_a, scale_b, out, bias, fast_accumulation))
