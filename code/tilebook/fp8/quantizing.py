"""`quantize` and its fused forms for use: any strides and sizes, `torch.compile`."""

import torch

from tilebook import check, library
from tilebook.fp8 import both, formats, groups, rows, scaling, whole
from tilebook.fp8.operands import Job, check_operand, check_way
from tilebook.fp8.scaling import GRANULARITIES, Quantized

E4M3 = formats.E4M3.dtype
ALONG = ("row", "1x128", "mx")
"""Granularities whose groups lie in a row."""
TILED = ("1x128", "128x128")
"""Those of which a tile has whole groups in both directions."""


# Interpreted, compiled and traced alike: bits are seen as integers in here.
@library.operator("tilebook::fp8_quantize", opaque=True)
def quantize_operator(
    x: torch.Tensor,
    up: torch.Tensor | None,
    granularity: str,
    dtype: torch.dtype,
    rounding: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    m, k = map(int, x.shape)
    found = scaling.place(m, k, granularity, dtype, x.device)
    job = Job(x, *found, granularity, rounding, up)
    with library.on(x):
        if not found.scale.numel():
            pass
        elif not found.codes.numel():
            # A group without elements is one of zeros.
            found.scale.fill_(scaling.SMALLEST)
        elif granularity == "tensor":
            whole.launch(job)
        elif granularity == "row":
            rows.launch(job)
        else:
            groups.launch(job)
    return tuple(found)


@quantize_operator.register_fake
def _(
    x: torch.Tensor,
    up: torch.Tensor | None,
    granularity: str,
    dtype: torch.dtype,
    rounding: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(scaling.place(*x.shape, granularity, dtype, x.device))


@library.operator("tilebook::fp8_rms_norm_quantize", opaque=True)
def norm_operator(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    granularity: str,
    dtype: torch.dtype,
    rounding: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    m, k = map(int, x.shape)
    found = scaling.place(m, k, granularity, dtype, x.device)
    job = Job(x, *found, granularity, rounding)
    with library.on(x):
        if found.codes.numel():
            rows.launch(job, norm=rows.Norm(weight, eps))
        elif found.scale.numel():
            found.scale.fill_(scaling.SMALLEST)
    return tuple(found)


@norm_operator.register_fake
def _(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    granularity: str,
    dtype: torch.dtype,
    rounding: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(scaling.place(*x.shape, granularity, dtype, x.device))


@library.operator("tilebook::fp8_quantize_delayed", opaque=True)
def delayed_operator(
    x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    amax = torch.zeros(1, 1, dtype=torch.float32, device=x.device)
    if codes.numel():
        with library.on(x):
            whole.launch(Job(x, codes, scale, "tensor"), amax=amax)
    return codes, amax


@delayed_operator.register_fake
def _(
    x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    codes = torch.empty(x.shape, dtype=dtype, device=x.device)
    return codes, torch.empty(1, 1, dtype=torch.float32, device=x.device)


@library.operator("tilebook::fp8_quantize_both", opaque=True)
def both_operator(
    x: torch.Tensor, granularity: str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    m, k = map(int, x.shape)
    found = scaling.place(m, k, granularity, dtype, x.device)
    turned = scaling.place(k, m, granularity, dtype, x.device)
    if x.numel():
        with library.on(x):
            both.launch(Job(x, *found, granularity), turned)
    return *found, *turned


@both_operator.register_fake
def _(
    x: torch.Tensor, granularity: str, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    m, k = x.shape
    found = scaling.place(m, k, granularity, dtype, x.device)
    return *found, *scaling.place(k, m, granularity, dtype, x.device)


def quantize(
    x: torch.Tensor,
    granularity: str = "row",
    *,
    dtype: torch.dtype = E4M3,
    rounding: str | None = None,
) -> Quantized:
    """Round a matrix to eight bits, with a scale for each group of elements.

    Args:
        x: matrix (m, k) in bfloat16, float16 or float32, any strides and sizes. For the
            transpose with groups along its rows pass `x.t()`.
        granularity: which elements share a scale: "tensor", "row", "1x128", "128x128",
            or "mx", 1 x 32 with powers of two. Groups at the end may have fewer.
        dtype: of the codes, `torch.float8_e4m3fn` or `torch.float8_e5m2`.
        rounding: of MX scales, "down" (by default) or "up"; see `scaling`.

    Returns:
        Codes (m, k), contiguous, and their scales, (groups along m, groups along k), a
        whole side being one group; those of rows that are neighbours lie together.

    Raises:
        TypeError: not a tensor, or a dtype that isn't allowed.
        ValueError: no matrix, another granularity or rounding, an operand that takes
            part in a gradient, or one where this process's kernels can't reach it.

    Notes:
        `scaling` says what scales are, of zeros, infinities and NaN, too. Each element
        is read once but with "tensor", and with "row" where rows have more than
        `rows.LONGEST` elements. Deterministic, and to the bit what `scaling.reference`
        gives.
    """
    rounding = check_way(granularity, dtype, rounding, tuple(GRANULARITIES))
    x = check_operand(x, "x")
    return Quantized(*quantize_operator(x, None, granularity, dtype, rounding))


def silu_and_mul_quantize(
    gate: torch.Tensor,
    up: torch.Tensor,
    granularity: str = "row",
    *,
    dtype: torch.dtype = E4M3,
    rounding: str | None = None,
) -> Quantized:
    """Quantise silu(gate) * up, which is never written.

    Args:
        gate: matrix (m, k) as for `quantize`.
        up: likewise, of the same shape and dtype. Halves of a product are
            `y[:, :k]` and `y[:, k:]`, pairs of columns `y[:, 0::2]` and `y[:, 1::2]`.
        granularity: as for `quantize`.
        dtype: likewise.
        rounding: likewise.

    Returns:
        As `quantize` of the float32 product.

    Raises:
        TypeError: as for `quantize`, or two dtypes.
        ValueError: as for `quantize`, two shapes or two devices.
    """
    rounding = check_way(granularity, dtype, rounding, tuple(GRANULARITIES))
    gate, up = check_operand(gate, "gate"), check_operand(up, "up")
    check.same_dtype(gate=gate, up=up)
    check.same_shape(gate=gate, up=up)
    check.same_device(gate=gate, up=up)
    return Quantized(*quantize_operator(gate, up, granularity, dtype, rounding))


def rms_norm_quantize(
    x: torch.Tensor,
    weight: torch.Tensor,
    granularity: str = "row",
    *,
    eps: float = 1e-6,
    dtype: torch.dtype = E4M3,
    rounding: str | None = None,
) -> Quantized:
    """Quantise the RMS norm of rows, which is never written.

    Args:
        x: matrix (m, k) as for `quantize`.
        weight: vector (k,) in a type of `scaling.DTYPES`, any stride.
        granularity: one of `ALONG`.
        eps: added to the mean of squares; not negative.
        dtype: as for `quantize`.
        rounding: likewise.

    Returns:
        As `quantize` of x * weight / sqrt(mean of x² along the row + eps), in float32.

    Raises:
        TypeError: as for `quantize`, or `eps` is no number.
        ValueError: as for `quantize`, a weight of another length or on another device,
            or a negative `eps`.
    """
    rounding = check_way(granularity, dtype, rounding, ALONG)
    x = check_operand(x, "x")
    check.tensor(weight, "weight", dtype=scaling.DTYPES, shape=(x.shape[1],))
    check.same_device(x=x, weight=weight)
    library.no_tangent(weight)
    eps = check.number(eps, "eps")
    if not eps >= 0:
        raise ValueError(f"eps must be at least 0, got {eps}")
    return Quantized(*norm_operator(x, weight, eps, granularity, dtype, rounding))


def quantize_delayed(
    x: torch.Tensor, scale: torch.Tensor, *, dtype: torch.dtype = E4M3
) -> tuple[Quantized, torch.Tensor]:
    """Quantise with a scale that is known before: the matrix is read once.

    Args:
        x: matrix (m, k) as for `quantize`.
        scale: one float32, (1, 1): what the last steps' largest magnitudes suggest.
        dtype: of the codes.

    Returns:
        Codes with `scale`; what is too large for it became the largest number. And the
        largest magnitude of `x`, (1, 1) float32, NaN if there is one.

    Raises:
        TypeError: as for `quantize`.
        ValueError: as for `quantize`, or a scale of another shape or on another device.
    """
    check_way("tensor", dtype, None, ("tensor",))
    x = check_operand(x, "x")
    check.tensor(scale, "scale", dtype=torch.float32, shape=(1, 1))
    check.same_device(x=x, scale=scale)
    codes, amax = delayed_operator(x, scale, dtype)
    return Quantized(codes, scale), amax


def quantize_both(
    x: torch.Tensor, granularity: str = "1x128", *, dtype: torch.dtype = E4M3
) -> tuple[Quantized, Quantized]:
    """Quantise a matrix and its transpose, reading it once.

    Args:
        x: matrix (m, k) as for `quantize`.
        granularity: one of `TILED`.
        dtype: of the codes.

    Returns:
        What `quantize` gives for `x` and for `x.t()`.

    Raises:
        TypeError: as for `quantize`.
        ValueError: as for `quantize`.
    """
    check_way(granularity, dtype, None, TILED)
    x = check_operand(x, "x")
    found = both_operator(x, granularity, dtype)
    return Quantized(*found[:2]), Quantized(*found[2:])
