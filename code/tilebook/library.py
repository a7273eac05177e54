"""Kernels as PyTorch operators: one registration for both modes, and its shortcut.

An operator registered with `torch.library` works under `torch.compile`, autograd and
`vmap`, though not under `torch.func`'s derivatives, which no custom operator has.
Compiled kernels go through `triton_op`, so that `torch.compile` sees them; interpreted
ones, which no compiler can look into, through `custom_op`, and so do those whose
launch depends on an address or which see bits as another type: of a tensor that is only
traced nobody knows the address, and Inductor fails on such views.
"""

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd import forward_ad

from tilebook import device

__all__ = ["eager", "launchable", "no_tangent", "on", "operator"]


def operator(
    name: str, *, mutates: Iterable[str] = (), opaque: bool = False
) -> Callable[[Callable], Any]:
    """Register a function that launches kernels as a PyTorch operator.

    Args:
        name: "tilebook::" and the operator's name.
        mutates: the names of the arguments it writes to.
        opaque: whether `torch.compile` is to call the function as it is, and not to
            look into it.

    Returns:
        A decorator, whose result is the operator (`register_fake`,
        `register_autograd`, ... as `torch.library` describes them). The function
        launches its kernels through `launchable`, an opaque one as they are, and its
        signature is typed.

    Notes:
        The dispatcher takes some 25 us for a call on a laptop's core: what `eager` is
        there to avoid.
    """
    if opaque or device.interpreting():
        return torch.library.custom_op(name, mutates_args=tuple(mutates))
    return torch.library.triton_op(name, mutates_args=tuple(mutates))


def launchable(kernel: Any) -> Any:
    """Prepare a kernel for a launch inside an `operator`.

    Args:
        kernel: a kernel under `triton.jit` or `triton.autotune`.

    Returns:
        What to index with the grid, in place of the kernel.
    """
    if device.interpreting():
        return kernel
    return torch.library.wrap_triton(kernel)


def eager(*tensors: torch.Tensor) -> bool:
    """Whether launching a kernel directly equals calling the operator.

    Args:
        tensors: all tensors that the kernel gets.

    Returns:
        False if anything in PyTorch has to see the call: a gradient,
        `torch.compile`, a mode, a transformation of `torch.func`, a tensor subclass,
        a trace, or a lazily negated or zero tensor. True leaves the launch to the
        caller.

    Raises:
        NotImplementedError: a tensor carries a forward-mode derivative, which
            operators of `torch.library` would drop in silence. Code that torch.compile
            has traced can't ask, and drops it.
    """
    if torch.compiler.is_compiling():
        return False
    if forward_ad._current_level >= 0:
        no_tangent(*tensors)
        return False
    if torch._C._len_torch_dispatch_stack() or torch.jit.is_tracing():
        return False
    grad = torch.is_grad_enabled()
    for tensor in tensors:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            return False
        if (grad and tensor.requires_grad) or tensor.is_neg():
            return False
        if tensor._is_zerotensor():
            return False
        if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            return False
    return True


def no_tangent(*tensors: torch.Tensor) -> None:
    """Refuse tensors whose forward-mode derivative would get lost.

    Args:
        tensors: that a kernel gets.

    Raises:
        NotImplementedError: one of them carries such a derivative.
    """
    if forward_ad._current_level < 0:
        return
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError("kernels have no forward-mode derivative")


def on(tensor: torch.Tensor) -> AbstractContextManager:
    """Make a tensor's GPU the current one: where Triton launches, come what may.

    Args:
        tensor: on any device.

    Returns:
        A context; entering it costs next to nothing if nothing has to change.

    Raises:
        NotImplementedError: `torch.jit.trace` runs, and would record the allocation of
            the result but no launch. It doesn't run inside an `operator`, which it
            records as a whole.
    """
    if torch.jit.is_tracing():
        raise NotImplementedError(
            "torch.jit.trace doesn't record a kernel that a rung launches: trace an "
            "operator, such as tilebook.ops.matmul or tilebook.softmax.softmax"
        )
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        return torch.cuda.device(tensor.device)
    return contextlib.nullcontext()
