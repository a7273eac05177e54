"""Values that mark memory nobody wrote, and memory nobody should read.

Floating-point memory is filled with quiet NaNs whose payloads no arithmetic makes: one
payload for elements still to be written, another for what lies around and between
them. An element that still has the first one's bits was never written (or was
computed from one that wasn't), even where NaN is expected. Integers have no such
value: there the mark is a byte drawn anew for each use, so that a result which
happens to equal it in one run differs in the next. What lies around a tensor is marked
otherwise than what lies around the one before: a kernel that copies one's surroundings
over the other's doesn't pass unseen.
"""

import itertools
import random
from enum import Enum

import torch

from tilebook.testing import marks


class Mark(Enum):
    """What a poisoned element stands for."""

    UNWRITTEN = "an element to be written"
    OUTSIDE = "memory around or between elements"


_NAN = {getattr(torch, name): bits for name, bits in marks.NAN.items()}
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
DTYPES = frozenset(
    (
        *(*_NAN, torch.bool, torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    )
)
_OUTSIDE_BYTES = itertools.cycle(marks.OUTSIDE_BYTES)
# Of the one-byte formats, whose NaNs are few and which have to differ from the first.
_OUTSIDE_NANS = {
    torch.float8_e5m2: itertools.cycle((0x7E, 0x7D, 0xFF, 0xFE, 0xFD)),
    torch.float8_e4m3fn: itertools.cycle((0xFF,)),
}
_source = random.Random()


def words(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor's bits as integers of the same width.

    Args:
        tensor: of any strides; not complex.

    Returns:
        View of the same memory.
    """
    return tensor.view(_WORDS[tensor.element_size()])


def pattern(dtype: torch.dtype, mark: Mark) -> int:
    """Bits that mark an element, as a number that fits `words`.

    Args:
        dtype: the element's.
        mark: which of the two.

    Returns:
        The number; for memory outside another one than the last time (but for
        float8_e4m3fn, which has two NaNs), for an unwritten integer one drawn anew.
    """
    width = dtype.itemsize
    if dtype in _NAN:
        value = _NAN[dtype][mark is Mark.OUTSIDE]
        if mark is Mark.OUTSIDE:
            value += next(_OUTSIDE_NANS.get(dtype, _OUTSIDE_BYTES))
        raw = value.to_bytes(width, "little")
    elif mark is Mark.OUTSIDE:
        raw = bytes([next(_OUTSIDE_BYTES)] * width)
    else:
        raw = bytes([_source.choice(marks.UNWRITTEN_BYTES)] * width)
    return int.from_bytes(raw, "little", signed=width > 1)


def fill(tensor: torch.Tensor, mark: Mark = Mark.UNWRITTEN) -> int | None:
    """Fill a tensor with poison, in place.

    Args:
        tensor: dense or strided, any dtype.
        mark: which poison.

    Returns:
        The bits that mark the elements, as `words` has them; None for bool, which has
        no value to spare and is filled with either at random.
    """
    tensor = once(tensor)
    if tensor.dtype == torch.bool:
        tensor.fill_(_source.random() < 0.5)
        return None
    bits = pattern(tensor.dtype, mark)
    words(tensor).fill_(bits)
    return bits


def untouched(tensor: torch.Tensor, bits: int | None = None) -> torch.Tensor:
    """Which elements still hold poison.

    Args:
        tensor: any dtype.
        bits: what `fill` returned; needed for integers alone.

    Returns:
        bool tensor of the same shape; all False where the dtype can't tell. One-byte
        formats have few NaNs, so there a NaN that was written may count as poison.
    """
    if bits is None and tensor.dtype in _NAN:
        bits = pattern(tensor.dtype, Mark.UNWRITTEN)
    if bits is None:
        return torch.zeros(tensor.shape, dtype=torch.bool, device=tensor.device)
    return words(tensor.detach()) == bits


def flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a tensor's elements as bytes.

    Args:
        tensor: any dtype and strides.

    Returns:
        One-dimensional uint8 tensor, elements in order.
    """
    # Not contiguous(): a single element with stride 2 would keep it.
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    return copy.reshape(-1).view(torch.uint8)


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
