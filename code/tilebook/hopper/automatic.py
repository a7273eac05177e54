"""Rung 2, `warp_specialize=True`: the compiler gives the loads to warps of their own.

The kernel is that of `made`; an argument of its outer loop differs. On Hopper it takes
effect for four warps, descriptors that the kernel made and two loops that stay two, and
elsewhere nothing is said. `elsewhere` shows each case.
"""

import torch

from tilebook.hopper import launching, made
from tilebook.hopper.launching import Config
from tilebook.matmul.operands import Task

CONFIGS = (
    *(Config(128, 256, 64, 3), Config(128, 128, 64, 4)),
    *(Config(128, 64, 64, 4), Config(128, 128, 128, 2)),
)
"""What to try on a card; of two equals `config_for` takes the first."""
MOST_STAGES = 4
"""With more the result was wrong on an H100, with Triton 3.6; see `places`."""
WARPS = 4


def config_for(task: Task) -> Config:
    """Choose how to launch the kernel; see `launching.config_for`."""
    return launching.config_for(task, CONFIGS, 2)


def launch(task: Task, config: Config | None = None) -> None:
    """Launch the kernel; see `made.launch_as`.

    Args:
        task: the product, one that `launching.refusal` doesn't refuse.
        config: how; what `config_for` chooses by default.

    Raises:
        ValueError: the product is refused, has more tiles than 32 bits count, or was to
            have more than `MOST_STAGES`.
    """
    config = config or config_for(task)
    if config.num_stages > MOST_STAGES:
        raise ValueError(
            f"automatic has at most {MOST_STAGES} stages, got {config.num_stages}: "
            "with more its results were wrong on a card"
        )
    made.launch_as(task, config, warps=WARPS, flatten=False, specialize=True)


def matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices in groups of warps that the compiler made.

    Args:
        a: matrix (m, k) in bfloat16 or float16, rows or columns of neighbours that lie
            multiples of 16 bytes apart, as does its start.
        b: matrix (k, n), likewise, of the same dtype; n a multiple of 8.

    Returns:
        The product (m, n), contiguous, of the same dtype.

    Raises:
        HardwareError: this GPU has no such tensor cores.
        TypeError: not tensors, no dtype that any kernel multiplies, or two of them.
        ValueError: not matrices, sides that don't meet, elements of another type, a
            matrix that can't be described, or a tensor where this process's kernels
            can't reach it.
    """
    return launching.multiplied(launch, a, b)
