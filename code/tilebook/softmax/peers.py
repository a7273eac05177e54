"""What the chapter is measured against, where it is installed."""

import functools
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable

import torch

from tilebook import measure
from tilebook.measure import Provider
from tilebook.testing.precision import format_of

NAMES = ("torch", "torch.compile", "liger", "flag_gems")

DEEPEST = 16
"""How far below its row's maximum a random normal element lies, at most."""
LIGER_LONGEST = 65536
"""Elements of a row beyond which Liger refuses, or goes another way."""


def stepwise(dtype: torch.dtype) -> float:
    """Bound the relative error of a softmax that rounds to its dtype at each step.

    Args:
        dtype: of the operand.

    Returns:
        (t + 4) u for the dtype's u: the difference to the maximum, t at most, is off
        by u of itself and its power relatively by as much; power, sum, quotient and
        result add one u each.
    """
    return (DEEPEST + 4) * format_of(dtype).roundoff


def _rows(x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1)


def _into(x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, -1, out=out)


def forward(n: int, dtype: torch.dtype) -> dict[str, Provider]:
    """The peers that take rows of some length.

    Args:
        n: elements of a row.
        dtype: of the operand.

    Returns:
        Providers by name. Those that may round at each step are held to `stepwise`.
    """
    found = {
        "torch": Provider(_into, out=True),
        "torch.compile": measure.compiled(_rows),
    }
    loose = stepwise(dtype)
    if (liger := _liger()) and n <= LIGER_LONGEST:
        found["liger"] = Provider(liger.LigerSoftmaxFunction.apply, bound=loose)
    if gems := _gems():
        fn = functools.partial(gems.softmax, dim=-1)
        found["flag_gems"] = Provider(fn, bound=loose)
    return found


def _formula(y: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    y_, grad = y.float(), grad.float()
    return (y_ * (grad - (y_ * grad).sum(-1, keepdim=True))).to(y.dtype)


def _aten(y: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return torch._softmax_backward_data(grad, y, -1, y.dtype)


def backward(n: int, dtype: torch.dtype) -> dict[str, Provider]:
    """The peers that have a gradient for rows of some length; see `forward`.

    Args:
        n: elements of a row.
        dtype: of the result and of what arrives.

    Returns:
        Providers by name, which take the result and what arrives for it.
    """
    # Products in the narrow type, PyTorch's too, and sums: relative to the terms, not
    # to what is left.
    loose = 8 * math.sqrt(n) * format_of(dtype).roundoff
    found = {
        "torch": Provider(_aten, bound=loose),
        "torch.compile": measure.compiled(_formula),
    }
    liger = _liger()
    if liger and n <= LIGER_LONGEST and hasattr(liger, "_softmax_backward"):
        found["liger"] = Provider(functools.partial(_liger_gradient, n), bound=loose)
    if (gems := _gems()) and hasattr(gems, "softmax_backward"):
        found["flag_gems"] = Provider(_gems_gradient, bound=loose)
    return found


def _liger_gradient(n: int, y: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    return _liger()._softmax_backward(grad, y, *_liger_settings(n), False)


def _liger_settings(n: int) -> tuple[int, int]:
    return importlib.import_module("liger_kernel.ops.utils").calculate_settings(n)


def _gems_gradient(y: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    fn: Callable[..., torch.Tensor] = _gems().softmax_backward
    # Versions differ in whether they ask for the operand's dtype.
    asked = [grad, y, -1, y.dtype][: len(inspect.signature(fn).parameters)]
    return fn(*asked)


@functools.cache
def _liger():
    return _installed("liger_kernel", "liger_kernel.ops.softmax")


@functools.cache
def _gems():
    return _installed("flag_gems", "flag_gems.ops")


def _installed(package: str, module: str):
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.import_module(module)
