"""A kernel that tells Proton what each launch moves and computes."""

from typing import Any

import triton

from tilebook.tools import case


def traffic(
    grid: tuple[int, ...],
    kernel: Any,
    args: dict[str, Any],
) -> dict[str, Any]:
    """Say what a launch of the case's last step must move.

    Args:
        grid: programs along each axis.
        kernel: the compiled kernel, with its name.
        args: of the launch, by parameter.

    Returns:
        What Proton notes: a name, bytes, and operations of 32 bits.
    """
    numbers = args["m"] * args["n"]
    return {
        "name": f"{kernel.name} {args['m']} x {args['n']}",
        "bytes": 4 * (2 * numbers + numbers // args["GROUP"]),
        "flops32": numbers,
    }


wide_kernel = triton.jit(case.wide_kernel.fn, launch_metadata=traffic)


def launch(m: int, n: int) -> None:
    """Launch it on operands of its own.

    Args:
        m: rows.
        n: columns, a multiple of `case.GROUP`.
    """
    import torch

    from tilebook import device

    x, scale, out = case.operands(m, n, torch.device(device.torch_device()))
    grid, args, meta = case.WIDE.arguments(x, scale, out)
    wide_kernel[grid](*args, **meta)
