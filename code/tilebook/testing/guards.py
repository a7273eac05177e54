"""Memory that notices being written outside a tensor, or not being written at all."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any
from unittest import mock

import torch

from tilebook.testing import poison
from tilebook.testing.poison import Mark, once

# Bytes; wide enough for a block of 16,384 float32 that starts at a tensor's end.
_BAND = 1 << 16
_EMPTY = torch.empty
_ORIGINALS = {
    (owner, name): getattr(owner, name)
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (torch, "empty_permuted"),
        (torch.Tensor, "new_empty"),
        (torch.Tensor, "new_empty_strided"),
    )
}


class GuardError(AssertionError):
    """Memory outside a tensor was written."""


@dataclass(frozen=True, eq=False)
class Guard:
    """A tensor between two bands that nobody may write.

    Args:
        tensor: the guarded tensor.
        memory: bits of band, tensor and band (see `poison.words`).
        inside: which part of ``memory`` lies between the bands.
        gaps: for a tensor with holes, which elements between the bands are not its
            own; nobody may write those either.
        outside: bits that the bands and gaps must keep.
        unwritten: bits that mark elements of the tensor never written.
        place: the tensor's offset, shape and strides when it was made.
        name: how error messages call the tensor.
    """

    tensor: torch.Tensor
    memory: torch.Tensor = field(repr=False)
    inside: slice
    gaps: torch.Tensor | None
    outside: int
    unwritten: int | None
    place: tuple[Any, ...] = field(repr=False)
    name: str = "a tensor"

    def check(self) -> None:
        """Look whether anything outside the tensor was written.

        Torch resizes a tensor that is too small for a result it is to take (``out=``).
        What it covers then is its own, as well as what it covered before.

        Raises:
            GuardError: it was; the message has shape, side and distance.
        """
        if _place(self.tensor) != self.place and self._in_memory():
            self._resized()._look()
        else:
            self._look()

    def _in_memory(self) -> bool:
        # Resizing keeps the storage, even if it moves it; `set_` takes another one.
        storage = self.tensor.untyped_storage()
        return storage.data_ptr() == self.memory.untyped_storage().data_ptr()

    def _resized(self) -> "Guard":
        """A guard of what the tensor covered at first and what it covers now."""
        offset, shape, stride = place = _place(self.tensor)
        end = offset + _extent(shape, stride)
        size = max(end, self.memory.numel())
        others = torch.ones(size, dtype=torch.bool, device=self.memory.device)
        others[self.inside] = False if self.gaps is None else self.gaps
        if self.tensor.numel():
            once(others.as_strided(shape, stride, offset)).fill_(False)
        inside = slice(min(self.inside.start, offset), max(self.inside.stop, end))
        # Beyond the memory there is nothing to look at: it had to grow.
        gaps = others[: self.memory.numel()][inside]
        return replace(self, inside=inside, gaps=gaps, place=place)

    def _look(self) -> None:
        spoiled = self.memory != self.outside
        before = spoiled[: self.inside.start].flip(0)
        after = spoiled[self.inside.stop :]
        self._complain(before, "before its start", "element {} before its first")
        self._complain(after, "past its end", "element {} after its last")
        if self.gaps is not None:
            between = spoiled[self.inside] & self.gaps
            strides = f"strides {self.tensor.stride()}"
            self._complain(between, f"between its elements ({strides})", "offset {}")

    def untouched(self) -> torch.Tensor:
        """Which elements were never written, as a bool tensor."""
        return poison.untouched(self.tensor, self.unwritten)

    def _complain(self, spoiled: torch.Tensor, where: str, first: str) -> None:
        if not bool(spoiled.any()):
            return
        count, at = int(spoiled.sum()), int(torch.nonzero(spoiled)[0])
        at += not first.startswith("offset")
        plural = "s" if count != 1 else ""
        raise GuardError(
            f"{self.name} ({self.tensor.dtype}, shape {tuple(self.tensor.shape)}): "
            f"{count} element{plural} written {where}, the nearest "
            f"{first.format(at)}. Is the store masked, and the offset right?"
        )


def guard(tensor: torch.Tensor, *, name: str = "a tensor") -> Guard:
    """Copy a tensor into guarded memory.

    Args:
        tensor: dense or strided, any dtype, CPU or GPU; expanded dimensions stay so.
        name: how error messages call it.

    Returns:
        A `Guard` whose ``tensor`` has the same values, shape and strides, and starts
        as far from a multiple of 16 bytes. What lies between its elements is poison.
    """
    shift = tensor.data_ptr() % 16 // tensor.element_size()
    made = allocate(
        tensor.shape, tensor.stride(), tensor.dtype, tensor.device, name, shift
    )
    single = once(made.tensor)
    single.copy_(tensor.detach()[tuple(slice(0, n) for n in single.shape)])
    made.tensor.requires_grad_(tensor.requires_grad)
    return made


@contextmanager
def guarded() -> Iterator[list[Guard]]:
    """Guard and poison what ``torch.empty`` and its relatives allocate.

    Within the context ``torch.empty``, ``empty_like``, ``empty_strided``,
    ``empty_permuted``, ``Tensor.new_empty`` and ``Tensor.new_empty_strided`` return
    memory full of poison between guard bands. Allocations that have no memory of
    their own (meta, fake, sparse, ``out=``), pinned and complex ones are left alone.

    Yields:
        The guards made so far.

    Raises:
        GuardError: on leaving, if anything outside one of them was written.
    """
    guards: list[Guard] = []
    with ExitStack() as patches:
        for (owner, name), original in _ORIGINALS.items():
            replacement = _guarding(original, guards)
            patches.enter_context(mock.patch.object(owner, name, replacement))
        yield guards
    for made in guards:
        made.check()


def _guarding(original: Callable[..., Any], guards: list[Guard]) -> Callable[..., Any]:
    """A replacement for one of torch's factories."""

    @wraps(original)
    def factory(*args: Any, **kwargs: Any) -> Any:
        plain = original(*args, **kwargs)
        special = kwargs.get("out") is not None or kwargs.get("pin_memory")
        if special or type(plain) is not torch.Tensor or plain.layout != torch.strided:
            return plain
        if plain.device.type not in ("cpu", "cuda") or plain.dtype not in poison.DTYPES:
            return plain
        made = allocate(plain.shape, plain.stride(), plain.dtype, plain.device)
        made.tensor.requires_grad_(plain.requires_grad)
        guards.append(made)
        return made.tensor

    return factory


def allocate(
    shape: torch.Size,
    stride: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    name: str = "a tensor",
    shift: int = 0,
) -> Guard:
    """Guarded memory full of poison.

    Args:
        shape, stride, dtype, device: of the tensor.
        name: how error messages call it.
        shift: elements by which it starts after a multiple of 16 bytes.

    Returns:
        The guard; its ``tensor`` owns its storage as far as autograd can tell.
    """
    steps = [(n, step) for n, step in zip(shape, stride, strict=True) if step]
    extent = _extent(shape, stride)
    # Nothing is written to an empty tensor in earnest; launches make many of them.
    band = (_BAND if extent else _BAND // 16) // dtype.itemsize
    start, size = band + shift, 2 * band + shift + extent
    storage = _EMPTY(size, dtype=dtype, device=device).untyped_storage()
    whole = _EMPTY(0, dtype=dtype, device=device).set_(storage, 0, (size,))
    memory, outside = poison.words(whole), poison.pattern(dtype, Mark.OUTSIDE)
    memory.fill_(outside)
    # set_ rather than a view: autograd treats views differently.
    tensor = _EMPTY(0, dtype=dtype, device=device).set_(storage, start, shape, stride)
    unwritten = poison.fill(tensor)
    gaps = None
    if extent > math.prod(n for n, _ in steps):
        gaps = torch.ones(extent, dtype=torch.bool, device=device)
        once(gaps.as_strided(shape, stride)).fill_(False)
    inside = slice(start, start + extent)
    place = _place(tensor)
    return Guard(tensor, memory, inside, gaps, outside, unwritten, place, name)


def _place(tensor: torch.Tensor) -> tuple[int, torch.Size, tuple[int, ...]]:
    return tensor.storage_offset(), tensor.shape, tensor.stride()


def _extent(shape: torch.Size, stride: tuple[int, ...]) -> int:
    """Elements from a tensor's first one to its last in memory."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
