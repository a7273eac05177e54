"""What a kernel asks of L2 for what it reads once.

L2 takes in what is read and what is written alike. When it is full, something leaves,
and what has been written must be carried to memory first. A load may say that its line
shall be the last to leave ("evict_last"): then written lines leave earlier, more of
them one after the other. `softmax-policies` measures what that is worth, and what it
costs a kernel that comes afterwards and wants L2 for itself.
"""

import torch

from tilebook import device

L2 = 50 * 2**20
"""Bytes of an H100's, for where kernels are only compiled or interpreted."""


def policy(*tensors: torch.Tensor) -> str:
    """Choose the eviction policy for loads of what is needed once.

    Args:
        *tensors: all that a kernel reads and writes.

    Returns:
        "evict_last" where L2 doesn't hold them together; else "", so that the next
        kernel finds the result there, and room.
    """
    total = sum(t.numel() * t.itemsize for t in tensors)
    return "evict_last" if total > (device.current().l2_bytes or L2) else ""
