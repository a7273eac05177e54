"""The reductions' kernels, compiled for a named target as a call would launch them."""

import functools
from typing import Any

import torch

from tilebook import compile_only
from tilebook.softmax import exponentials, extremes, gradients, moments, sums, topk


class _Caught:
    """Stands in for a kernel and keeps what it is launched with."""

    def __init__(self, kernel: Any, launches: list[tuple[Any, Any, Any]]) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return lambda *args, **meta: self.launches.append((self.kernel, args, meta))


def launches(
    name: str, x: torch.Tensor, dim: int | None, k: int = 8
) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """What a reduction launches on a tensor, which is only looked at.

    Args:
        name: of the reduction: "sum", "mean", "var", "argmax", "logsumexp", "topk", or
            "var backward" or "logsumexp backward".
        x: the operand, on any device, also "meta".
        dim: what is reduced; None for all elements.
        k: for `topk`.

    Returns:
        Kernel, arguments and options of each launch, in order.
    """
    found: list[tuple[Any, Any, Any]] = []

    def caught(*kernels: Any) -> tuple[_Caught, ...]:
        return tuple(_Caught(kernel, found) for kernel in kernels)

    if name in ("sum", "mean"):
        sums.added(*caught(sums.sum_kernel), x, dim, False, name == "mean")
    elif name == "var":
        kernels = caught(moments.var_kernel, moments.merge_kernel)
        moments.spread(kernels, x, dim, 1, False)
    elif name == "argmax":
        kernels = caught(extremes.argmax_kernel, extremes.choose_kernel)
        extremes.found_in(kernels, x, dim, False)
    elif name == "logsumexp":
        kernels = caught(exponentials.logsumexp_kernel, exponentials.join_kernel)
        exponentials.summed(kernels, x, dim, False)
    elif name == "topk":
        kernels = caught(topk.topk_kernel, topk.pick_kernel, topk.unpack_kernel)
        topk.selected(kernels, x, k)
    else:
        stat = x.new_empty(x.shape[0] if dim else x.shape[-1], dtype=torch.float32)
        if name == "var backward":
            kernel = caught(gradients.centred_kernel)
            gradients.for_each(*kernel, x, dim, (stat, stat), 1)
        else:
            kernel = caught(gradients.share_kernel)
            gradients.for_each(*kernel, x, dim, (stat, stat))
    return found


@functools.cache
def compiled(
    name: str,
    shape: tuple[int, ...],
    dim: int | None,
    dtype: torch.dtype = torch.float32,
    target: str = "sm_90",
    k: int = 8,
) -> tuple[compile_only.Artefact, ...]:
    """Compile what a reduction launches on a contiguous tensor.

    Args:
        name: see `launches`.
        shape: of the tensor.
        dim: what is reduced; None for all elements.
        dtype: of the tensor.
        target: as for `compile_only.compile`.
        k: for `topk`.

    Returns:
        The compiled kernels, in the order of their launches.
    """
    x = torch.empty(shape, dtype=dtype, device="meta")
    return tuple(
        compile_only.compile(kernel, *args, target=target, **meta)
        for kernel, args, meta in launches(name, x, dim, k)
    )
