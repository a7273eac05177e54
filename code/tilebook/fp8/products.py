"""Products of matrices in eight bits: what is multiplied, and which scale goes where.

A product is

    out[i, j] = sum over blocks p of k of  A[i, p] B[p, j] sum over t in p of
                a[i, t] b[t, j]   (+ bias[j]),

A and B the scales of `a` and `b`, dequantising ones. Where neither changes along k
there is one block, all of k, and scales are applied once, at the end. Else blocks have
128 terms, and each block's sum is scaled before it is added.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tilebook import check, library, testing
from tilebook.fp8.operands import DTYPES
from tilebook.matmul import estimates
from tilebook.matmul.operands import itself
from tilebook.tiling.operands import no_gradient

BLOCK = 128
"""Terms of a block, and rows or columns of a group that has several."""
ALL = 1 << 30
"""Of a group without end."""
RESULTS = (torch.bfloat16, torch.float16, torch.float32)
"""What results may be."""


class Product(NamedTuple):
    """A product to be made; its operands have been checked."""

    a: torch.Tensor
    """(m, k) of an 8-bit type, any strides."""
    b: torch.Tensor
    """(k, n) of an 8-bit type, any strides."""
    scale_a: torch.Tensor
    """(1, m or groups of 128 rows; 1 or blocks of k) float32, any strides."""
    scale_b: torch.Tensor
    """(1 or blocks of k; 1, n or groups of 128 columns) float32, any strides."""
    out: torch.Tensor
    """(m, n) of a type in `RESULTS`."""
    bias: torch.Tensor | None = None
    """(n,) of a type in `RESULTS`, any stride."""
    fast: bool = False
    """Whether all of k may be summed by tensor cores; else no more than `BLOCK` terms
    are, and their sums are added in float32."""
    wrap: Callable[[Any], Any] = itself
    """Makes of a kernel what is launched."""

    @property
    def m(self) -> int:
        """Rows of `a`."""
        return int(self.a.shape[0])

    @property
    def n(self) -> int:
        """Columns of `b`."""
        return int(self.b.shape[1])

    @property
    def k(self) -> int:
        """Terms of a sum."""
        return int(self.a.shape[1])

    # What a search of `tilebook.matmul.searching` asks of a product besides.
    scale = 1.0
    activation = ""
    residual = None

    @property
    def precision(self) -> str:
        """Which scales there are and how sums are taken, in words."""
        found = []
        for name in "ab":
            _, group, _, stride_k = scale_of(self, name)
            found.append(f"{name} {group}{' by blocks' if stride_k else ''}")
        return ", ".join([*found, "fast" if self.fast else "precise"])

    @property
    def blocks(self) -> bool:
        """Whether a scale changes along k."""
        return self.scale_a.shape[1] > 1 or self.scale_b.shape[0] > 1


class Scale(NamedTuple):
    """How a kernel finds the scale of a row of `a`, or of a column of `b`."""

    x: torch.Tensor
    group: int
    """Rows or columns that share one: 1, 128 or `ALL`."""
    stride: int
    """From a group to the next; 0 where all share one."""
    stride_k: int
    """From a block of terms to the next; 0 where all share one."""


def scale_of(product: Product, name: str) -> Scale:
    """Say how a kernel finds the scales of an operand.

    Args:
        product: the product.
        name: "a" or "b".
    """
    if name == "a":
        x, side = product.scale_a, product.m
    else:
        x, side = product.scale_b.t(), product.n
    group = ALL if x.shape[0] == 1 else 1 if x.shape[0] == side else BLOCK
    sizes = zip(x.shape, x.stride(), strict=True)
    stride, stride_k = (step if size > 1 else 0 for size, step in sizes)
    return Scale(x, group, stride, stride_k)


def check_scale(x: torch.Tensor, name: str, side: int, k: int, along_k: int) -> None:
    """Check a scale's shape.

    Args:
        x: the scale.
        name: what the caller calls it.
        side: rows of `a`, or columns of `b`.
        k: terms of a sum.
        along_k: the scale's dimension along k.

    Raises:
        TypeError: not a tensor of float32.
        ValueError: no matrix, or other groups than there are.
    """
    check.tensor(x, name, dtype=torch.float32, ndim=2)
    sides = (1, side, -(-side // BLOCK))
    blocks = (1, -(-k // BLOCK))
    if x.shape[1 - along_k] not in sides or x.shape[along_k] not in blocks:
        shown = (sides, blocks) if along_k else (blocks, sides)
        wanted = " x ".join(
            " or ".join(str(each) for each in dict.fromkeys(sizes)) for sizes in shown
        )
        raise ValueError(
            f"{name} must have a scale for all, each or 128 rows or columns, and for "
            f"all or 128 terms, {wanted}, got {tuple(x.shape)}"
        )


def check_operands(
    a: torch.Tensor,
    b: torch.Tensor,
    scale_a: torch.Tensor,
    scale_b: torch.Tensor,
    bias: torch.Tensor | None,
    out_dtype: torch.dtype,
) -> None:
    """Check what is to be multiplied.

    Args:
        a: (m, k) of an 8-bit type.
        b: (k, n) of an 8-bit type.
        scale_a: its groups along m, its blocks along k.
        scale_b: its blocks along k, its groups along n.
        bias: (n,), or None.
        out_dtype: of the result.

    Raises:
        TypeError: not tensors, or a dtype that isn't allowed.
        ValueError: not matrices, sides that don't meet, scales of other shapes, another
            device, an operand that takes part in a gradient, or one where this
            process's kernels can't reach it.
        NotImplementedError: an operand carries a forward-mode derivative.
    """
    check.tensor(a, "a", dtype=DTYPES, ndim=2)
    check.tensor(b, "b", dtype=DTYPES, ndim=2)
    if a.shape[1] != b.shape[0]:
        raise ValueError(
            f"a must have as many columns as b has rows, got {a.shape[1]} and "
            f"{b.shape[0]}"
        )
    m, k = a.shape
    n = b.shape[1]
    check_scale(scale_a, "scale_a", m, k, 1)
    check_scale(scale_b, "scale_b", n, k, 0)
    named = {"a": a, "b": b, "scale_a": scale_a, "scale_b": scale_b}
    if bias is not None:
        check.tensor(bias, "bias", dtype=RESULTS, shape=(n,))
        named["bias"] = bias
    if out_dtype not in RESULTS:
        names = ", ".join(str(each) for each in RESULTS)
        raise TypeError(f"out_dtype must be one of {names}, got {out_dtype}")
    check.same_device(**named)
    check.runs_here(a, "a")
    for name, x in named.items():
        no_gradient(x, name)
        library.no_tangent(x)


def exact(product: Product) -> torch.Tensor:
    """Compute a product in float64.

    Args:
        product: the product.

    Returns:
        (m, n) float64.
    """
    left, right = _dequantized(product)
    out = left @ right
    return out if product.bias is None else out + product.bias.double()


def magnitudes(product: Product) -> torch.Tensor:
    """For each element the sum of its terms' magnitudes.

    Args:
        product: the product.

    Returns:
        (m, n) float64.
    """
    left, right = _dequantized(product)
    out = left.abs() @ right.abs()
    return out if product.bias is None else out + product.bias.double().abs()


def _dequantized(product: Product) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = scale_of(product, "a"), scale_of(product, "b")
    shapes = ((product.m, product.k), (product.n, product.k))
    found = []
    for scale, x, shape in zip((a, b), (product.a, product.b.t()), shapes, strict=True):
        wide = scale.x.double()
        for dim, size in enumerate(shape):
            # A side in one group, in groups of 128, or of one.
            if wide.shape[dim] == 1:
                wide = wide.expand(*(size if d == dim else -1 for d in range(2)))
            elif wide.shape[dim] != size or (dim and size != 1):
                wide = wide.repeat_interleave(BLOCK, dim).narrow(dim, 0, size)
        found.append(x.double() * wide)
    return found[0], found[1].t()


def assert_right(product: Product, *, bits: int | None = None) -> None:
    """Assert that each element of a product that was made is within its bound.

    Args:
        product: the product.
        bits: that tensor cores keep of a sum; by default 24, as float32 does.

    Raises:
        AssertionError: one isn't; the message says which.

    Notes:
        Products of two codes have at most 8 significant bits, and are exact. Sums of t
        terms lose at most t u of the magnitudes of their terms, u = 2^-24, or 2^-bits
        where tensor cores keep fewer: of all of k in a fast product, of 128 terms else.
        Scales, the sum of blocks and the bias add a rounding for each.
    """
    terms = product.k
    if bits is not None and not product.fast:
        terms = min(terms, BLOCK)
    length = product.k + 5
    if bits is not None:
        length += math.ceil(terms / 8) << (24 - bits)
    testing.assert_close(
        product.out, exact(product), length=length, factor=length,
        scale=magnitudes(product).nan_to_num(posinf=0),
    )  # fmt: skip


def seconds(product: Product, tile: estimates.Tile, parts: int = 1) -> float:
    """Estimate how long a product takes; see `matmul.estimates.seconds`.

    Args:
        product: the product.
        tile: how it is cut up.
        parts: into how many the sum over k is.
    """
    # Tensor cores take any type of 8 bits at one rate.
    alike = product._replace(a=product.a.view(torch.int8))
    return estimates.seconds(alike, tile, parts)
