"""`add` for use: any strides, `out=`, a gradient, and visible to `torch.compile`."""

from typing import Any

import torch
from torch.autograd.graph import increment_version

from tilebook import check, device, library
from tilebook.parallel import whole
from tilebook.parallel.operands import DTYPES, check_operands


@library.operator("tilebook::add")
def add_operator(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    _add_into(library.launchable(whole.add_kernel), x, y, out)
    return out


@add_operator.register_fake
def _(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _gradient(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return grad, grad


add_operator.register_autograd(_gradient)


def add(
    x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Add two tensors, element by element.

    Args:
        x: any shape, strides and number of elements, of a type in `operands.DTYPES`.
        y: the same shape, dtype and device as `x`, any strides.
        out: receives the sum: the same shape, dtype and device, any strides; `x` or
            `y` itself if you like. It can't take part in a gradient.

    Returns:
        `x + y`, bit for bit what `torch.add` returns: `out` if it was given, else a
        new tensor with the strides of `torch.empty_like(x)`. Differentiable in both
        operands.

    Raises:
        TypeError: not a tensor, a dtype outside `DTYPES`, or two different ones.
        ValueError: different shapes or devices, a tensor where this process's kernels
            can't reach it, or `out` together with a gradient.

    Notes:
        Operands that lie densely in memory in one and the same order, contiguous or
        not, are added where they are; others are copied into that order first.
        Integers wrap round on overflow.
    """
    if not _fits(x, y):
        check_operands(x, y, anywhere=True)
    if out is None:
        if not library.eager(x, y):
            return add_operator(x, y)
        out = torch.empty_like(x)
        _add_into(whole.add_kernel, x, y, out)
        return out
    if not _fits(x, out):
        check.tensor(out, "out", dtype=x.dtype, shape=x.shape, device=x.device)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, y, out)):
        raise ValueError(
            "out can't take part in a gradient: leave it out, or call under "
            "torch.no_grad()"
        )
    if not library.eager(x, y, out) or _overlaps(out, x) or _overlaps(out, y):
        return out.copy_(add(x, y))
    if not _dense(out):
        return out.copy_(add(x, y))
    _add_into(whole.add_kernel, x, y, out)
    # Autograd counts what is written in place, and didn't see the kernel do it.
    increment_version(out)
    return out


def _fits(x: torch.Tensor, y: torch.Tensor) -> bool:
    # One glance instead of a check by check, which takes longer than a launch.
    return (
        isinstance(x, torch.Tensor)
        and isinstance(y, torch.Tensor)
        and x.dtype in DTYPES
        and x.dtype is y.dtype
        and x.shape == y.shape
        and x.device == y.device
        and x.device.type == ("cpu" if device.interpreting() else "cuda")
    )


def _add_into(kernel: Any, x: torch.Tensor, y: torch.Tensor, out: torch.Tensor) -> None:
    """Write `x + y` to `out`, which is dense and overlaps neither, or equals one."""
    if not out.numel():
        return
    order = out.stride()
    if x.stride() != order:
        x = torch.empty_like(out).copy_(x)
    if y.stride() != order:
        y = torch.empty_like(out).copy_(y)
    with library.on(out):
        whole.launch(kernel, x, y, out)


def _dense(x: torch.Tensor) -> bool:
    """Whether the elements fill one stretch of memory, each place once."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _overlaps(out: torch.Tensor, x: torch.Tensor) -> bool:
    """Whether writing to `out` may change an element of `x` that is still to be read.

    The same elements in the same places are no such danger.
    """
    apart = abs(out.data_ptr() - x.data_ptr())
    if out.is_contiguous() and x.is_contiguous():
        return 0 < apart < out.nbytes
    if not apart and out.stride() == x.stride():
        return False
    first, last = _extent(out)
    low, high = _extent(x)
    return low < last and first < high


def _extent(x: torch.Tensor) -> tuple[int, int]:
    """Address of the first byte of a tensor, and of the first byte after it."""
    if not x.numel():
        return x.data_ptr(), x.data_ptr()
    reach = sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True)) + 1
    return x.data_ptr(), x.data_ptr() + reach * x.element_size()
