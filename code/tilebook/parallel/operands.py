"""What every rung of `add` asks of its operands."""

import torch

from tilebook import check

DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
)
"""The element types that `add` takes."""

INT32_OFFSETS = 2**31
"""How many elements offsets of 32 bits, one of them the sign, can tell apart."""


def check_operands(x: torch.Tensor, y: torch.Tensor, *, anywhere: bool = False) -> None:
    """Check two operands of an elementwise sum.

    Args:
        x: first operand, any shape.
        y: second operand.
        anywhere: allow any strides, and any GPU rather than the current one.

    Raises:
        TypeError: not a tensor, a dtype outside `DTYPES`, or two different ones.
        ValueError: different shapes or devices, a tensor where this process's kernels
            can't reach it, or strides that aren't contiguous where they must be.
    """
    check.tensor(x, "x", dtype=DTYPES, contiguous=not anywhere)
    check.tensor(y, "y", dtype=DTYPES, contiguous=not anywhere)
    check.same_dtype(x=x, y=y)
    check.same_shape(x=x, y=y)
    check.same_device(x=x, y=y)
    check.runs_here(x, "x")
    if x.is_cuda and not anywhere and x.device.index != torch.cuda.current_device():
        raise ValueError(
            f"x is on {x.device}, but kernels are launched on the current device, "
            f"cuda:{torch.cuda.current_device()}: enter torch.cuda.device(x.device)"
        )


def check_int32_offsets(x: torch.Tensor, step: int) -> None:
    """Check that offsets into a tensor stay within 32 bits.

    Args:
        x: the tensor that the offsets address.
        step: by how many elements at a time they advance; the last step may overshoot.

    Raises:
        ValueError: the last offset computed would wrap round to a negative one.
    """
    n = x.numel()
    if -(-n // step) * step > INT32_OFFSETS:
        raise ValueError(
            f"x has {n} elements: offsets of 32 bits, in steps of {step}, reach "
            f"{INT32_OFFSETS // step * step}; tilebook.parallel.wide has 64"
        )
