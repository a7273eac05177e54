"""What the rungs of `copy` have in common: vectors, seen as integers."""

import math

import torch

from tilebook import check as checks
from tilebook.memory import layout

WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer that moves so many bytes."""


def check(x: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """Check a rung's operands, and make the output if there is none.

    Args:
        x: contiguous.
        out: contiguous, of the same shape, dtype and device; None for a new one.

    Returns:
        The output.

    Raises:
        TypeError: a tensor isn't one, or has another dtype, or one without integers of
            its size.
        ValueError: shapes or devices differ, or a tensor isn't contiguous.
    """
    checks.tensor(x, "x", contiguous=True)
    check_elements(x)
    checks.runs_here(x, "x", current=True)
    if out is None:
        return torch.empty_like(x)
    layout.check_output(x, out)
    checks.tensor(out, "out", contiguous=True)
    layout.written(out, x)
    return out


def check_elements(x: torch.Tensor) -> None:
    """Check that there are integers of an element's size.

    Raises:
        TypeError: there are none, or the integers don't say everything.
    """
    sub_byte = str(x.dtype).removeprefix("torch.").startswith(("bits", "float4"))
    if x.element_size() not in WORDS or x.is_quantized or sub_byte:
        raise TypeError(
            f"x must have elements of 1, 2, 4 or 8 bytes, got {x.dtype}; "
            "tilebook.memory.copy takes complex128 too"
        )


def elements(x: torch.Tensor) -> torch.Tensor:
    """See a tensor's elements as integers of their size, any strides."""
    return x.view(WORDS[x.element_size()])


def spans(x: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See two tensors that are dense in one and the same order as `words` does.

    Args:
        x: dense.
        out: dense, the same strides.

    Returns:
        Views of both, of one dimension.
    """
    x, out = (t.as_strided((t.numel(),), (1,)) for t in (x, out))
    return words(x, out)


def words(x: torch.Tensor, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """See two vectors as the longest integers at whose multiples both begin and end.

    Args:
        x: contiguous.
        out: contiguous, of the same number of bytes.

    Returns:
        Views of both, of one dimension.
    """
    offsets = [t.storage_offset() * t.element_size() for t in (x, out)]
    size = math.gcd(8, x.data_ptr(), out.data_ptr(), x.nbytes, *offsets)
    # Not reshape: a single element may keep a stride other than 1.
    flat = (t.as_strided((t.numel(),), (1,)).view(torch.uint8) for t in (x, out))
    source, target = (t.view(WORDS[size]) for t in flat)
    return source, target
