"""Notices when torch computes what a kernel should, and when no kernel is launched."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from triton import knobs
from triton.runtime.interpreter import GridExecutor

# Allocating, filling, copying and moving is not computing; neither are views, which
# are recognised by their schemas.
_HARMLESS = frozenset(
    (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        *("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"),
        *("full", "full_like", "new_full", "fill_", "zero_", "scalar_tensor"),
        *("copy_", "clone", "_to_copy", "contiguous", "set_", "resize_", "arange"),
        *("_local_scalar_dense", "is_pinned", "lift_fresh", "empty_permuted"),
        # What reshape ends with where it has to copy.
        "_unsafe_view",
    )
)


class ComputeSpy(TorchDispatchMode):
    """While active, remembers the first operator of torch's that computes.

    Attributes:
        seen: that operator's name, such as ``"aten.add"``, or None.
    """

    # Or `torch.library.wrap_triton` would be refused: it launches by way of one.
    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: str | None = None

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if self.seen is None and not _harmless(func):
            self.seen = _name(func)
        return func(*args, **(kwargs or {}))


def _name(func: Any) -> str:
    if isinstance(func, HigherOrderOperator):
        return f"torch.{func.name()}"
    return f"{func.namespace}.{func.overloadpacket.__name__}"


def _harmless(func: Any) -> bool:
    """Whether an operator doesn't compute, or isn't torch's own."""
    if isinstance(func, HigherOrderOperator):
        return func.name().startswith("triton_kernel_wrapper")
    views = any(
        r.alias_info and not r.alias_info.is_write for r in func._schema.returns
    )
    ours = func.namespace not in ("aten", "prims")
    return views or ours or func.overloadpacket.__name__ in _HARMLESS


@dataclass
class Launches:
    """How often a Triton kernel was launched.

    Attributes:
        count: launches so far; those that an autotuner times are among them.
    """

    count: int = 0


@contextmanager
def launches() -> Iterator[Launches]:
    """Count launches of Triton kernels, interpreted and compiled ones.

    Yields:
        The count, which grows within the context.
    """
    seen = Launches()
    interpret, hook = GridExecutor.__call__, knobs.runtime.launch_enter_hook

    @functools.wraps(interpret)
    def launch(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.count += 1
        return interpret(self, *args, **kwargs)

    # The launcher itself calls the hook, whatever brought it there: a kernel with its
    # grid, an autotuner, `wrap_triton`, or what `warmup` returned.
    def enter(metadata: Any) -> None:
        seen.count += 1
        if hook is not None:
            hook(metadata)

    with (
        mock.patch.object(GridExecutor, "__call__", launch),
        mock.patch.object(knobs.runtime, "launch_enter_hook", enter),
    ):
        yield seen
