"""Values that mark memory nobody wrote.

Floating-point memory is filled with a quiet NaN whose payload no arithmetic makes, so
an element that still has these bits was never written, even where NaN is expected.
Integers have no such value: they get a byte drawn anew for each use, so that a
result which happens to equal it in one run differs in the next.
"""

import random

import torch

_PATTERNS = {
    torch.float64: (torch.int64, 0x7FF8_DEAD_BEEF_DEAD),
    torch.float32: (torch.int32, 0x7FC0_DEAD),
    torch.float16: (torch.int16, 0x7EAD),
    torch.bfloat16: (torch.int16, 0x7FED),
    torch.float8_e5m2: (torch.uint8, 0x7F),
    torch.float8_e4m3fn: (torch.uint8, 0x7F),
}
_BYTES = (0x5B, 0x6D, 0x73, 0x35, 0x4E)
_source = random.Random()


def fill(tensor: torch.Tensor) -> int | None:
    """Fill a tensor with poison, in place.

    Args:
        tensor: dense or strided, any dtype.

    Returns:
        The integer that marks unwritten elements, or None for a floating-point
        tensor (and bool, which has no value to spare).
    """
    tensor = once(tensor)
    if tensor.dtype in _PATTERNS:
        words, pattern = _PATTERNS[tensor.dtype]
        tensor.view(words).fill_(pattern)
        return None
    if tensor.dtype == torch.bool:
        tensor.fill_(_source.random() < 0.5)
        return None
    if tensor.dtype.is_complex:
        fill(torch.view_as_real(tensor))
        return None
    if tensor.dtype.is_floating_point:
        tensor.fill_(float("nan"))
        return None
    byte = _source.choice(_BYTES)
    value = int.from_bytes(bytes([byte]) * tensor.element_size(), "little")
    tensor.fill_(value)
    return value


def untouched(tensor: torch.Tensor, sentinel: int | None = None) -> torch.Tensor:
    """Which elements still hold poison.

    Args:
        tensor: any dtype.
        sentinel: what `fill` returned, for integers.

    Returns:
        bool tensor of the same shape; all False where the dtype can't tell. One-byte
        floating-point formats have a single NaN to spare, so there a NaN that was
        written counts as poison.
    """
    if tensor.dtype in _PATTERNS:
        words, pattern = _PATTERNS[tensor.dtype]
        return tensor.contiguous().view(words) == pattern
    if sentinel is not None:
        return tensor == sentinel
    return torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)


def once(tensor: torch.Tensor) -> torch.Tensor:
    """View of a tensor in which no memory appears twice, outside autograd.

    Args:
        tensor: perhaps with expanded (stride 0) dimensions.

    Returns:
        The same memory, expanded dimensions cut down to one.
    """
    tensor = tensor.detach()
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[dim] > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor
