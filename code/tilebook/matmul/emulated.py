"""What rounding costs a product, computed without a GPU.

Roundings of operands are emulated bit by bit, and so is a sum whose every partial sum
is rounded; all else is float64. A tensor core adds up some terms at a time in a way
that no vendor documents, so that what a card gives lies beside this and not on it.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch

KS = (16, 128, 1024, 8192)
"""Terms of the sums in the table."""
SIDE = 16
"""Rows and columns of the products."""
AT_A_TIME = 16
"""Terms of float16 that one matrix instruction adds up before it rounds."""
_CUT = 13
"""Bits that float32 has and TF32 hasn't."""


def cut_tf32(x: torch.Tensor) -> torch.Tensor:
    """Leave out the bits that TF32 doesn't have, as a tensor core does that is given
    float32.

    Args:
        x: float32, any shape; finite.

    Returns:
        float32 of the same shape.
    """
    return (x.view(torch.int32) >> _CUT << _CUT).view(torch.float32)


def round_tf32(x: torch.Tensor) -> torch.Tensor:
    """Round to the nearest TF32, halves away from zero, as `cvt.rna.tf32.f32` does.

    Args:
        x: float32, any shape; finite.

    Returns:
        float32 of the same shape.
    """
    # Magnitude and sign are apart, so that half a unit more is half a unit farther.
    return cut_tf32((x.view(torch.int32) + (1 << _CUT - 1)).view(torch.float32))


def _parts_tf32(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    high = round_tf32(x)
    return high, cut_tf32(x - high)


def _parts_bf16(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    high = x.bfloat16().float()
    return high, (x - high).bfloat16().float()


Exactly = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Parts = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _rounded(change: Callable[[torch.Tensor], torch.Tensor]) -> Exactly:
    return lambda a, b: change(a).double() @ change(b).double()


def _three(parts: Parts) -> Exactly:
    def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        (a_high, a_rest), (b_high, b_rest) = (
            tuple(part.double() for part in parts(x)) for x in (a, b)
        )
        return a_high @ b_high + (a_high @ b_rest + a_rest @ b_high)

    return multiply


OPERANDS: Mapping[str, Exactly] = {
    "tf32, cut": _rounded(cut_tf32),
    "tf32, rounded": _rounded(round_tf32),
    "bf16x3": _three(_parts_bf16),
    "tf32x3": _three(_parts_tf32),
}
"""Ways to round operands of float32, by name: products and sums are exact after it."""


def summed(
    a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype, at_a_time: int = 1
) -> torch.Tensor:
    """Multiply, and round the sum again and again.

    Args:
        a: matrix (m, k).
        b: matrix (k, n).
        dtype: that sums are rounded to, float32 or float16.
        at_a_time: terms that are added up exactly before the sum is rounded.

    Returns:
        The product (m, n) in float64, of numbers that `dtype` has.
    """
    acc = torch.zeros(a.shape[0], b.shape[1], dtype=torch.float64)
    for start in range(0, a.shape[1], at_a_time):
        step = slice(start, start + at_a_time)
        acc += a[:, step].double() @ b[step].double()
        acc = acc.to(dtype).double()
    return acc


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    """How far a product is off: the norm of the difference over that of the product.

    Args:
        found: matrix, float64.
        exact: of the same shape, float64.
    """
    return float((found - exact).norm() / exact.norm())


def operands(
    k: int, *, positive: bool, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Make random operands of float32.

    Args:
        k: terms of a sum.
        positive: from 0 to 1, evenly; else normal.
        seed: of the random numbers.

    Returns:
        `a` (SIDE, k) and `b` (k, SIDE).
    """
    made = torch.Generator().manual_seed(seed)
    random = torch.rand if positive else torch.randn
    return random(SIDE, k, generator=made), random(k, SIDE, generator=made)


def table(ks: Sequence[int] = KS, *, positive: bool = False) -> pd.DataFrame:
    """Compare roundings with float64.

    Args:
        ks: terms of the sums.
        positive: whether operands are all positive; else they are normal.

    Returns:
        `error` by `k`: of each of `OPERANDS`, whose sums are exact; of "ieee", float32
        whose sum is rounded after each term; and of "fp16 sums", operands of float16
        whose sum is rounded to float16 every `AT_A_TIME` terms.
    """
    rows = {}
    for k in ks:
        a, b = operands(k, positive=positive)
        exact = a.double() @ b.double()
        row = {name: error(way(a, b), exact) for name, way in OPERANDS.items()}
        row["ieee"] = error(summed(a, b, torch.float32), exact)
        halves = a.half(), b.half()
        kept = halves[0].double() @ halves[1].double()
        row["fp16 sums"] = error(summed(*halves, torch.float16, AT_A_TIME), kept)
        rows[k] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("k")
