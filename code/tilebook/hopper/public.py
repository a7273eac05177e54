"""`matmul` for use, with Hopper's kernels where they can serve."""

import torch

from tilebook.hopper import ways
from tilebook.matmul import public

__all__ = ["matmul", "ways"]


def matmul(
    a: torch.Tensor,
    b: torch.Tensor,
    *,
    precision: str | None = None,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Multiply two tensors as `tilebook.matmul.matmul` does, on Hopper by the fastest
    of more kernels.

    Args:
        a: (k,), (m, k) or (batch..., m, k) of a type in `operands.DTYPES` of `matmul`,
            or float64; any strides and sizes.
        b: (k,), (k, n) or (batch..., k, n), of the same dtype; batch dimensions
            broadcast.
        precision: of float32; see `tilebook.matmul.matmul`.
        out_dtype: the result's; see there.

    Returns:
        (batch..., m, n), contiguous, without m where `a` is a vector and n where `b`
        is. Differentiable, twice and more.

    Raises:
        TypeError: an argument of another type, or a dtype that isn't allowed.
        ValueError: no dimensions, sides that don't meet, batches that don't broadcast,
            another precision, two devices, or a tensor where this process's kernels
            can't reach it.

    Notes:
        As `tilebook.matmul.matmul`, whose notes hold here.
        Safe in `torch.compile` and in CUDA graphs: while one is recorded nothing is
        measured. `which` says which kernel serves.
    """
    return public.among(a, b, precision, out_dtype, "hopper")
