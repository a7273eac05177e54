"""Gluon's names that changed between Triton 3.6 and 3.9, under one name each."""

from typing import Any

from triton._C.libtriton import ir
from triton.experimental.gluon.language._core import builtin
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import tma

__all__ = ["async_add", "async_copy_load", "async_load", "async_store", "seen_as"]

# Until 3.8 these were called by what they copy from and to.
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
async_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
# The older copy has the copy engine's names, in a module of its own.
async_copy_load = (
    getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared
)


@builtin
def _async_add(tensor_desc: Any, coord: Any, src: Any, _semantic: Any = None) -> None:
    """Add a tile in shared memory to a tensor, by the copy engine."""
    at = _semantic._convert_to_ir_values(coord, require_i64=False)
    _semantic.builder.create_async_tma_reduce(
        ir.DESCRIPTOR_REDUCE_KIND.ADD, tensor_desc.handle, at, src.handle
    )


# Until 3.8 Gluon hadn't what its builder had.
async_add = getattr(tma, "async_atomic_add", None) or _async_add


@builtin
def seen_as(
    memory: Any, dtype: Any, shape: Any, layout: Any, _semantic: Any = None
) -> Any:
    """View shared memory as a tile of another type: a method that 3.9 renamed."""
    dtype, layout, *shape = (getattr(x, "value", x) for x in (dtype, layout, *shape))
    return _semantic.memdesc_reinterpret(memory, dtype, shape, layout)
