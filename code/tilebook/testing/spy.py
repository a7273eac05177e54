"""Notices when torch computes what a kernel should."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# Allocating, filling, copying and moving is not computing; neither are views, which
# are recognised by their schemas.
_HARMLESS = frozenset(
    (
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        *("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"),
        *("full", "full_like", "new_full", "fill_", "zero_", "scalar_tensor"),
        *("copy_", "clone", "_to_copy", "contiguous", "set_", "resize_", "arange"),
        *("_local_scalar_dense", "is_pinned", "lift_fresh", "empty_permuted"),
    )
)


class ComputeSpy(TorchDispatchMode):
    """While active, remembers the first operator of torch's that computes.

    Attributes:
        seen: that operator's name, such as ``"aten.add"``, or None.
    """

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
        name = func.overloadpacket.__name__
        schema = func._schema
        views = any(r.alias_info and not r.alias_info.is_write for r in schema.returns)
        ours = func.namespace not in ("aten", "prims")
        if self.seen is None and not (views or ours or name in _HARMLESS):
            self.seen = f"{func.namespace}.{name}"
        return func(*args, **(kwargs or {}))
