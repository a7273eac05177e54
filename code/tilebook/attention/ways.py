"""Which kernels serve: Hopper's own where they can, else the general ones."""

from tilebook import device
from tilebook.attention import (
    backward,
    backward_fused,
    backward_whole,
    choose,
    folded,
    folding,
    forward,
    launching,
)
from tilebook.attention.gradients import Gradient
from tilebook.attention.operands import Task

FEWEST = 64
"""Queries from which on Hopper's kernel serves: so many a group of four warps has."""


def launch(task: Task) -> None:
    """Launch the forward kernel.

    Args:
        task: has elements; its `out` and `lse` are written.
    """
    if refusal(task) is None:
        folded.launch(on_hopper(task))
    else:
        forward.launch(task)


def launch_gradients(asked: Gradient, deterministic: bool) -> None:
    """Launch the backward kernels.

    Args:
        asked: what is wanted, of an attention that has elements.
        deterministic: whether it must have the same bits each time.
    """
    if deterministic or asked.steps is not None:
        backward.launch(asked)
    elif device.has("wgmma"):
        # By pointers, `backward_whole` was slower there than two kernels.
        fused = backward_fused.refusal(asked) is None
        (backward_fused if fused else backward).launch(asked)
    elif choose.whole_pays(asked.task) and not backward_whole.refusal(asked.task):
        backward_whole.launch(asked)
    else:
        backward.launch(asked)


def told(task: Task) -> str:
    """Say which kernel serves.

    Args:
        task: has elements.

    Returns:
        Its name and configuration, and why it is no faster one.
    """
    reason = refusal(task)
    if reason is None:
        return f"folded: {_named(folding.config_for(on_hopper(task)))}"
    return f"forward: {_named(choose.forward_config(task))} ({reason})"


def _named(config: choose.Config | launching.Config) -> str:
    return ", ".join(f"{k}={v}" for k, v in config._asdict().items())


def refusal(task: Task) -> str | None:
    """Say why Hopper's own kernel doesn't serve.

    Args:
        task: has elements.

    Returns:
        The first reason; None if it serves.
    """
    if not device.has("wgmma"):
        return "this device has no tensor cores of a Hopper"
    rows, keys = task.q.shape[2], task.k.shape[2]
    if not keys:
        return "there are no keys"
    asked = {
        "packed sequences": task.packed, "a bias": task.bias is not None,
        "slopes": task.slopes is not None, "a cap": task.cap != 0,
        "sinks": task.sinks is not None, "dropout": task.threshold > 0,
    }  # fmt: skip
    for name, wish in asked.items():
        if wish:
            return f"the general kernel has {name}"
    if rows < FEWEST:
        return f"{rows} queries leave a group of warps without work"
    if task.bottom and rows != keys and (task.left, task.right) != (None, None):
        return "positions count from the last key"
    return launching.refusal(on_hopper(task))


def on_hopper(task: Task) -> launching.Task:
    """Describe an attention as Hopper's kernels want it.

    Args:
        task: without further options.

    Returns:
        The task. A window that ends before the first key is none, nor is one that
        begins behind the last.
    """
    rows, keys = task.q.shape[2], task.k.shape[2]
    left, right = task.left, task.right
    if left is not None and left >= rows - 1:
        left = None
    if right is not None and right >= keys - 1 and right > 0:
        right = None
    return launching.Task(
        task.q, task.k, task.v, task.out, task.lse, task.scale, left, right, task.wrap
    )
