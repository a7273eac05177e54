"""Gradients of kernels of one pass, in a model of Hopper or on one, beside float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from tilebook import schedules
from tilebook.attention import launching, reference
from tilebook.attention.errors import bounds
from tilebook.attention.gradients import Gradient
from tilebook.attention.operands import Task
from tilebook.attention.trials import close
from tilebook.matmul.evidence import launches


class Sizes(NamedTuple):
    """Sizes of an attention whose gradients are wanted."""

    batch: int
    heads: int
    kv: int
    """Heads of keys."""
    rows: int
    keys: int
    columns: int
    causal: bool


def strided(
    *shape: int, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Draw heads side by side as a layer makes them, NaN between.

    Args:
        shape: batch, heads, rows, columns.
        dtype: of the tensor.
        device: its device.
    """
    batch, heads, rows, columns = shape
    wide = torch.full((batch, rows + 1, heads, columns + 8), torch.nan, device=device)
    wide[:, :rows, :, :columns] = torch.randn(
        batch, rows, heads, columns, device=device
    )
    return wide.to(dtype)[:, :rows, :, :columns].transpose(1, 2)


def gradient_for(
    case: tuple, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Gradient:
    """What is wanted of an attention that the definition has computed.

    Args:
        case: what `Sizes` has.
        dtype: of the operands.
        device: theirs.
    """
    batch, heads, kv, rows, keys, columns, causal = Sizes(*case)
    told = {"dtype": dtype, "device": device}
    q, do = (strided(batch, heads, rows, columns, **told) for _ in "qg")
    k, v = (strided(batch, kv, keys, columns, **told) for _ in "kv")
    right = 0 if causal else None
    out, lse = reference.attention(
        *(x.double() for x in (q, k, v)), scale=columns**-0.5, right=right
    )
    task = Task(
        q, k, v, out.to(dtype), lse.float().contiguous(), columns**-0.5, None, right
    )
    places = (torch.full_like(x, torch.nan) for x in (q, k, v))
    return Gradient(task, do, None, *places)


def assert_right(asked: Gradient, handed: bool = False) -> None:
    """Assert that gradients are within their bounds.

    Args:
        asked: with what a kernel has computed.
        handed: whether gradients of logits are of rounded weights.

    Raises:
        AssertionError: they aren't.
    """
    task = asked.task
    wide = [x.detach().double().requires_grad_() for x in task[:3]]
    out, _ = reference.attention(*wide, scale=task.scale, right=task.right)
    exact = torch.autograd.grad(out, wide, asked.do.double())
    limits = bounds(
        *task[:3], asked.do, torch.zeros_like(task.lse), scale=task.scale,
        right=task.right, precision="ieee", handed=handed,
    )  # fmt: skip
    for name, found, want in zip("qkv", asked[3:6], exact, strict=True):
        close(found, want, getattr(limits, f"d{name}"))


def scheduled(
    launch: Callable[[Gradient, Any], None], asked: Gradient, config: Any, seed: int
) -> list[list[schedules.Event]]:
    """Compute gradients in one of the orders that barriers allow.

    Args:
        launch: of a kernel whose arguments 4 to 8 are sums, dk, dv, powers, deltas.
        asked: what is wanted; it is written.
        config: how.
        seed: which order.

    Returns:
        What happened, program by program.
    """
    task = asked.task

    def recorded(wrap: Callable[[Any], Any]) -> None:
        launch(asked._replace(task=task._replace(wrap=wrap)), config)

    *_, found = launches(recorded)
    sums, _, _, powers, deltas = (x.base for x in found.args[4:9])
    # The kernel before this one was recorded and not run.
    lse = task.lse.masked_fill(task.lse == -torch.inf, torch.inf)
    powers.copy_(lse * launching.LOG2E)
    deltas.copy_((asked.do.float() * task.out.float()).sum(-1))
    events = schedules.run(
        found.kernel, found.grid, *found.args, **found.meta, seed=seed
    )
    asked.dq.copy_(sums[..., : task.q.shape[3]])
    return events
