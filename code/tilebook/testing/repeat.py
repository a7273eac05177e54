"""The same call, the same bits; and an operator as torch expects it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tilebook.testing.poison import flat_bytes


def deterministic(fn: Callable[[], Any], repeats: int = 20) -> Any:
    """Assert that a call gives the same bits every time.

    Args:
        fn: takes nothing; returns a tensor or nested tuples, lists, dicts of them.
        repeats: calls, the first included.

    Returns:
        What the first call returned.

    Raises:
        AssertionError: a repeat differs; the message has call, output and index.
        TypeError: there is no tensor in what ``fn`` returns.
    """
    first = fn()
    kept = [t.detach().clone() for t in _tensors(first)]
    if not kept:
        raise TypeError(f"fn returned no tensor: {type(first).__name__}")
    for call in range(1, repeats):
        again = list(_tensors(fn()))
        if [t.shape for t in again] != [t.shape for t in kept]:
            raise AssertionError(
                f"call {call + 1} returned other shapes than the first"
            )
        for number, (old, new) in enumerate(zip(kept, again, strict=True)):
            differs = flat_bytes(old) != flat_bytes(new)
            if bool(differs.any()):
                rows = differs.reshape(old.numel(), -1).any(dim=1)
                where = torch.nonzero(rows)[0].cpu()
                index = tuple(int(i) for i in torch.unravel_index(where, old.shape))
                raise AssertionError(
                    f"call {call + 1} of {repeats} differs from the first in "
                    f"{int(rows.sum())} of {old.numel()} elements of output {number}, "
                    f"first at {index}: {old[index].item()} then {new[index].item()}"
                )
    return first


def opcheck(op: Any, *args: Any, **kwargs: Any) -> None:
    """Run torch's own checks of a registered operator.

    Args:
        op: from ``torch.library.triton_op`` or ``custom_op``, or ``torch.ops.X.Y``.
        *args: of one call.
        **kwargs: of that call.

    Raises:
        AssertionError: schema, fake implementation or autograd registration is
            wrong; the message is torch's, one line for each check that failed.
    """
    results = torch.library.opcheck(op, args, kwargs, raise_exception=False)
    failed = {k: v for k, v in results.items() if v != "SUCCESS"}
    if failed:
        lines = [f"  {name}: {reason}" for name, reason in failed.items()]
        raise AssertionError("opcheck failed:\n" + "\n".join(lines))


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
