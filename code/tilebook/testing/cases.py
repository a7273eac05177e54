"""Inputs that kernels get wrong: awkward lengths, layouts and magnitudes."""

import itertools
from collections.abc import Iterator

import torch

from tilebook.testing import poison
from tilebook.testing.precision import format_of

_LENGTHS = (
    *(0, 1, 2, 3, 7, 8, 13, 16, 17, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129),
    *(251, 255, 256, 257, 509, 511, 512, 513, 997, 1000, 1023, 1024, 1025),
    *(2039, 2047, 2048, 2049, 4093, 4095, 4096, 4097, 8191, 8192, 8193, 10007),
    *(16383, 16384, 16385, 32749, 65535, 65536, 65537, 98432, 131071, 131072),
    *(131073, 1048573, 1048576, 1048577),
)


def lengths(limit: int = 4100) -> tuple[int, ...]:
    """Lengths where kernels break: empty, one, primes, powers of two and beside them.

    Args:
        limit: the largest wanted; the interpreter takes about a millisecond a program.

    Returns:
        Increasing lengths, 0 first.
    """
    return tuple(n for n in _LENGTHS if n <= limit)


def shapes(ndim: int, limit: int = 4100) -> tuple[tuple[int, ...], ...]:
    """Shapes of a rank where kernels break.

    Args:
        ndim: rank, 0 and up.
        limit: most elements wanted.

    Returns:
        One element; empty in each dimension; long and thin each way; primes; powers
        of two and beside them. No dimension pattern is a permutation of luck: sizes
        within a shape differ, so swapped dimensions show.
    """
    if ndim == 0:
        return ((),)
    if ndim == 1:
        return tuple((n,) for n in lengths(limit))
    found: list[tuple[int, ...]] = [(1,) * ndim]
    for dim in range(ndim):
        found.append(tuple(0 if d == dim else 3 for d in range(ndim)))
        for size in (33, 257, 1025):
            found.append(tuple(size if d == dim else 1 for d in range(ndim)))
            found.append(tuple(size if d == dim else 3 for d in range(ndim)))
    for sizes in (
        (2, 3, 5, 7),
        (7, 13, 2, 3),
        (16, 32, 2, 4),
        (17, 31, 3, 2),
        (64, 32, 2, 1),
        (65, 63, 1, 2),
        (97, 251, 2, 3),
    ):
        found.append(tuple(itertools.islice(itertools.cycle(sizes), ndim)))
    small = [s for s in found if torch.Size(s).numel() <= limit]
    return tuple(sorted(set(small), key=lambda s: (torch.Size(s).numel(), s)))


def layouts(x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The same values in memory in different ways, poison around and between.

    Args:
        x: any tensor.

    Yields:
        Name and tensor: ``contiguous``; ``offset`` (starts one element into its
        storage, so it is not aligned); ``strided`` (every second element of the last
        dimension); from two dimensions on ``sliced`` (rows of a wider matrix) and
        ``transposed`` (dimensions in reverse order in memory); ``expanded`` (stride
        0) for each dimension along which the values don't change.
    """
    yield "contiguous", x.detach().clone(memory_format=torch.contiguous_format)
    n = x.numel()
    around = _poisoned((n + 2,), x)
    yield "offset", _filled(around[1 : n + 1].view(x.shape), x)
    if x.ndim == 0:
        return
    wide = _poisoned((*x.shape[:-1], 2 * x.shape[-1] + 1), x)
    yield "strided", _filled(wide[..., 1::2], x)
    if x.ndim >= 2:
        wide = _poisoned((*x.shape[:-1], x.shape[-1] + 5), x)
        yield "sliced", _filled(wide[..., 3 : 3 + x.shape[-1]], x)
        turned = _poisoned(x.shape[::-1], x)
        yield "transposed", _filled(turned.permute(*reversed(range(x.ndim))), x)
    for dim, size in enumerate(x.shape):
        if size > 1 and x.numel():
            first = x.detach().narrow(dim, 0, 1).clone()
            whole = first.expand(x.shape)
            if bool(((whole == x) | (whole != whole) & (x != x)).all()):
                yield "expanded", whole


def expanded(x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of the same shape in which one dimension has stride 0.

    Args:
        x: any tensor; its first slice along each dimension gives the values.

    Yields:
        Name (``"expanded 0"``) and tensor, for each dimension longer than one.
    """
    for dim, size in enumerate(x.shape):
        if size > 1:
            yield f"expanded {dim}", x.detach().narrow(dim, 0, 1).clone().expand_as(x)


def extremes(dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """Values at the edges of a dtype.

    Args:
        dtype: floating-point or integer.
        device: where the tensor lies.

    Returns:
        One-dimensional tensor. Floating-point: zeros of both signs, ones, neighbours
        of one, smallest and largest normal and subnormal numbers, large and small
        magnitudes, infinities, NaN. Integers: both ends and about zero.
    """
    target = format_of(dtype)
    if dtype == torch.bool:
        return torch.tensor([False, True], device=device)
    if target is None:
        info = torch.iinfo(dtype)
        values = [info.min, info.min + 1, -1, 0, 1, 2, info.max - 1, info.max]
        values = [v for v in values if v >= info.min]
        return torch.tensor(sorted(set(values)), dtype=dtype, device=device)
    tiny, eps = target.smallest_normal, 2.0 ** (1 - target.digits)
    sizes = [
        *(0.0, 1.0, 1.0 + eps, 1.0 - eps / 2, 1 / 3, 3.0),
        *(tiny, tiny * eps, tiny * (1 - eps), target.largest**0.5, tiny**0.5),
        *(target.largest, target.largest * (1 - eps)),
    ]
    if target.infinity:
        sizes.append(float("inf"))
    values = [sign * size for size in sizes for sign in (1.0, -1.0)]
    wide = torch.tensor([*values, float("nan")], dtype=torch.float64, device=device)
    return wide.to(dtype)


def _poisoned(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    memory = torch.zeros(shape, dtype=like.dtype, device=like.device)
    poison.fill(memory, poison.Mark.OUTSIDE)
    return memory


def _filled(place: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return place.copy_(x.detach())
