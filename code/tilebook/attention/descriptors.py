"""What the copy engine brings inside a loop: which tensors it can walk over."""

from typing import Any

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook.attention.operands import Task, cover


def looped(task: Task, block: int, *names: str, **more: torch.Tensor) -> dict[str, Any]:
    """Tensors that a kernel's loop goes through, as it gets them.

    Args:
        task: the attention.
        block: rows that are loaded at a time.
        names: two of the task's tensors or of `more`.
        more: tensors besides.

    Returns:
        Descriptors for the arguments NAME_ptr where the task asks for them and all
        tensors can be described; else no more than that there are none.
    """
    found = [more[name] if name in more else getattr(task, name) for name in names]
    if not task.described or not all(map(describable, found)):
        return {"DESCRIBED": False}
    return {
        "DESCRIBED": True,
        **{
            f"{name}_ptr": TensorDescriptor(
                x, list(x.shape), list(x.stride()), [1, 1, block, cover(x.shape[3])]
            )
            for name, x in zip(names, found, strict=True)
        },
    }


def describable(x: torch.Tensor) -> bool:
    """Whether the copy engine can walk over a tensor with four dimensions."""
    if not x.numel() or x.data_ptr() % 16 or max(x.shape) >= 1 << 31:
        return False
    # 16 bytes from row to row; the hardware has 40 bits for a distance.
    steps = [step * x.itemsize for step in x.stride()[:3]]
    near = all(step > 0 and step % 16 == 0 and step < 1 << 40 for step in steps)
    return near and x.stride(3) == 1
