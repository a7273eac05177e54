"""Attention as operators of PyTorch: one for the result, and one for all gradients."""

from typing import Any

import torch

from tilebook import device, library
from tilebook.attention import biases, ways
from tilebook.attention.gradients import wanted
from tilebook.attention.operands import Task, aligned, near, precision_of, room


@library.operator("tilebook::attention", opaque=True)
def attention_operator(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    slopes: torch.Tensor | None,
    sinks: torch.Tensor | None,
    seed: torch.Tensor | None,
    cu_q: torch.Tensor | None,
    cu_k: torch.Tensor | None,
    scale: float,
    left: int | None,
    right: int | None,
    bottom: bool,
    cap: float,
    dropout: float,
    deterministic: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = (q, k, v, bias, slopes, sinks, seed, cu_q, cu_k)
    return computed(tensors, (scale, left, right, bottom, cap, dropout))


@attention_operator.register_fake
def _(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *rest: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    return room(aligned(q), v)


def task_of(tensors: tuple, options: tuple, out: tuple | None = None) -> Task:
    """A task of an operator's arguments; its result has room, or is there already."""
    q, k, v, bias, slopes, sinks, seed, cu_q, cu_k = tensors
    scale, left, right, bottom, cap, dropout = options
    batch, heads, length, _ = q.shape
    q, k, v = aligned(q), aligned(k), aligned(v)
    if bias is not None:
        bias = near(bias).expand(batch, heads, length, k.shape[2])
    if slopes is not None:
        slopes = slopes.expand(batch, heads)
    out = room(q, v) if out is None else out
    described = cu_q is None and device.has("tma")
    return Task(
        q, k, v, *out, scale, left, right, bottom, cap, bias, slopes, sinks, dropout,
        seed, cu_q, cu_k, precision_of(q), described,
    )  # fmt: skip


def computed(tensors: tuple, options: tuple) -> tuple[torch.Tensor, torch.Tensor]:
    """Launch the forward kernel that `ways` chooses.

    Args:
        tensors: the operator's first nine arguments.
        options: what follows them, but for `deterministic`.

    Returns:
        The result and its logarithms.
    """
    task = task_of(tensors, options)
    if task.packed:
        # Positions that belong to no sequence are nobody's to write.
        task.out.zero_()
        task.lse.fill_(-torch.inf)
    if task.out.numel():
        with library.on(task.q):
            ways.launch(task)
    return task.out, task.lse


@library.operator("tilebook::attention_gradient", opaque=True)
def gradient_operator(
    do: torch.Tensor,
    dlse: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    slopes: torch.Tensor | None,
    sinks: torch.Tensor | None,
    seed: torch.Tensor | None,
    cu_q: torch.Tensor | None,
    cu_k: torch.Tensor | None,
    scale: float,
    left: int | None,
    right: int | None,
    bottom: bool,
    cap: float,
    dropout: float,
    deterministic: bool,
    by_bias: bool,
    by_slopes: bool,
    by_sinks: bool,
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
]:
    tensors = (q, k, v, bias, slopes, sinks, seed, cu_q, cu_k)
    options = (scale, left, right, bottom, cap, dropout)
    task = task_of(tensors, options, (aligned(out), lse))
    asked = wanted(task, do, dlse, slopes=by_slopes, sinks=by_sinks)
    dbias, dslopes, dsinks = _others(
        q, bias, slopes, sinks, by_bias, by_slopes, by_sinks
    )
    if not out.numel():
        # No queries: nothing arrives for anything.
        found = (asked.dq, asked.dk, asked.dv, dbias, dslopes, dsinks)
        for x in found:
            x.zero_()
        return found
    with library.on(q):
        ways.launch_gradients(asked, deterministic)
        if by_bias and dbias.numel():
            biases.launch(asked, dbias)
    if by_slopes:
        steps = asked.steps.sum(2)
        dslopes.copy_(steps.sum(0, keepdim=True) if slopes.shape[0] == 1 else steps)
    if by_sinks:
        dsinks.copy_(asked.sinks)
    return asked.dq, asked.dk, asked.dv, dbias, dslopes, dsinks


@gradient_operator.register_fake
def _(
    do: torch.Tensor,
    dlse: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    slopes: torch.Tensor | None,
    sinks: torch.Tensor | None,
    *rest: Any,
) -> tuple[torch.Tensor, ...]:
    task = Task(aligned(q), aligned(k), aligned(v), out, lse, 1.0, cu_q=rest[1])
    asked = wanted(task, do)
    return asked.dq, asked.dk, asked.dv, *_others(q, bias, slopes, sinks, *rest[-3:])


def _others(
    q: torch.Tensor,
    bias: torch.Tensor | None,
    slopes: torch.Tensor | None,
    sinks: torch.Tensor | None,
    by_bias: bool,
    by_slopes: bool,
    by_sinks: bool,
) -> list[torch.Tensor]:
    """Room for the gradients of options; none for those that nobody wants."""
    found = []
    for x, wish in ((bias, by_bias), (slopes, by_slopes), (sinks, by_sinks)):
        like = x if wish else q.new_empty(0)
        found.append(torch.empty(like.shape, dtype=like.dtype, device=q.device))
    return found


def _keep(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.options = inputs[9:]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:9], *output)


def _gradient(
    ctx: Any, do: torch.Tensor | None, dlse: torch.Tensor | None
) -> tuple[torch.Tensor | None, ...]:
    *tensors, out, lse = ctx.saved_tensors
    if do is None and dlse is None:
        return (None,) * 16
    if do is None:
        do = torch.zeros_like(out)
    asked = ctx.needs_input_grad[3:6]
    found = gradient_operator(do, dlse, out, lse, *tensors, *ctx.options, *asked)
    others = [x if wish else None for x, wish in zip(found[3:], asked, strict=True)]
    return *found[:3], *others, *(None,) * 10


attention_operator.register_autograd(_gradient, setup_context=_keep)
