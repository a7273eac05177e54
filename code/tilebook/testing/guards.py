"""Memory that notices being written outside a tensor, or not being written at all."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any
from unittest import mock

import torch

from tilebook.testing import poison
from tilebook.testing.poison import once

# Wide enough for a block of 16,384 float32 that starts at a tensor's end.
_BAND = 1 << 16
_BYTE = 0xC7
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
        buffer: bytes of band, tensor and band.
        band: width of each band in bytes.
        gaps: for a tensor with holes, positions between its elements (bool over the
            bytes it spans); nobody may write those either.
        filling: what those bytes held at first.
        name: how error messages call the tensor.
        sentinel: integer that marks unwritten elements, if there is one.
    """

    tensor: torch.Tensor
    buffer: torch.Tensor = field(repr=False)
    band: int
    gaps: torch.Tensor | None = field(default=None, repr=False)
    filling: torch.Tensor | None = field(default=None, repr=False)
    name: str = "a tensor"
    sentinel: int | None = None

    def check(self) -> None:
        """Look whether anything outside the tensor was written.

        Raises:
            GuardError: it was; the message has shape, side and distance.
        """
        size = self.tensor.element_size()
        for side, band in (
            ("before the start", self.buffer[: self.band].flip(0)),
            ("past the end", self.buffer[-self.band :]),
        ):
            spoiled = torch.nonzero(band != _BYTE)
            if spoiled.numel():
                raise GuardError(self._message(side, spoiled, size))
        if self.gaps is not None:
            body = self.buffer[self.band : -self.band]
            spoiled = torch.nonzero(self.gaps & (body != self.filling))
            if spoiled.numel():
                raise GuardError(self._message("between the elements", spoiled, size))

    def untouched(self) -> torch.Tensor:
        """Which elements were never written, as a bool tensor."""
        return poison.untouched(self.tensor, self.sentinel)

    def _message(self, side: str, spoiled: torch.Tensor, size: int) -> str:
        first, count = int(spoiled[0]) // size, int(spoiled.numel())
        elements = math.ceil(count / size)
        plural = "s" if elements != 1 else ""
        shape = f"{self.tensor.dtype} {tuple(self.tensor.shape)}"
        where = f"{first} element{'s' if first != 1 else ''} from it"
        if side == "between the elements":
            where = f"{first} positions into it, strides {self.tensor.stride()}"
        return (
            f"wrote about {elements} element{plural} {side} of {self.name} ({shape}), "
            f"the first {where}: is the store masked?"
        )


def guard(tensor: torch.Tensor, *, name: str = "a tensor") -> Guard:
    """Copy a tensor into guarded memory.

    Args:
        tensor: dense or strided, any dtype, CPU or GPU; expanded dimensions stay so.
        name: how error messages call it.

    Returns:
        A `Guard` whose ``tensor`` has the same values, shape and strides. What lies
        between its elements is poison.
    """
    made = allocate(tensor.shape, tensor.stride(), tensor.dtype, tensor.device, name)
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
    their own (meta, fake, sparse, ``out=``) and pinned ones are left alone.

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
    def allocate(*args: Any, **kwargs: Any) -> Any:
        plain = original(*args, **kwargs)
        special = kwargs.get("out") is not None or kwargs.get("pin_memory")
        if special or type(plain) is not torch.Tensor or plain.layout != torch.strided:
            return plain
        if plain.device.type not in ("cpu", "cuda") or plain.is_quantized:
            return plain
        made = allocate(plain.shape, plain.stride(), plain.dtype, plain.device)
        made.tensor.requires_grad_(plain.requires_grad)
        guards.append(made)
        return made.tensor

    return allocate


def allocate(
    shape: torch.Size,
    stride: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    name: str = "a tensor",
) -> Guard:
    """Guarded memory full of poison.

    Args:
        shape, stride, dtype, device: of the tensor.
        name: how error messages call it.

    Returns:
        The guard; its ``tensor`` owns its storage as far as autograd can tell.
    """
    size = dtype.itemsize
    spans = [(n - 1) * step for n, step in zip(shape, stride, strict=True)]
    extent = 0 if 0 in shape else 1 + sum(spans)
    # Nothing is written to an empty tensor in earnest; launches make many of them.
    band = _BAND if extent else _BAND // 16
    buffer = _EMPTY(2 * band + extent * size, dtype=torch.uint8, device=device)
    buffer.fill_(_BYTE)
    storage = buffer.untyped_storage()
    # set_ rather than a view of the buffer: autograd treats views differently.
    flat = _EMPTY(0, dtype=dtype, device=device).set_(storage, band // size, (extent,))
    sentinel = poison.fill(flat)
    tensor = _EMPTY(0, dtype=dtype, device=device)
    tensor.set_(storage, band // size, shape, stride)
    gaps = filling = None
    if extent > math.prod(n for n, step in zip(shape, stride, strict=True) if step):
        owned = torch.zeros(extent, dtype=torch.bool, device=device)
        once(owned.as_strided(shape, stride)).fill_(True)
        gaps = ~owned.repeat_interleave(size)
        filling = buffer[band : buffer.numel() - band].clone()
    return Guard(tensor, buffer, band, gaps, filling, name, sentinel)
