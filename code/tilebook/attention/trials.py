"""Draws an attention, computes it and its gradients, and compares all with float64."""

from typing import Any, NamedTuple

import torch

from tilebook import testing
from tilebook.attention import public, reference
from tilebook.attention.errors import Bound, U, bounds
from tilebook.attention.operands import precision_of, scale_for


class Shape(NamedTuple):
    """Sizes of an attention."""

    batch: int = 1
    heads: int = 2
    shared: int = 1
    """Heads of queries to one of keys."""
    rows: int = 40
    columns: int = 40
    d: int = 16
    e: int = 16


NAMES = {"cap": "softcap"}
"""What the public function calls the options of `reference`, where it differs."""
TENSORS = ("bias", "slopes", "sinks")


def drawn(
    shape: Shape, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw queries, keys and values.

    Args:
        shape: their sizes.
        dtype: theirs.
        device: theirs.

    Returns:
        Three tensors that want gradients.
    """
    batch, heads, shared, rows, columns, d, e = shape
    sizes = (
        (batch, heads, rows, d),
        (batch, heads // shared, columns, d),
        (batch, heads // shared, columns, e),
    )
    return tuple(
        torch.randn(size, dtype=dtype, device=device, requires_grad=True)
        for size in sizes
    )


def public_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options of `reference.attention` as `attention` calls them."""
    told = {NAMES.get(name, name): x for name, x in options.items()}
    if "bottom" in told:
        told["align"] = public.ALIGNMENTS[told.pop("bottom")]
    if "left" in told or "right" in told:
        told["window"] = (told.pop("left", None), told.pop("right", None))
    return told


def agree(
    given: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    *,
    backward: bool = True,
    deterministic: bool = True,
    **options: Any,
) -> None:
    """Compute an attention, with gradients, and compare all with the definition.

    Args:
        given: queries, keys and values; they want gradients.
        backward: whether to compare gradients, too.
        deterministic: which backward kernels.
        options: as `reference.attention` names them, but for `scale`, which may lack.

    Raises:
        AssertionError: something is further off than derived, or unwritten.
    """
    scale = options.pop("scale", None)
    q, k, v = given
    told = public_options(options)
    with testing.guarded():
        out, lse = public.attention(
            q, k, v, scale=scale, return_lse=True, deterministic=deterministic, **told
        )
    scale = scale_for(q, scale)
    wide = [x.detach().double().requires_grad_() for x in given]
    exact = dict(options)
    for name in TENSORS:
        x = options.get(name)
        if x is not None and x.dtype != torch.bool:
            exact[name] = x.detach().double().requires_grad_(x.requires_grad)
    ref, ref_lse = reference.attention(*wide, scale=scale, **exact)
    grad = torch.randn_like(out)
    nowhere = ref_lse == -torch.inf
    grad_lse = torch.randn_like(lse).masked_fill(nowhere, 0)
    # The interpreter multiplies float32 as it is.
    precision = precision_of(q) if q.is_cuda else "ieee"
    limits = bounds(*given, grad, grad_lse, scale=scale, precision=precision, **exact)
    close(out, ref, limits.out)
    close(lse, ref_lse, limits.lse)
    if not backward:
        return
    with testing.guarded():
        torch.autograd.backward([out, lse], [grad, grad_lse])
    finite = ref_lse.masked_fill(nowhere, 0)
    torch.autograd.backward([ref, finite], [grad.double(), grad_lse.double()])
    for name, ours, theirs in zip("qkv", given, wide, strict=True):
        close(ours.grad, theirs.grad, getattr(limits, f"d{name}"))
    count = limits.dx.numel()
    for name in TENSORS:
        x = options.get(name)
        if x is None or not x.requires_grad:
            continue
        if name == "sinks":
            error = limits.dsink
        else:
            error = limits.dx + count * U * limits.dx_size
            if name == "slopes":
                far = torch.arange(q.shape[2])[:, None] - torch.arange(k.shape[2])
                most = far.abs().max() + abs(k.shape[2] - q.shape[2])
                error = (error * most).sum((2, 3))
            error = error.sum_to_size(x.shape) if error.ndim > 2 else _summed(error, x)
        close(x.grad, exact[name].grad, Bound(error / U))


def _summed(error: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return error if x.ndim == 2 else error.sum(0)


def close(found: torch.Tensor, exact: torch.Tensor, bound: Bound) -> None:
    """Assert that a tensor is as near to the exact one as its bound says.

    Args:
        found: any dtype.
        exact: float64.
        bound: absolute error before the final rounding.

    Raises:
        AssertionError: it isn't.
    """
    testing.assert_close(
        found, exact.detach(), scale=bound.scale, length=bound.length, factor=1.0
    )
