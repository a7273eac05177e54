"""Queries, keys and values in eight bits: scales, and the order in which they lie.

Scores and weighted values are products of e4m3 codes. A scale belongs to a tensor, to a
head, or, of queries and keys, to `GROUP` rows of a head; values have one for each
feature of a head instead, which a result can be multiplied by at its end.

Tensor cores read eight bits with the terms of a sum together. Of scores these are the
features, as they lie. Of the results they are keys, so values lie on their side,
(e, keys). And they lie in another order. A product leaves a thread the columns
8a + 2t + b of each 16, t being its place among four and a and b bits, and a product
takes from it the terms 4t + 2a + b. So the key 8a + 2t + b of each 16 has its values at
4t + 2a + b: weights are then where they are wanted, and no thread gives any away.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tilebook import check, library
from tilebook.attention.operands import LONGEST, MOST, aligned
from tilebook.fp8 import formats, quantizing, scaling
from tilebook.matmul.operands import itself
from tilebook.tiling.operands import no_gradient

E4M3 = formats.E4M3.dtype
GROUP = 128
"""Rows of a head, of queries or keys, that share a scale in "block"."""
TURN = 16
"""Keys whose values change places."""
GRANULARITIES = ("tensor", "head", "block")


class Eight(NamedTuple):
    """Codes and their scales, as `attention_fp8` takes them."""

    codes: torch.Tensor
    """e4m3: queries or keys (b, h, s, d), or values on their side (b, h, e, n)."""
    scale: torch.Tensor
    """float32: (1 or b, 1 or h, 1 or groups of rows, or of values 1 or e)."""


class Task(NamedTuple):
    """An attention in eight bits to be computed; its operands have been checked."""

    q: torch.Tensor
    """Queries (b, h, s, d), neighbours along d."""
    k: torch.Tensor
    """Keys (b, hk, sk, d), likewise; hk divides h."""
    v: torch.Tensor
    """Values (b, hk, e, sk up to a multiple of `TURN`), neighbours along keys."""
    scale_q: torch.Tensor
    """(b, h, groups), expanded."""
    scale_k: torch.Tensor
    """(b, hk, groups), expanded."""
    scale_v: torch.Tensor
    """(b, hk, e), expanded."""
    out: torch.Tensor
    """(b, h, s, e), contiguous, bfloat16 or float16."""
    lse: torch.Tensor
    """(b, h, s), contiguous float32."""
    scale: float
    """Of scores."""
    causal: bool = False
    wrap: Callable[[Any], Any] = itself
    """Makes of a kernel what is launched."""


def _rows(x: torch.Tensor, granularity: str) -> torch.Tensor:
    """A matrix of one row for each scale."""
    batch, heads, length, d = x.shape
    if granularity == "tensor":
        return x.reshape(batch * heads * length, d)
    if granularity == "head":
        return x.reshape(batch * heads, length * d)
    groups = -(-length // GROUP)
    wide = torch.nn.functional.pad(x, (0, 0, 0, groups * GROUP - length))
    return wide.reshape(batch * heads * groups, GROUP * d)


def quantize_rows(x: torch.Tensor, granularity: str = "block") -> Eight:
    """Round queries or keys to eight bits.

    Args:
        x: (b, h, s, d) in bfloat16, float16 or float32, any strides and sizes.
        granularity: what shares a scale: "tensor", "head", or "block", `GROUP` rows of
            a head.

    Returns:
        Codes (b, h, s, d), contiguous, and their scales.

    Raises:
        TypeError: not a tensor, or another dtype.
        ValueError: not four dimensions, another granularity, or a tensor where this
            process's kernels can't reach it.

    Notes:
        `tilebook.fp8.scaling` says what scales are.
    """
    _check_wide(x, granularity)
    batch, heads, length, d = x.shape
    way = "tensor" if granularity == "tensor" else "row"
    codes, scale = quantizing.quantize(_rows(x, granularity), way)
    if granularity == "block":
        groups = -(-length // GROUP)
        codes = codes.view(batch, heads, groups * GROUP, d)[:, :, :length]
        return Eight(codes.contiguous(), scale.reshape(batch, heads, groups))
    shape = (1, 1, 1) if granularity == "tensor" else (batch, heads, 1)
    return Eight(codes.view(x.shape), scale.reshape(shape))


def quantize_values(v: torch.Tensor, granularity: str = "block") -> Eight:
    """Round values to eight bits, and lay them on their side.

    Args:
        v: (b, h, s, e) in bfloat16, float16 or float32, any strides and sizes.
        granularity: what shares a scale: "tensor", "head", or "block", a feature of a
            head.

    Returns:
        Codes (b, h, e, s up to a multiple of `TURN`), in the order that `turned` makes,
        and their scales.

    Raises:
        TypeError: as `quantize_rows`.
        ValueError: likewise.
    """
    _check_wide(v, granularity)
    x = turned(v)
    batch, heads, e, length = x.shape
    shapes = {
        "tensor": ((batch * heads * e, length), (1, 1, 1)),
        "head": ((batch * heads, e * length), (batch, heads, 1)),
        "block": ((batch * heads * e, length), (batch, heads, e)),
    }
    rows, shape = shapes[granularity]
    way = "tensor" if granularity == "tensor" else "row"
    codes, scale = quantizing.quantize(x.reshape(rows), way)
    return Eight(codes.view(x.shape), scale.reshape(shape))


def turned(v: torch.Tensor) -> torch.Tensor:
    """Lay values on their side, as tensor cores read them.

    Args:
        v: (b, h, s, e), any type and strides.

    Returns:
        (b, h, e, s up to a multiple of `TURN`), contiguous, zeros at the end; of each
        16 keys 8a + 2t + b has its values at 4t + 2a + b.
    """
    batch, heads, length, e = v.shape
    groups = -(-length // TURN)
    wide = torch.nn.functional.pad(v, (0, 0, 0, groups * TURN - length))
    apart = wide.reshape(batch, heads, groups, 2, 4, 2, e)
    return apart.permute(0, 1, 6, 2, 4, 3, 5).reshape(batch, heads, e, groups * TURN)


def upright(v: torch.Tensor, length: int) -> torch.Tensor:
    """Take back what `turned` did.

    Args:
        v: (b, h, e, n) as `turned` returns it.
        length: keys.

    Returns:
        (b, h, length, e).
    """
    batch, heads, e, n = v.shape
    apart = v.reshape(batch, heads, e, n // TURN, 4, 2, 2).permute(0, 1, 3, 5, 4, 6, 2)
    return apart.reshape(batch, heads, n, e)[:, :, :length]


def rotation(d: int, generator: torch.Generator) -> torch.Tensor:
    """Draw a matrix that spreads what is in one feature over all of them.

    Args:
        d: features of a head, a power of two.
        generator: draws, on its own device.

    Returns:
        (d, d) float32, orthogonal: random signs, then Hadamard's matrix over sqrt(d).
        Queries and keys that are both multiplied by it have the same products.

    Raises:
        ValueError: `d` is no power of two.
    """
    if d < 1 or d & (d - 1):
        raise ValueError(f"d must be a power of two, got {d}")
    one = torch.ones(1, 1, device=generator.device)
    while one.shape[0] < d:
        one = torch.cat([torch.cat([one, one], 1), torch.cat([one, -one], 1)])
    signs = torch.randint(0, 2, (d, 1), generator=generator, device=one.device) * 2 - 1
    return signs * one / d**0.5


def back(
    q: Eight, k: Eight, v: Eight
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What codes stand for, exactly.

    Args:
        q: from `quantize_rows`.
        k: likewise.
        v: from `quantize_values`.

    Returns:
        Three tensors of float64, values upright.
    """

    def rows(x: Eight) -> torch.Tensor:
        each = x.scale.double().repeat_interleave(GROUP, 2)
        if x.scale.shape[2] == 1:
            each = x.scale.double()
        return x.codes.double() * each[:, :, : x.codes.shape[2], None]

    values = v.codes.double() * v.scale.double()[..., None]
    return rows(q), rows(k), upright(values, k.codes.shape[2])


def _check_wide(x: torch.Tensor, granularity: str) -> None:
    check.tensor(x, "x", dtype=scaling.DTYPES, ndim=4)
    check.one_of(granularity, "granularity", GRANULARITIES)


def task_of(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale_q: torch.Tensor,
    scale_k: torch.Tensor,
    scale_v: torch.Tensor,
    causal: bool,
    scale: float,
    out_dtype: torch.dtype,
) -> Task:
    """Make room for a result; what kernels can't take is copied."""
    (batch, heads, length, _), (kv_heads, keys) = q.shape, k.shape[1:3]
    shape = (batch, heads, length, v.shape[2])
    out = torch.empty(shape, dtype=out_dtype, device=q.device)
    lse = torch.empty(shape[:3], dtype=torch.float32, device=q.device)

    def spread(x: torch.Tensor, count: int, last: int) -> torch.Tensor:
        return x.expand(batch, count, last)

    return Task(
        aligned(q), aligned(k), aligned(v),
        spread(scale_q, heads, -(-length // GROUP)),
        spread(scale_k, kv_heads, -(-keys // GROUP)),
        spread(scale_v, kv_heads, v.shape[2]), out, lse, scale, causal,
    )  # fmt: skip


def check_operands(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale_q: torch.Tensor,
    scale_k: torch.Tensor,
    scale_v: torch.Tensor,
) -> None:
    """Check codes and scales; see `eight_public.attention_fp8` for errors."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        check.tensor(x, name, dtype=E4M3, ndim=4)
        no_gradient(x, name)
        library.no_tangent(x)
    batch, heads, length, d = q.shape
    check.tensor(k, "k", shape=(batch, None, None, d))
    _, kv_heads, keys, _ = k.shape
    check.tensor(v, "v", shape=(batch, kv_heads, None, -(-keys // TURN) * TURN))
    if not kv_heads or heads % kv_heads:
        raise ValueError(
            f"k must have heads that divide the {heads} of q, got {kv_heads}"
        )
    for name, count in (("q", d), ("v", v.shape[2])):
        if not 1 <= count <= MOST:
            raise ValueError(f"{name} must have from 1 to {MOST} features, got {count}")
    for name, count in (("q", length), ("k", keys)):
        if count > LONGEST:
            raise ValueError(f"{name} must have at most 2**28 rows, got {count}")
    wanted = {
        "scale_q": (scale_q, heads, -(-length // GROUP)),
        "scale_k": (scale_k, kv_heads, -(-keys // GROUP)),
        "scale_v": (scale_v, kv_heads, v.shape[2]),
    }
    for name, (x, count, last) in wanted.items():
        check.tensor(x, name, dtype=torch.float32, ndim=3)
        no_gradient(x, name)
        for size, most in zip(x.shape, (batch, count, last), strict=True):
            if size not in (1, most):
                raise ValueError(
                    f"{name} must have a shape that expands to "
                    f"{(batch, count, last)}, got {tuple(x.shape)}"
                )
    told = {"q": q, "k": k, "v": v, "scale_q": scale_q, "scale_k": scale_k}
    check.same_device(**told, scale_v=scale_v)
    for name, x in told.items():
        check.runs_here(x, name)
