"""Before anything is timed: is the result right, and the same every time?"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from tilebook import testing
from tilebook.testing import closeness, poison, precision

from .errors import WrongResult

REPEATS = 20

# Elements per piece of a float64 reference: 512 MiB for each tensor of it.
PIECE = 2**26


def verify(
    call: Callable[[], Any],
    inputs: Sequence[Any],
    reference: Callable[..., Any],
    *,
    along: int | None = None,
    length: int = 1,
    bound: float | None = None,
    out: torch.Tensor | None = None,
) -> tuple[float, float]:
    """Compare a call with its float64 reference.

    Args:
        call: what is to be timed; returns a tensor or several.
        inputs: what it computes from.
        reference: the same on float64 inputs, in PyTorch.
        along: dimension along which inputs and outputs may be cut into pieces that
            don't depend on one another, so that a reference of gigabytes fits. None
            if there is none.
        length: terms summed for each output element; sets the bound.
        bound: relative error allowed in the Frobenius norm; by default derived from
            the outputs' dtype and ``length``.
        out: where the call writes, to be poisoned first; what the call allocates is
            poisoned as far as the allocator can be foreseen.

    Returns:
        The largest relative error of any output, and the bound.

    Raises:
        WrongResult: an element is off by more than its bound, or was never written.
    """
    results = _poisoned(call, out)
    errors, bounds = [], []
    for i, result in enumerate(results):
        allowed = testing.bound(result.dtype, length) if bound is None else bound
        sums = torch.zeros(3, dtype=torch.float64, device=result.device)
        for got, all_expected in _pieces(result, inputs, reference, along):
            if len(all_expected) != len(results):
                raise WrongResult(
                    f"{len(results)} outputs, its reference has {len(all_expected)}"
                )
            expected = all_expected[i]
            if got.shape != expected.shape:
                raise WrongResult(
                    f"output {i} has shape {tuple(got.shape)}, its reference "
                    f"{tuple(expected.shape)}"
                )
            if bound is None:
                try:
                    testing.assert_close(got, expected, length=length)
                except AssertionError as error:
                    raise WrongResult(f"output {i}: {error}") from error
            sums[0] += (got.double() - expected).square_().sum()
            sums[1] += expected.square().sum()
            sums[2] += closeness.subnormal(expected, result.dtype).sum()
        wrong, size, small = sums.sqrt().tolist()
        error = wrong / size if size else wrong
        if small:
            # Relative to numbers that small, even the last rounding is no small error.
            allowed += precision.format_of(result.dtype).underflow * small / size
        if not error <= allowed:
            raise WrongResult(
                f"output {i}: relative error {error:.3g}, allowed {allowed:.3g}"
            )
        errors.append(error)
        bounds.append(allowed)
    return max(errors), max(bounds)


def repeat(call: Callable[[], Any], repeats: int = REPEATS) -> None:
    """Insist that a call gives the same bits every time.

    Args:
        call: what is to be timed; returns a tensor or several.
        repeats: calls after the first.

    Raises:
        WrongResult: two calls differ.
    """
    first = [_bits(x).clone() for x in tensors(call())]
    for n in range(1, repeats + 1):
        for i, (a, b) in enumerate(zip(first, tensors(call()), strict=True)):
            if not torch.equal(a, _bits(b)):
                count = int((a != _bits(b)).sum())
                raise WrongResult(
                    f"output {i} differs in repeat {n}: {count} words of {a.numel()}"
                )


def tensors(result: Any) -> list[torch.Tensor]:
    """The tensors that a call returned.

    Args:
        result: a tensor, or a tuple or list of them.

    Returns:
        A list of at least one.

    Raises:
        WrongResult: it is something else.
    """
    found = list(result) if isinstance(result, tuple | list) else [result]
    if not found or not all(isinstance(x, torch.Tensor) for x in found):
        raise WrongResult(f"must return a tensor or several, returned {result!r:.80}")
    return found


def _poisoned(call: Callable[[], Any], out: torch.Tensor | None) -> list[torch.Tensor]:
    if out is not None:
        poison.fill(out)
        return tensors(call())
    # A caching allocator hands out again what was just freed, newest first: free
    # poisoned memory of the outputs' sizes, and the next call writes there, or not.
    shapes = tensors(call())
    waste = [torch.empty_like(x) for x in shapes]
    del shapes
    waste += [torch.empty_like(x) for x in waste]
    for tensor in waste:
        poison.fill(tensor)
    del waste
    return tensors(call())


def _pieces(
    result: torch.Tensor,
    inputs: Sequence[Any],
    reference: Callable[..., Any],
    along: int | None,
) -> Iterator[tuple[torch.Tensor, list[torch.Tensor]]]:
    """An output and all references, whole or cut along a dimension."""
    if along is None or result.numel() <= PIECE:
        yield result, tensors(reference(*map(_wide, inputs)))
        return
    size = result.shape[along]
    step = max(1, PIECE * size // result.numel())
    for start in range(0, size, step):
        n = min(step, size - start)

        def cut(x: Any, start: int = start, n: int = n) -> Any:
            whole = isinstance(x, torch.Tensor) and x.ndim > along
            return x.narrow(along, start, n) if whole else x

        parts = (_wide(cut(x)) for x in inputs)
        yield cut(result), tensors(reference(*parts))


def _wide(x: Any) -> Any:
    real = isinstance(x, torch.Tensor) and x.dtype.is_floating_point
    return x.double() if real else x


def _bits(x: torch.Tensor) -> torch.Tensor:
    """The tensor as integers, in which NaN equals NaN and -0 differs from 0."""
    words = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return x.view(words[x.element_size()]) if x.dtype != torch.bool else x
