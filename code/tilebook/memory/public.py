"""`copy` for use: any strides, any dtype, `out=`, a gradient, `torch.compile`."""

from typing import Any

import torch
from torch.autograd.graph import increment_version

from tilebook import check, library
from tilebook.memory import capped, layout, strided, vectors


@library.operator("tilebook::copy", opaque=True)
def copy_operator(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    _copy_into(x, out)
    return out


@copy_operator.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def _gradient(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
    return grad


copy_operator.register_autograd(_gradient)


def copy(x: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Copy a tensor.

    Args:
        x: any shape, strides, dtype and number of elements.
        out: receives the copy: the same shape, dtype and device, any strides each of
            which exceeds all that lies within, so that no elements share a place. It
            can't take part in a gradient.

    Returns:
        `out` if it was given, else a new tensor with the strides of
        `torch.empty_like(x)`. Differentiable.

    Raises:
        TypeError: not a tensor, a quantised one, or `out` of another dtype.
        ValueError: another shape or device, a tensor where this process's kernels
            can't reach it, places shared in `out`, or `out` together with a gradient.

    Notes:
        Bit for bit, NaN payloads included. Where both tensors are dense in one and the
        same order the copy moves 16 bytes for each thread; otherwise it goes element
        by element, in the order of the output. If `x` and `out` overlap, the result is
        as if `x` had been read first.
    """
    check.tensor(x, "x")
    check.runs_here(x, "x")
    if x.is_quantized:
        raise TypeError(f"x must not be quantised, got {x.dtype}")
    # Whoever traces for torch.compile can't ask, and the operator resolves them.
    if not torch.compiler.is_compiling() and (x.is_neg() or x.is_conj()):
        x = x.resolve_neg().resolve_conj()
    if out is None:
        if not library.eager(x):
            return copy_operator(x)
        out = torch.empty_like(x)
        _copy_into(x, out)
        return out
    layout.check_output(x, out)
    if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
        raise ValueError(
            "out can't take part in a gradient: leave it out, or call under "
            "torch.no_grad()"
        )
    if not library.eager(x, out) or out.is_conj():
        out.copy_(copy(x))
        return out
    if x.numel() and layout.disturbs(x, out):
        x = copy(x)
    _copy_into(x, out)
    # Autograd counts what is written in place, and didn't see the kernel do it.
    increment_version(out)
    return out


def _copy_into(x: torch.Tensor, out: torch.Tensor) -> None:
    if not x.numel():
        return
    if x.element_size() == 16:
        x, out = torch.view_as_real(x), torch.view_as_real(out)
    dims = layout.merged(x, out)
    with library.on(out):
        if layout.flat(dims):
            capped.launch(*vectors.spans(x, out))
        else:
            source, target = vectors.elements(x), vectors.elements(out)
            strided.launch(strided.copy_kernel, source, target, x.numel(), dims)
